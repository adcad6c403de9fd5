"""Rows of nets at work: classify, extract-features, evaluate, and one forward."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scripts.benchmarks.files import measured_net, name_elsewhere, photos, state_file, t7_file
from scripts.benchmarks.measure import Row, in_turn, peak_of, program, repeats, resnet, row, timed_row

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
    ours, many = resnet("classify", model, images[0]), f"classify {len(images)} images"
    yield row("classify 1 image : torchvision script", ours, torchvision(images[0]), 0.15)
    yield row("classify 1 image : import torch, load, one forward", ours, program("one_forward", net, state), 0.5)
    peer = program("classify_onnxruntime", graph, images[0])
    yield row("classify 1 image : onnxruntime script with a ready .onnx", ours, peer, 1.25)
    ours, peer = resnet("classify", model, *images), program("classify_onnxruntime", graph, *images)
    yield row(f"{many}, single : onnxruntime script", ours, peer, 1.05, 3, warm_up=False)
    for engine, precision, target in (("auto", "single", 0.55), ("auto", "bf16", 0.4), ("openvino", "bf16", 0.2)):
        ours = resnet("classify", model, *images, "--engine", engine, "--precision", precision)
        name = f"{many}, {engine} {precision} : torchvision script"
        yield row(name, ours, torchvision(*images), target, 3, warm_up=False)


def onnx_file(folder: Path) -> Path:
    graph = folder / f"{measured_net()}.onnx"
    resnet("convert", t7_file(folder, measured_net()), graph, "--force")()
    return graph


def forward_rows(folder: Path) -> Iterator[Row]:
    """A batch of eight, without loading: each engine as it is run here against the better of those as they come."""
    from resnet_tools.checkpoints.runnable import load_runnable, ready_classifier

    model, graph = load_runnable(t7_file(folder, measured_net())), onnx_file(folder)
    images = np.random.default_rng(0).standard_normal((8, 3, 224, 224)).astype(np.float32)
    bare = {"onnxruntime": bare_onnxruntime(graph), "openvino": bare_openvino(graph)}
    for engine in ("onnxruntime", "openvino"):
        net = ready_classifier(model, ["class"] * 1000, "cpu", engine=engine).net
        pairs = {name: in_turn(partial(net, images), partial(peer, images), 9, True) for name, peer in bare.items()}
        better = min(pairs, key=lambda name: pairs[name][1].wall)
        for name in {better, engine}:
            label = f"forward of 8 images, {engine}, single : bare {name}"
            target = 1.05 if name == engine else 1.2
            yield timed_row(label, *pairs[name], target, ", the better one" if name == better else "")


def bare_onnxruntime(graph: Path) -> Callable[[NDArray[np.float32]], object]:
    import onnxruntime

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})


def bare_openvino(graph: Path) -> Callable[[NDArray[np.float32]], object]:
    from resnet_tools.checkpoints.openvino_session import openvino_core

    net = openvino_core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: net([images])


def timm_rows(folder: Path) -> Iterator[Row]:
    count, net = len(photos(folder, 1000)), measured_net()
    ours = resnet("classify", t7_file(folder, net), folder / "photos")
    peer = program("classify_timm", name_elsewhere(net), state_file(folder), folder / "photos")
    yield row(f"classify {count} images : timm eager with its loader", ours, peer, 0.5, 2, warm_up=False)


def feature_rows(folder: Path) -> Iterator[Row]:
    import torch

    from resnet_tools import load_checkpoint
    from resnet_tools.compute.inference import Loading, loaded_batches, prepare
    from resnet_tools.data.transforms import preprocess
    from resnet_tools.features.extract import Extraction
    from resnet_tools.features.layers import FeatureKind, features_of

    paths, kind, net = [str(path) for path in photos(folder, 500)], FeatureKind(), measured_net()
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
            yield row(f"{label} : the bare model", ours, bare, 1 / 0.9, 1)
            share = waiting_share(partial(features_of, model, kind=kind), loaded_batches(paths, loading))
            yield Row(f"share of its time that {name} waits for images", share, 0.05, "of 1")
    command = ("extract-features", t7_file(folder, net), "--dir", folder / "photos", "--quiet", "--no-resume")
    ours = resnet(*command, "--output", folder / "features.npy")
    peer = program("features_timm", name_elsewhere(net), state_file(folder), folder / "photos")
    name = f"features of {len(paths)} images, {net}, whole process : timm with DataLoader"
    yield row(name, ours, peer, 1 / 1.5, 1, warm_up=False)


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
    peaks = []
    for count in (2_000, 20_000):
        count = repeats(count)
        listed = folder / "list.txt"
        listed.write_text("".join(f"{source[number % len(source)]}\n" for number in range(count)))
        output = folder / f"features-{len(peaks)}.npy"
        options = ("--from-file", listed, "--crop-size", "64", "--output", output)
        peaks.append(peak_of("-m", "resnet_tools", "extract-features", "demo", *options))
    detail = f"{peaks[1] / 1e6:,.0f} MB against {peaks[0] / 1e6:,.0f} MB"
    yield Row("peak memory of features of 20,000 images : of 2,000", peaks[1] / peaks[0], 1.1, detail)
