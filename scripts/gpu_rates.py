"""Images a second: our training step beside its peers, training from JPEGs, features and classes beside the bare net.

Every function measures one thing and yields rows of plain values; scripts.gpu_measure runs each in its own process.
"""

from __future__ import annotations

import os
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
from scripts.gpu_peers import PEERS

Row = dict[str, Any]
BATCHES = ((30e9, 256), (14e9, 128), (0, 64))  # bytes of the GPU's memory, and the batch of ResNet-50 that they hold


@dataclass(frozen=True)
class Sizes:
    """How much is measured; `TINY` only tries the code. inference_batch: what the commands take by default."""

    net: str = "resnet-50"
    side_px: int = 224
    batch_size: int = 256
    inference_batch: int = 64
    warm_up: int = 5
    steps: int = 20
    jpegs: int = 10_000
    distinct: int = 200


TINY = Sizes("resnet-18", 32, 4, 2, 0, 1, 4, 2)


def sizes_for(device: torch.device) -> Sizes:
    memory = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0
    return Sizes(batch_size=next(size for least, size in BATCHES if memory >= least))


@dataclass(frozen=True)
class Bench:
    """folder: where the JPEGs are, and what is written for the moment."""

    device: torch.device
    sizes: Sizes
    folder: Path

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

    @property
    def jpegs(self) -> list[str]:
        return sorted(map(str, (self.folder / "photos").iterdir()))

    def row(self, name: str, seconds: float, images: int, **more: Any) -> Row:
        return {"name": name, "images_per_second": images / seconds, "milliseconds": 1e3 * seconds, **more}


class Pace:
    """Counts images as they are done. `steady`: images a second in the second half, when all that is started once and
    all that was loaded ahead is behind.
    """

    def __init__(self, bench: Bench, images: int) -> None:
        self.bench, self.images = bench, images
        self.start, self.done = time.perf_counter(), 0
        self.half: tuple[float, int] | None = None

    def add(self, images: int) -> None:
        self.done += images
        if self.half is None and 2 * self.done >= self.images:
            self.bench.synchronize()
            self.half = time.perf_counter(), self.done

    def row(self, name: str, **more: Any) -> Row:
        self.bench.synchronize()
        end = time.perf_counter()
        since, before = self.half or (self.start, 0)
        steady = (self.done - before) / (end - since) if self.done > before else self.done / (end - self.start)
        return self.bench.row(name, end - self.start, self.done, steady=steady, **more)


def our_rate(bench: Bench, name: str, **changes: Any) -> Iterator[Row]:
    yield from step_rate(bench, name, our_training(bench, **changes))


def peer_rate(bench: Bench, name: str) -> Iterator[Row]:
    make, needs = PEERS[name]
    if needs is None or find_spec(needs):
        yield from step_rate(bench, name, make(peer_net(bench), bench.device))


def step_rate(bench: Bench, name: str, step: Callable[[Tensor, Tensor], object]) -> Iterator[Row]:
    """Synthetic data that lie on the device: the step alone."""
    images, targets = bench.batch()
    seconds = bench.seconds(partial(step, images, targets))
    yield bench.row(name, seconds, len(images), peak_gb=bench.peak_gb())


def jpeg_training_rate(bench: Bench, name: str) -> Iterator[Row]:
    """Two epochs of JPEGs, decoded and augmented, with the share of the time that the step waits for a batch."""
    step, workers, paths = our_training(bench), ours.workers_here(), 2 * bench.jpegs
    images, targets = bench.batch()
    for _ in range(bench.sizes.warm_up):  # cuDNN tries its algorithms out for this size
        step(images, targets)
    bench.synchronize()
    pace = Pace(bench, len(paths))
    waited = Waits(ours.training_batches(paths, bench.sizes.batch_size, workers, bench.device), pace)
    for images, targets in waited:
        step(images, targets)
        pace.add(len(images))
    row = pace.row(name, workers=workers, peak_gb=bench.peak_gb())
    seconds = row["milliseconds"] / 1e3 - (pace.half[0] - pace.start if pace.half else 0)
    yield row | {"share_waiting": waited.seconds / seconds}


def inference_rates(bench: Bench, _: str, *, precision: str) -> Iterator[Row]:
    """Features and classes of all files end to end, and the bare net on a batch that lies on the device."""
    workers, size, paths = ours.workers_here(), bench.sizes.inference_batch, bench.jpegs
    net = ours.inference_net(ours.new_net(bench.sizes.net), bench.device, precision)
    images = torch.randn(size, 3, 224, 224, device=bench.device)
    for what, bare in (("features", ours.bare_features), ("classes", ours.bare_logits)):
        seconds = bench.seconds(partial(bare, net, images))
        yield bench.row(f"bare net, {what}, {precision}", seconds, size, peak_gb=bench.peak_gb())
    if precision in ("tf32", "half"):
        return
    pace = Pace(bench, len(paths))
    output = bench.folder / f"features-{precision}.npy"
    ours.extract_all(paths, net, size, workers, output, lambda count, _: pace.add(count))
    yield pace.row(f"extract-features of JPEGs, {precision}")
    pace = Pace(bench, len(paths))
    for _ in ours.classify_all(paths, net, size, workers):
        pace.add(1)
    yield pace.row(f"classify of JPEGs, {precision}")


def graph_rates(bench: Bench, _: str) -> Iterator[Row]:
    """Small and ordinary batches of the bare net in half precision, called as usual and as a CUDA graph.

    What a graph saves is the time to launch kernels; the rows show whether that is worth fixed shapes.
    """
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


def timm_features(bench: Bench, name: str) -> Iterator[Row]:
    """timm's own loader and net, bfloat16, as its inference.py has them."""
    if not (find_spec("timm") and find_spec("torchvision")):
        return
    import timm
    from timm.data import ImageDataset, create_loader

    net_name = bench.sizes.net.replace("-", "")
    net = timm.create_model(net_name, num_classes=0).eval().to(bench.device, memory_format=torch.channels_last)
    pace = Pace(bench, len(bench.jpegs))
    loader = create_loader(
        ImageDataset(str(bench.folder / "photos")),
        (3, 224, 224),
        bench.sizes.inference_batch,
        use_prefetcher=bench.device.type == "cuda",
        num_workers=0 if bench.sizes == TINY else ours.workers_here(),
        device=bench.device,
    )
    with torch.inference_mode(), torch.autocast(bench.device.type, torch.bfloat16):
        for images, _ in loader:
            net(images.to(bench.device, memory_format=torch.channels_last)).float().cpu()
            pace.add(len(images))
    yield pace.row(name)


class Waits:
    """The same items, with the seconds that went by until each was there, from half of the `pace` on."""

    def __init__(self, items: Iterable[Any], pace: Pace) -> None:
        self.items, self.pace, self.seconds = items, pace, 0.0

    def __iter__(self) -> Iterator[Any]:
        iterator = iter(self.items)
        while True:
            start = time.perf_counter()
            item = next(iterator, None)
            self.seconds += time.perf_counter() - start if self.pace.half else 0.0
            if item is None:
                return
            yield item


def our_training(bench: Bench, **changes: Any) -> Callable[[Tensor, Tensor], object]:
    """The recipe `modern`, by default without what the peers have not: mixing and the mean of the weights."""
    precision = None if bench.device.type == "cuda" else "single"
    settings = {"name": "modern", "mixup": 0.0, "cutmix": 0.0, "ema": 0.0} | changes
    return ours.Training(ours.new_net(bench.sizes.net), bench.device, precision, **settings)


def peer_net(bench: Bench) -> nn.Module:
    """torchvision's net, or ours where torchvision is not installed."""
    if not find_spec("torchvision"):
        return ours.new_net(bench.sizes.net)
    import torchvision

    net: nn.Module = getattr(torchvision.models, bench.sizes.net.replace("-", ""))()
    return net


def make_jpegs(bench: Bench, _: str) -> Iterator[Row]:
    """`sizes.jpegs` files, of which `sizes.distinct` differ: the others are names of the same ones."""
    from scripts.benchmarks import photos

    made = photos(bench.folder, bench.sizes.distinct)
    for number in range(bench.sizes.jpegs - len(made)):
        os.link(made[number % len(made)], bench.folder / "photos" / f"again-{number}.jpg")
    yield from ()
