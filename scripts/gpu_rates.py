"""Images a second: our training step beside its peers, training from JPEGs, features and classes beside the bare net.

Every function yields rows of plain values; all of one run are measured in the same process, in turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scripts import gpu_adapter as ours
from scripts.gpu_peers import peers_here

Row = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """How much is measured; `TINY` only tries the code."""

    net: str = "resnet-50"
    side_px: int = 224
    batch_size: int = 256
    warm_up: int = 5
    steps: int = 20
    jpegs: int = 10_000
    distinct: int = 200


FULL = Sizes()
TINY = Sizes("resnet-18", 32, 4, 0, 1, 4, 2)


@dataclass(frozen=True)
class Bench:
    device: torch.device
    sizes: Sizes

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, step: Callable[[], object]) -> float:
        """Of one call, after a warm-up."""
        for _ in range(self.sizes.warm_up):
            step()
        self.synchronize()
        start = time.perf_counter()
        for _ in range(self.sizes.steps):
            step()
        self.synchronize()
        return (time.perf_counter() - start) / self.sizes.steps

    def peak_gb(self) -> float | None:
        """Of the memory of the GPU since the last call."""
        if self.device.type != "cuda":
            return None
        peak = torch.cuda.max_memory_allocated() / 1e9
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return peak

    def batch(self) -> tuple[Tensor, Tensor]:
        size, side = self.sizes.batch_size, self.sizes.side_px
        images = torch.randn(size, 3, side, side, device=self.device)
        return images, torch.arange(size, device=self.device) % 1000

    def row(self, name: str, seconds: float, images: int, **more: Any) -> Row:
        return {"name": name, "images_per_second": images / seconds, "milliseconds": 1e3 * seconds, **more}


def training_rates(bench: Bench) -> Iterator[Row]:
    """Synthetic data that lie on the device: the step alone."""
    images, targets = bench.batch()
    made: dict[str, Callable[[], Callable[[Tensor, Tensor], object]]] = {
        "our step, eager": lambda: our_training(bench),
        "our step, compiled": lambda: our_training(bench, compiled=True),
    }
    made |= {name: partial(make, peer_net(bench), bench.device) for name, make in peers_here().items()}
    for name, make in made.items():
        bench.peak_gb()
        step = make()
        seconds = bench.seconds(partial(step, images, targets))
        yield bench.row(name, seconds, len(images), peak_gb=bench.peak_gb())


def jpeg_training_rate(bench: Bench, paths: list[str]) -> Iterator[Row]:
    """An epoch of JPEGs, decoded and augmented, with the share of the time that the step waits for a batch."""
    step, workers = our_training(bench), ours.workers_here()
    for images, targets in [next(iter(ours.training_batches(paths[: bench.sizes.batch_size], 4, 1, bench.device)))]:
        step(images, targets)
    waited = Waits(ours.training_batches(paths, bench.sizes.batch_size, workers, bench.device))
    start = time.perf_counter()
    for images, targets in waited:
        step(images, targets)
    bench.synchronize()
    seconds = time.perf_counter() - start
    row = bench.row(f"our training from JPEGs, {workers} workers", seconds, len(paths), peak_gb=bench.peak_gb())
    yield row | {"share_waiting": waited.seconds / seconds}


def inference_rates(bench: Bench, paths: list[str], folder: Path) -> Iterator[Row]:
    """Features and classes of all files end to end, and the bare net on a batch that lies on the device."""
    workers, size = ours.workers_here(), bench.sizes.batch_size
    for precision in ("single", "tf32", "half", "bf16") if bench.device.type == "cuda" else ("single",):
        net = ours.inference_net(ours.new_net(bench.sizes.net), bench.device, precision)
        images = torch.randn(size, 3, 224, 224)
        for what, bare in (("features", ours.bare_features), ("classes", ours.bare_logits)):
            seconds = bench.seconds(partial(bare, net, images.to(bench.device)))
            yield bench.row(f"bare net, {what}, {precision}", seconds, size, peak_gb=bench.peak_gb())
        if precision in ("tf32", "half"):
            continue
        runs = {
            "extract-features": partial(ours.extract_all, paths, net, size, workers, folder / "features.npy"),
            "classify": partial(ours.classify_all, paths, net, size, workers),
        }
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            yield bench.row(f"{name} of JPEGs, {precision}", time.perf_counter() - start, len(paths))
    if find_spec("timm") and find_spec("torchvision"):
        yield timm_features(bench, folder / "photos", len(paths), workers)


def graph_rates(bench: Bench) -> Iterator[Row]:
    """Small and ordinary batches of the bare net in half precision, called as usual and as a CUDA graph.

    What a graph saves is the time to launch kernels; the rows show whether that is worth fixed shapes.
    """
    if bench.device.type != "cuda":
        return
    net = ours.inference_net(ours.new_net(bench.sizes.net), bench.device, "half")
    for size in (1, 8, 64):
        images = torch.randn(size, 3, 224, 224, device=bench.device, dtype=torch.float16)
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            calls = {"eager": partial(net, images), "CUDA graph": _graph_of(net, images).replay}
            for name, call in calls.items():
                yield bench.row(f"bare net, batch {size}, half, {name}", bench.seconds(call), size)


def _graph_of(net: nn.Module, images: Tensor) -> torch.cuda.CUDAGraph:
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # cuDNN chooses its algorithms before the capture
        for _ in range(3):
            net(images)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        net(images)
    return graph


def timm_features(bench: Bench, folder: Path, count: int, workers: int) -> Row:
    """timm's own loader and net, bfloat16, as its inference.py has them."""
    import timm
    from timm.data import ImageDataset, create_loader

    name = bench.sizes.net.replace("-", "")
    net = timm.create_model(name, num_classes=0).eval().to(bench.device, memory_format=torch.channels_last)
    start = time.perf_counter()
    loader = create_loader(
        ImageDataset(str(folder)),
        (3, 224, 224),
        bench.sizes.batch_size,
        use_prefetcher=bench.device.type == "cuda",
        num_workers=0 if bench.sizes == TINY else workers,
        device=bench.device,
    )
    with torch.inference_mode(), torch.autocast(bench.device.type, torch.bfloat16):
        for images, _ in loader:
            net(images.to(bench.device, memory_format=torch.channels_last)).float().cpu()
    return bench.row("features of JPEGs by timm and its loader, bf16", time.perf_counter() - start, count)


class Waits:
    """The same items, with the seconds that went by until each was there."""

    def __init__(self, items: Iterable[Any]) -> None:
        self.items, self.seconds = items, 0.0

    def __iter__(self) -> Iterator[Any]:
        iterator = iter(self.items)
        while True:
            start = time.perf_counter()
            item = next(iterator, None)
            self.seconds += time.perf_counter() - start
            if item is None:
                return
            yield item


def our_training(bench: Bench, *, compiled: bool = False) -> Callable[[Tensor, Tensor], object]:
    precision = None if bench.device.type == "cuda" else "single"
    return ours.Training(ours.new_net(bench.sizes.net), bench.device, precision, name="modern", compiled=compiled)


def peer_net(bench: Bench) -> nn.Module:
    """torchvision's net, or ours where torchvision is not installed."""
    if not find_spec("torchvision"):
        return ours.new_net(bench.sizes.net)
    import torchvision

    net: nn.Module = getattr(torchvision.models, bench.sizes.net.replace("-", ""))()
    return net


def jpegs(folder: Path, sizes: Sizes) -> list[str]:
    """`sizes.jpegs` files, of which `sizes.distinct` differ: the others are names of the same ones."""
    import os

    from scripts.benchmarks import photos

    made = photos(folder, sizes.distinct)
    paths = [*made, *(folder / "photos" / f"again-{number}.jpg" for number in range(sizes.jpegs - len(made)))]
    for number, path in enumerate(paths[len(made) :]):
        os.link(made[number % len(made)], path)
    return list(map(str, paths))
