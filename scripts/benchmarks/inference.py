"""Rows of nets at work: classify, extract-features, evaluate, and one forward."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scripts.benchmarks.files import measured_net, name_elsewhere, onnx_file, photos, state_file, t7_file
from scripts.benchmarks.measure import RESNET, Row, in_turn, peak_of, program, repeats, resnet, row, timed_row

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from resnet_tools.compute.inference import Batch
    from resnet_tools.data.transforms import Preprocessing

SMALL_NET = Path(__file__).parents[2] / "tests" / "data" / "models" / "variant_nn_buffers.t7"


def classify_rows(folder: Path) -> Iterator[Row]:
    net, images = measured_net(), photos(folder, 100)
    model, state, graph = t7_file(folder, net), state_file(folder), onnx_file(folder)
    torchvision = partial(program, "classify_torchvision", name_elsewhere(net), state)
    one, many = resnet("classify", model, images[0]), f"classify {len(images)} images"
    yield row("classify 1 image : torchvision script", one, torchvision(images[0]), 0.15)
    yield row("classify 1 image : import torch, load, one forward", one, program("one_forward", net, state), 0.5)
    script = partial(program, "classify_onnxruntime", graph)
    yield row("classify 1 image : onnxruntime script with a ready .onnx", one, script(images[0]), 1.25)
    ours = resnet("classify", model, *images)
    yield row(f"{many}, single : onnxruntime script", ours, script(*images), 1.05, 3, warm_up=False)
    for engine, precision, target in (("auto", "single", 0.55), ("auto", "bf16", 0.4), ("openvino", "bf16", 0.2)):
        if engine == "openvino" and not has_bf16():
            continue
        ours = resnet("classify", model, *images, "--engine", engine, "--precision", precision)
        name = f"{many}, {engine} {precision} : torchvision script"
        yield row(name, ours, torchvision(*images), target, 3, warm_up=False)


def has_bf16() -> bool:
    """Whether this CPU computes in it, without which openvino's row cannot be measured."""
    from resnet_tools.checkpoints.openvino_session import openvino_core

    return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def forward_rows(folder: Path) -> Iterator[Row]:
    """A batch of eight, without loading: each engine as it is run here, the default one first, against the better of
    those as they come; and the torch engine, which takes 16 images at once where there is one thread."""
    import torch

    from resnet_tools.checkpoints.runnable import load_runnable, ready_classifier

    model, graph = load_runnable(t7_file(folder, measured_net())), onnx_file(folder)
    images = np.random.default_rng(0).standard_normal((8, 3, 224, 224)).astype(np.float32)
    bare = {"onnxruntime": bare_onnxruntime(graph), "openvino": bare_openvino(graph)}
    for engine in ("auto", "openvino"):
        net = ready_classifier(model, ["class"] * 1000, "cpu", engine=engine).net
        pairs = {name: in_turn(partial(net, images), partial(peer, images), 9, True) for name, peer in bare.items()}
        for name, times in pairs.items():
            better = times[1].wall == min(theirs.wall for _, theirs in pairs.values())
            label = f"forward of 8 images, {engine}, single : bare {name}"
            # The target is for the better one, and for an engine against itself.
            target = 1.05 if better or engine == name else math.inf
            yield timed_row(label, *times, target, ", the better one" if better else "")
    net = ready_classifier(model, ["class"] * 1000, "cpu", engine="torch").net
    eight = torch.from_numpy(images)
    sixteen, halves = eight.repeat(2, 1, 1, 1), partial(repeat, partial(net, eight), 2)
    yield row("forward of 16 images at once, torch, single : of two times 8", partial(net, sixteen), halves, 1.0, 9)


def bare_onnxruntime(graph: Path) -> Callable[[NDArray[np.float32]], object]:
    import onnxruntime

    from resnet_tools.compute.cpus import own_affinity

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = own_affinity()  # its own choice takes CPUs that --cpus has left out
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})


def bare_openvino(graph: Path) -> Callable[[NDArray[np.float32]], object]:
    from resnet_tools.checkpoints.openvino_session import openvino_core

    net = openvino_core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: net([images])


def timm_rows(folder: Path) -> Iterator[Row]:
    paths, net = photos(folder, 1000), measured_net()
    ours = resnet("classify", t7_file(folder, net), paths[0].parent)
    peer = program("classify_timm", name_elsewhere(net), state_file(folder), paths[0].parent)
    yield row(f"classify {len(paths)} images : timm eager with its loader", ours, peer, 0.5, 3, warm_up=False)


def feature_rows(folder: Path) -> Iterator[Row]:
    import torch

    from resnet_tools import load_checkpoint
    from resnet_tools.compute.inference import Loading, loaded_batches, prepare
    from resnet_tools.data.transforms import preprocess
    from resnet_tools.features.extract import Extraction
    from resnet_tools.features.layers import FeatureKind, features_of

    paths, kind, net = [str(path) for path in photos(folder, 512)], FeatureKind(), measured_net()
    images = torch.stack([preprocess(path) for path in paths[:32]])
    for name, file in ((net, t7_file(folder, net)), ("a CIFAR resnet-8", SMALL_NET)):
        checkpoint = load_checkpoint(file)
        model = prepare(checkpoint.model, torch.device("cpu"))
        loading = Loading(checkpoint.preprocessing, 32)
        job = Extraction(model, kind, loading, {"model": name}, resume=False)
        ours = partial(job.run, paths, folder / "features.pt", None, lambda *_: None)
        label = f"features of {len(paths)} images, {name}"
        if file == SMALL_NET:
            decode = partial(decode_all, paths, checkpoint.preprocessing)
            yield row(f"{label} : decoding alone", ours, decode, 1 / 0.9, 5)
        else:
            bare = partial(repeat, partial(features_of, model, images, kind), len(paths) / len(images))
            yield row(f"{label} : the bare model", ours, bare, 1 / 0.9, 3)
            share = waiting_share(partial(features_of, model, kind=kind), loaded_batches(paths, loading))
            yield Row(f"share of its time that {name} waits for images", share, 0.05, "of 1")
    images_folder = Path(paths[0]).parent
    command = ("extract-features", t7_file(folder, net), "--dir", images_folder, "--quiet", "--no-resume")
    ours = resnet(*command, "--output", folder / "features.npy")
    peer = program("features_timm", name_elsewhere(net), state_file(folder), images_folder)
    name = f"features of {len(paths)} images, {net}, whole process : timm with DataLoader"
    yield row(name, ours, peer, 1 / 1.5, 3, warm_up=False)


def evaluate_rows(folder: Path) -> Iterator[Row]:
    import torch

    from resnet_tools import load_checkpoint
    from resnet_tools.compute.inference import Loading, logits_of, prepare
    from resnet_tools.data.samples import Samples
    from resnet_tools.data.transforms import preprocess, ten_crops
    from resnet_tools.evaluation.evaluate import evaluate

    paths, net = [str(path) for path in photos(folder, 304)], measured_net()
    checkpoint = load_checkpoint(t7_file(folder, net))
    model = prepare(checkpoint.model, torch.device("cpu"))
    for crops, cut, count in (("one crop", preprocess, 304), ("ten crops", ten_crops, 32)):
        images, count = torch.stack([cut(path) for path in paths[:8]]), repeats(count)
        samples = Samples(paths[:count], [0] * count, [str(number) for number in range(1000)])
        loading = Loading(checkpoint.preprocessing, ten_crop=cut is ten_crops)
        ours = partial(evaluate, model, samples, loading)
        bare = partial(repeat, partial(logits_of, model, images), count / 8)
        yield row(f"evaluate {count} images, {crops}, {net} : the bare model", ours, bare, 1 / 0.9, 3)


def repeat(step: Callable[[], object], count: float) -> None:
    for _ in range(max(1, round(count))):
        step()


def waiting_share(step: Callable[[Tensor], object], batches: Iterator[Batch]) -> float:
    """The part of the time that goes by between the steps of a model, until the next batch is there."""
    start, busy = time.perf_counter(), 0.0
    for batch in batches:
        ready = time.perf_counter()
        step(batch.images)
        busy += time.perf_counter() - ready
    return 1 - busy / (time.perf_counter() - start)


def decode_all(paths: list[str], preprocessing: Preprocessing) -> None:
    from resnet_tools.data.loading import load_ahead
    from resnet_tools.data.transforms import preprocess

    for _ in load_ahead(paths, partial(preprocess, preprocessing=preprocessing), workers=2, ahead=64):
        pass


def memory_rows(folder: Path) -> Iterator[Row]:
    """Peak memory of extraction from few and from many images; the same files over and over."""
    source = photos(folder, 20)
    peaks, counts = [], [repeats(2_000), 2 * repeats(10_000)]
    for count in counts:
        listed = folder / "list.txt"
        listed.write_text("".join(f"{source[number % len(source)]}\n" for number in range(count)))
        output = folder / f"features-{count}.npy"
        options = ("--from-file", listed, "--crop-size", "64", "--output", output)
        peaks.append(peak_of(RESNET, "extract-features", "demo", *options))
    detail = f"{peaks[1] / 1e6:,.0f} MB against {peaks[0] / 1e6:,.0f} MB"
    yield Row(f"peak memory of features of {counts[1]:,} images : of {counts[0]:,}", peaks[1] / peaks[0], 1.1, detail)
