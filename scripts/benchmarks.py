"""The benchmark suite: each row is the ratio of the medians of two commands or functions that ran in turn.

A ratio below its target is good; times differ from machine to machine, ratios much less. Beside it stand the medians of
wall time and of CPU time, user and system, of which other processes take nothing away.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from resnet_tools.compute.inference import Batch
    from resnet_tools.data.transforms import Preprocessing
    from resnet_tools.nets.architecture import Architecture

PLAIN_TORCHVISION = """
import sys, torch, torchvision
from PIL import Image
from torchvision import transforms
net = torchvision.models.resnet50()
net.load_state_dict(torch.load(sys.argv[1], weights_only=True))
net.eval()
prepare = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(),
    transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
for path in sys.argv[2:]:
    with torch.no_grad():
        best = torch.softmax(net(prepare(Image.open(path).convert("RGB"))[None])[0], 0).topk(5)
    print(path, best.values.tolist(), best.indices.tolist())
"""

PLAIN_ONNXRUNTIME = """
import sys
import numpy as np, onnxruntime
from PIL import Image
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
for path in sys.argv[2:]:
    image = Image.open(path).convert("RGB").resize((341, 256)).crop((58, 16, 282, 240))
    x = (np.asarray(image, np.float32) / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    [logits] = session.run(None, {"images": x.transpose(2, 0, 1)[None].astype(np.float32)})
    powers = np.exp(logits[0] - logits.max())
    best = np.argsort(-powers)[:5]
    print(path, (powers / powers.sum())[best].tolist(), best.tolist())
"""

PLAIN_TIMM = """
import sys, timm, torch
from timm.data import ImageDataset, create_loader
net = timm.create_model("resnet50").eval()
net.load_state_dict(torch.load(sys.argv[1], weights_only=True))
loader = create_loader(ImageDataset(sys.argv[2]), (3, 224, 224), 32, use_prefetcher=False, num_workers=2)
with torch.no_grad():
    for images, _ in loader:
        print(torch.softmax(net(images), 1).topk(5).indices.tolist())
"""

PLAIN_TIMM_FEATURES = """
import sys, timm, torch
from timm.data import ImageDataset, create_loader
net = timm.create_model("resnet50", num_classes=0).eval()
net.load_state_dict(torch.load(sys.argv[1], weights_only=True), strict=False)
loader = create_loader(ImageDataset(sys.argv[2]), (3, 224, 224), 32, use_prefetcher=False, num_workers=2)
with torch.inference_mode():
    features = torch.cat([net(images) for images, _ in loader])
torch.save(features, sys.argv[2] + ".pt")
"""

MINIMUM = """
import sys, torch
net = torch.load(sys.argv[1], weights_only=True)
from resnet_tools.nets.catalog import named_architecture
from resnet_tools.nets.state_dict import load_resnet
with torch.inference_mode():
    load_resnet(named_architecture("resnet-50"), net)(torch.zeros(1, 3, 224, 224))
"""

PEAK = """
import sys
import resnet_tools.checkpoints.checkpoint as checkpoint
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
checkpoint.load_checkpoint()
open("/proc/self/clear_refs", "w").write("5")  # the peak so far is forgotten
before = peak()
model = checkpoint.load_checkpoint(sys.argv[1])
print((peak() - before) * 1024)
"""


# Both print the median seconds of a training step of ResNet-18 on 16 images of 224 x 224.
STEPS = """
import statistics, time
def median_step(step):
    times = []
    for number in range(9):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    print(statistics.median(times[2:]))
"""

OUR_STEP = """
import sys, torch
from resnet_tools.compute.device import keep_freed_memory
from resnet_tools.nets.resnet import build_resnet
from resnet_tools.training.compute_config import ComputeConfig
from resnet_tools.training.recipe import make_recipe
from resnet_tools.training.step import TrainStep
keep_freed_memory()
config = ComputeConfig(torch.device("cpu"), sys.argv[1])
train_step = TrainStep(build_resnet("resnet-18"), make_recipe("original", "imagenet"), config)
images, targets = torch.randn(16, 3, 224, 224), torch.arange(16)
def step():
    train_step.train_mode()
    train_step.backward(images, targets, 16, last=True)
    train_step.update()
median_step(step)
"""

TIMM_STEP = """
import contextlib, sys, timm, torch
from timm.optim import create_optimizer_v2
layout = torch.channels_last if "channels_last" in sys.argv else torch.contiguous_format
net = timm.create_model("resnet18").train().to(memory_format=layout)
optimizer = create_optimizer_v2(net, "sgd", lr=0.1, weight_decay=1e-4, momentum=0.9)
images, targets = torch.randn(16, 3, 224, 224).contiguous(memory_format=layout), torch.arange(16)
amp = torch.autocast("cpu", torch.bfloat16) if "bf16" in sys.argv else contextlib.nullcontext()
def step():
    optimizer.zero_grad()
    with amp:
        loss = torch.nn.functional.cross_entropy(net(images), targets)
    loss.backward()
    optimizer.step()
    loss.item()
median_step(step)
"""


@dataclass(frozen=True)
class Row:
    name: str
    ratio: float
    target: float
    detail: str


quick: ContextVar[bool] = ContextVar("quick", default=False)  # only see that the rows run
QUICK_PHOTOS = 10


@dataclass(frozen=True)
class Seconds:
    wall: float
    cpu: float


def in_turn(
    ours: Callable[[], object], peer: Callable[[], object], runs: int, warm_up: bool
) -> tuple[Seconds, Seconds]:
    """Medians of each, run alternately, with `warm_up` after a run of each that does not count."""
    times: tuple[list[Seconds], list[Seconds]] = ([], [])
    for run in range(-1 if warm_up and not quick.get() else 0, 1 if quick.get() else runs):
        for function, found in zip((ours, peer), times, strict=True):
            wall, cpu = time.perf_counter(), cpu_seconds()
            function()
            if run >= 0:
                found.append(Seconds(time.perf_counter() - wall, cpu_seconds() - cpu))
    return median(times[0]), median(times[1])


def median(times: list[Seconds]) -> Seconds:
    return Seconds(statistics.median(t.wall for t in times), statistics.median(t.cpu for t in times))


def cpu_seconds() -> float:
    """User and system time of this process and of those that it waited for."""
    return sum(os.times()[:4])


def row(
    name: str,
    ours: Callable[[], object],
    peer: Callable[[], object],
    target: float,
    runs: int = 5,
    warm_up: bool = True,
) -> Row:
    mine, theirs = in_turn(ours, peer, runs, warm_up)
    wall = f"{mine.wall * 1e3:,.1f} ms against {theirs.wall * 1e3:,.1f} ms"
    cpu = f"CPU {mine.cpu * 1e3:,.0f} ms against {theirs.cpu * 1e3:,.0f} ms"
    return Row(name, mine.wall / theirs.wall, target, f"{wall}; {cpu}")


def process(*command: object) -> Callable[[], object]:
    words = [str(word) for word in command]
    return lambda: subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def python(code: str, *arguments: object) -> Callable[[], object]:
    return process(sys.executable, "-c", code, *arguments)


RESNET = Path(sys.executable).with_name("resnet")


def bench_help(_: Path) -> Iterator[Row]:
    imports = python("import click")
    yield row("resnet --help : import click", process(RESNET, "--help"), imports, 1.3, 15)
    yield row("resnet classify --help : import click", process(RESNET, "classify", "--help"), imports, 1.5, 15)
    yield row("resnet --help : import torch", process(RESNET, "--help"), python("import torch"), 0.05, 3)


def bench_t7(folder: Path) -> Iterator[Row]:
    from resnet_tools import load_checkpoint, read_t7, save_model

    for name in ("resnet-50", "published-resnet-200"):
        path = t7_file(folder, name)
        label = f"{name} ({path.stat().st_size / 1e6:.0f} MB)"
        baseline = partial(np.fromfile, path, np.uint8)
        yield row(f"parse {label} : np.fromfile", partial(read_t7, path), baseline, 0.5, 9)
        yield row(f"parse and load the weights of {label} : np.fromfile", partial(load_weights, path), baseline, 1.3, 9)
        build = lambda path=path: load_checkpoint(path).model  # noqa: E731
        yield row("the same and build the net : np.fromfile", build, baseline, 1.3, 9)
        checkpoint = load_checkpoint(path)
        peer = partial(assigned, path, checkpoint.architecture, checkpoint.model.state_dict())
        yield row(f"{label} to checkpoint.model : torchfile, then a net with assigned weights", build, peer, 0.8, 9)
        save_model(checkpoint, folder / f"{name}.safetensors")
        peer = partial(assigned, folder / f"{name}.safetensors", checkpoint.architecture, None)
        yield row(f"{label} to checkpoint.model : the same from a .safetensors", build, peer, 2.0, 9)
        yield peak_memory(path, label)


def assigned(path: Path, architecture: Architecture, state: Mapping[str, Tensor] | None) -> object:
    """What torchfile and torch need at least, if the weights need not be looked for in what the file holds.

    Without `state` the weights are those of a .safetensors.
    """
    import safetensors.torch
    import torch
    import torchfile

    from resnet_tools.nets.resnet import ResNet

    content = torchfile.load(str(path)) if state is not None else safetensors.torch.load_file(path)
    state = content if state is None else state
    with torch.device("meta"):
        model = ResNet(architecture)
    model.load_state_dict(state, assign=True)
    return content, model


def load_weights(path: Path) -> object:
    from resnet_tools import read_t7
    from resnet_tools.torch7.modules import module_tree
    from resnet_tools.torch7.recognise import recognise_and_bind
    from resnet_tools.torch7.weights import state_dict

    architecture, bound = recognise_and_bind(module_tree(read_t7(path)))
    return state_dict(bound, architecture)


def peak_memory(path: Path, label: str) -> Row:
    from resnet_tools import load_checkpoint

    done = subprocess.run([sys.executable, "-c", PEAK, path], check=True, capture_output=True, text=True)
    weights = sum(tensor.nbytes for tensor in load_checkpoint(path).model.state_dict().values())
    peak = int(done.stdout)
    return Row(f"peak memory of loading {label} : weights", peak / weights, 1.2, f"{peak / 1e6:,.0f} MB")


def bench_transform(folder: Path) -> Iterator[Row]:
    import torch
    from torchvision import transforms

    from resnet_tools.data.image import load_image
    from resnet_tools.data.transforms import preprocess

    path = photos(folder, 1)[0]
    image = Image.open(path).convert("RGB")
    pixels = np.asarray(image)
    normalize = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    bicubic = transforms.Resize(256, transforms.InterpolationMode.BICUBIC)
    peer = transforms.Compose([bicubic, transforms.CenterCrop(224), transforms.ToTensor(), normalize])
    for threads in (1, torch.get_num_threads()):
        torch.set_num_threads(threads)
        name = f"evaluation transform, {threads} threads : torchvision v1 bicubic"
        yield row(name, lambda: preprocess(pixels), lambda: peer(image), 0.25, 200)
    pillow = lambda: np.asarray(Image.open(path).convert("RGB"))  # noqa: E731
    yield row("decode a JPEG : Pillow", lambda: load_image(path), pillow, 1.0, 200)


def bench_augment(folder: Path) -> Iterator[Row]:
    """The training transforms from the file, on one core, against torchvision's with Pillow and the same draws."""
    import torch
    from torchvision import transforms

    from resnet_tools.data.augment import LIGHT, ORIGINAL_IMAGENET, PCA_VALUES, PCA_VECTORS, augmented
    from resnet_tools.data.transforms import IMAGENET

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    paths = photos(folder, 60)
    components = torch.from_numpy(PCA_VECTORS * PCA_VALUES).float()
    bicubic = transforms.InterpolationMode.BICUBIC
    flip_and_convert = [transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    jitter = transforms.ColorJitter(0.4, 0.4, 0.4)
    lighting = transforms.Lambda(lambda image: image + (components @ (0.1 * torch.randn(3)))[:, None, None])
    normalize = transforms.Normalize(IMAGENET.mean, IMAGENET.std)
    for name, augmentation, steps in (
        ("original", ORIGINAL_IMAGENET, [jitter, *flip_and_convert, lighting, normalize]),
        ("light", LIGHT, [*flip_and_convert, normalize]),
    ):
        crop = transforms.RandomResizedCrop(224, (augmentation.min_area, 1), interpolation=bicubic)
        peer = transforms.Compose([crop, *steps])
        generator = np.random.default_rng(0)
        ours = partial(over, paths, lambda path, a=augmentation, g=generator: augmented(path, IMAGENET, a, g))
        theirs = partial(over, paths, lambda path, p=peer: p(Image.open(path).convert("RGB")))
        yield row(f"decode and augment 60 photos, {name} : torchvision v1 with Pillow", ours, theirs, 0.5, 9)
    torch.set_num_threads(threads)


def over(items: list[Path], function: Callable[[Path], object]) -> None:
    for item in items:
        function(item)


def bench_photographs(folder: Path) -> Iterator[Row]:
    """A view of a photograph as large as a camera's, as `finetune` makes it, and out of a copy, against all pixels."""
    from resnet_tools.data.photo_cache import open_cache
    from resnet_tools.data.transforms import IMAGENET
    from resnet_tools.training.transforms import training_transform

    large = np.asarray(Image.open(photos(folder, 1)[0]).resize((4000, 3000)), float)
    noisy = (large + np.random.default_rng(0).normal(0, 9, large.shape)).clip(0, 255).astype(np.uint8)
    path = folder / "large.jpg"
    Image.fromarray(noisy).save(path, quality=85)
    views = {
        name: partial(training_transform("light", "imagenet", IMAGENET, **options), str(path), np.random.default_rng(0))
        for name, options in (
            ("all", {}),
            ("as many pixels as it needs", {"reduced": True}),
            ("--cache", {"cache": open_cache(folder / "cache", 448, exif=False)}),
        )
    }
    for name, target in (("as many pixels as it needs", 0.65), ("--cache", 0.1)):
        label = f"view of a JPEG of 12 megapixels ({path.stat().st_size / 1e6:.1f} MB), {name} : all pixels"
        yield row(label, views[name], views["all"], target, 20)


def bench_classify(folder: Path) -> Iterator[Row]:
    model, state = t7_file(folder, "resnet-50"), state_file(folder)
    images = photos(folder, 100)
    ours = process(RESNET, "classify", model, images[0])
    yield row("classify 1 image : torchvision script", ours, python(PLAIN_TORCHVISION, state, images[0]), 0.15)
    minimum = python(MINIMUM, state)
    yield row("classify 1 image : import torch, load, one forward", ours, minimum, 0.5)
    graph = folder / "resnet-50.onnx"
    process(RESNET, "convert", model, graph, "--force")()
    peer = python(PLAIN_ONNXRUNTIME, graph, images[0])
    yield row("classify 1 image : onnxruntime script with a ready .onnx", ours, peer, 1.25)
    peer = python(PLAIN_ONNXRUNTIME, graph, *images)
    ours = process(RESNET, "classify", model, *images)
    yield row("classify 100 images, single : onnxruntime script", ours, peer, 1.05, 3, warm_up=False)
    for engine, precision, target in (("auto", "single", 0.55), ("auto", "bf16", 0.4), ("openvino", "bf16", 0.2)):
        ours = process(RESNET, "classify", model, *images, "--engine", engine, "--precision", precision)
        name = f"classify 100 images, {engine} {precision} : torchvision script"
        yield row(name, ours, python(PLAIN_TORCHVISION, state, *images), target, 3, warm_up=False)


def bench_forward(folder: Path) -> Iterator[Row]:
    """A batch of eight, without loading: each engine as it is run here against the engines as they come."""
    from resnet_tools.checkpoints.runnable import load_runnable, ready_classifier

    model, graph = t7_file(folder, "resnet-50"), folder / "resnet-50.onnx"
    process(RESNET, "convert", model, graph, "--force")()
    images = np.random.default_rng(0).standard_normal((8, 3, 224, 224)).astype(np.float32)
    peers = {"onnxruntime": bare_onnxruntime(graph), "openvino": bare_openvino(graph)}
    for engine in ("auto", "onnxruntime", "openvino"):
        net = ready_classifier(load_runnable(model), ["class"] * 1000, "cpu", engine=engine).net
        for name, bare in peers.items():
            target = 1.05 if engine in ("auto", name) else 1.2
            ours, peer = partial(net, images), partial(bare, images)
            yield row(f"forward of 8 images, {engine}, single : bare {name}", ours, peer, target, 9)


def bare_onnxruntime(graph: Path) -> Callable[[NDArray[np.float32]], object]:
    import onnxruntime

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})


def bare_openvino(graph: Path) -> Callable[[NDArray[np.float32]], object]:
    from resnet_tools.checkpoints.openvino_session import openvino_module

    net = openvino_module().Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: net([images])


def bench_timm(folder: Path) -> Iterator[Row]:
    photos(folder, 1000)
    ours = process(RESNET, "classify", t7_file(folder, "resnet-50"), folder / "photos")
    peer = python(PLAIN_TIMM, state_file(folder), folder / "photos")
    yield row("classify 1000 images : timm eager with its loader", ours, peer, 1 / 1.4, 2, warm_up=False)


def bench_train(_: Path) -> Iterator[Row]:
    """A step against the best of timm's: eager, and channels last."""
    for precision, target in (("single", 1.0), ("bf16", 1.0)):
        figures: dict[str, list[float]] = {}
        for _turn in range(3):
            figures.setdefault("ours", []).append(reported(STEPS + OUR_STEP, precision))
            for layout in ("contiguous", "channels_last"):
                figures.setdefault(layout, []).append(reported(STEPS + TIMM_STEP, precision, layout))
        medians = {name: statistics.median(found) for name, found in figures.items()}
        mine = medians.pop("ours")
        best = min(medians, key=lambda name: medians[name])
        detail = f"{mine * 1e3:,.0f} ms against {medians[best] * 1e3:,.0f} ms ({best})"
        yield Row(f"training step, ResNet-18, batch 16, {precision} : timm", mine / medians[best], target, detail)


def reported(code: str, *arguments: str) -> float:
    """The number that a process prints."""
    words = [sys.executable, "-c", code, *arguments]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def bench_features(folder: Path) -> Iterator[Row]:
    import torch

    from resnet_tools import load_checkpoint
    from resnet_tools.compute.inference import Loading, loaded_batches, prepare
    from resnet_tools.data.transforms import preprocess
    from resnet_tools.features.extract import Extraction
    from resnet_tools.features.layers import FeatureKind, features_of

    paths = [str(path) for path in photos(folder, 500)]
    kind = FeatureKind()
    images = torch.stack([preprocess(path) for path in paths[:32]])
    small = Path(__file__).parents[1] / "tests" / "data" / "models" / "variant_nn_buffers.t7"
    for name, file in (("resnet-50", t7_file(folder, "resnet-50")), ("a CIFAR resnet-8", small)):
        checkpoint = load_checkpoint(file)
        model = prepare(checkpoint.model, torch.device("cpu"))
        loading = Loading(checkpoint.preprocessing, 32)
        job = Extraction(model, kind, loading, {"model": name}, resume=False)
        ours = partial(job.run, paths, folder / "features.pt", None, lambda *_: None)
        if file == small:
            decode = partial(decode_all, paths, checkpoint.preprocessing)
            yield row(f"features of 500 images, {name} : decoding alone", ours, decode, 1 / 0.9, 5)
        else:
            bare = partial(in_batches, partial(features_of, model, images, kind), len(paths) / 32)
            yield row(f"features of 500 images, {name} : the bare model", ours, bare, 1 / 0.9, 1)
            share = waiting_share(partial(features_of, model, kind=kind), loaded_batches(paths, loading))
            yield Row(f"share of its time that {name} waits for images", share, 0.05, "of 1")
    command = ("extract-features", t7_file(folder, "resnet-50"), "--dir", folder / "photos", "--quiet", "--no-resume")
    ours = process(RESNET, *command, "--output", folder / "features.npy")
    peer = python(PLAIN_TIMM_FEATURES, state_file(folder), folder / "photos")
    yield row("features of 500 images, whole process : timm with DataLoader", ours, peer, 1 / 1.5, 1, warm_up=False)


def bench_evaluate(folder: Path) -> Iterator[Row]:
    import torch

    from resnet_tools import load_checkpoint
    from resnet_tools.compute.inference import Loading, logits_of, prepare
    from resnet_tools.data.samples import Samples
    from resnet_tools.data.transforms import preprocess, ten_crops
    from resnet_tools.evaluation.evaluate import evaluate

    paths = [str(path) for path in photos(folder, 304)]
    checkpoint = load_checkpoint(t7_file(folder, "resnet-50"))
    model = prepare(checkpoint.model, torch.device("cpu"))
    for ten_crop, count in ((False, 304), (True, 32)):
        cut = ten_crops if ten_crop else preprocess
        images = torch.stack([cut(path) for path in paths[:8]])
        samples = Samples(paths[:count], [0] * len(paths[:count]), [str(number) for number in range(1000)])
        loading = Loading(checkpoint.preprocessing, ten_crop=ten_crop)
        ours = partial(evaluate, model, samples, loading)
        bare = partial(in_batches, partial(logits_of, model, images), count // 8)
        crops = "ten crops" if ten_crop else "one crop"
        yield row(f"evaluate {count} images, {crops}, resnet-50 : the bare model", ours, bare, 1 / 0.9, 3)


def in_batches(step: Callable[[], object], count: float) -> None:
    for _ in range(round(count)):
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


def bench_memory(folder: Path) -> Iterator[Row]:
    """Peak memory of extraction from few and from many images; the same files over and over."""
    source = photos(folder, 20)
    peaks = []
    for count in (2_000, 20_000):
        listed = folder / "list.txt"
        count = count // 100 if quick.get() else count
        listed.write_text("".join(f"{source[number % len(source)]}\n" for number in range(count)))
        output = folder / f"features-{count}.npy"
        options = ("--from-file", listed, "--crop-size", "64", "--output", output)
        peaks.append(peak_of("-m", "resnet_tools", "extract-features", "demo", *options))
    detail = f"{peaks[1] / 1e6:,.0f} MB against {peaks[0] / 1e6:,.0f} MB"
    yield Row("peak memory of features of 20,000 images : of 2,000", peaks[1] / peaks[0], 1.1, detail)


def bench_convert(folder: Path) -> Iterator[Row]:
    """A file of the size of the published ones, all of it weights: with gradients half of it need not be read."""
    source = t7_file(folder, "published-resnet-200")
    copied, imported = process("cp", source, folder / "copy.t7"), python("import torch")
    for ending, time_target, memory_target in ((".safetensors", 2.0, 1.3), (".onnx", 2.5, 1.5)):
        output = folder / f"converted{ending}"
        label = f".t7 to {ending} ({source.stat().st_size / 1e6:.0f} MB)"
        ours = process(RESNET, "convert", source, output, "--force")
        yield row(f"convert {label} : cp and import torch", ours, lambda: (copied(), imported()), time_target)
        peaks = [peak_of("-m", "resnet_tools", "convert", source, output, "--force"), peak_of("-c", "import torch")]
        detail = f"{peaks[0] / 1e6:,.0f} MB, of which importing torch {peaks[1] / 1e6:,.0f} MB"
        ratio = (peaks[0] - peaks[1]) / source.stat().st_size
        yield Row(f"peak memory of converting {label}, beyond importing torch : the file", ratio, memory_target, detail)


def peak_of(*arguments: object) -> int:
    """Peak memory in bytes of a run of Python."""
    timed = ["/usr/bin/time", "-f", "%M", sys.executable, *map(str, arguments)]
    done = subprocess.run(timed, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    return int(done.stderr.split()[-1]) * 1024


def t7_file(folder: Path, name: str) -> Path:
    """A checkpoint of full width in the structure of the published files, without gradients."""
    from resnet_tools.nets.catalog import named_architecture
    from tests.support.lua_nets import lua_net
    from tests.support.t7_writer import write_flattened

    path = folder / f"{name}.t7"
    if not path.exists():
        write_flattened(path, lua_net(named_architecture(name)), gradients=False)
    return path


def state_file(folder: Path) -> Path:
    import torch

    from resnet_tools import load_checkpoint

    path = folder / "resnet-50.pth"
    if not path.exists():
        torch.save(load_checkpoint(t7_file(folder, "resnet-50")).model.state_dict(), path)
    return path


def photos(folder: Path, count: int) -> list[Path]:
    """JPEGs of 500 x 375 pixels with detail at every scale, as photographs have."""
    random = np.random.default_rng(0)
    (folder / "photos").mkdir(exist_ok=True)
    count = min(count, QUICK_PHOTOS) if quick.get() else count
    paths = [folder / "photos" / f"{number:04}.jpg" for number in range(count)]
    for path in paths:
        if not path.exists():
            total = np.zeros((375, 500, 3))
            for size in (4, 16, 64, 256):
                noise = Image.fromarray(random.integers(0, 256, (size, size, 3), dtype=np.uint8))
                total += np.asarray(noise.resize((500, 375), Image.Resampling.BICUBIC), float) * (4 / size) ** 0.5
            Image.fromarray((total / total.max() * 255).astype(np.uint8)).save(path, quality=90)
    return paths


BENCHMARKS = {
    "help": bench_help,
    "t7": bench_t7,
    "transform": bench_transform,
    "augment": bench_augment,
    "photographs": bench_photographs,
    "classify": bench_classify,
    "forward": bench_forward,
    "timm": bench_timm,
    "train": bench_train,
    "features": bench_features,
    "evaluate": bench_evaluate,
    "memory": bench_memory,
    "convert": bench_convert,
}


@click.command(help="Run the benchmarks NAMES (all by default) and print a table in Markdown.")
@click.argument("names", nargs=-1, type=click.Choice(list(BENCHMARKS)))
@click.option("--quick", "only_once", is_flag=True, help="Run each row once, on few images: only to see that it runs.")
def main(names: tuple[str, ...], only_once: bool) -> None:
    quick.set(only_once)
    click.echo("| benchmark | ratio | target | |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in names or BENCHMARKS:
            for found in BENCHMARKS[name](Path(folder)):
                mark = "" if found.ratio <= found.target else " **missed**"
                click.echo(f"| {found.name} | {found.ratio:.3f} | {found.target:.2f}{mark} | {found.detail} |")


if __name__ == "__main__":
    main()
