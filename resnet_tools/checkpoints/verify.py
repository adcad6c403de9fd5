"""Two nets on the same images -> how far their logits are apart.

A net is anything that maps (N, C, H, W) float32 to (N, K) logits: that of a checkpoint of any format, or an .onnx file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from resnet_tools.checkpoints.checkpoint import load_checkpoint
from resnet_tools.checkpoints.onnx_files import is_onnx, load_onnx
from resnet_tools.compute.inference import logits_of
from resnet_tools.data.transforms import Preprocessing, preprocess
from resnet_tools.errors import ExportError
from resnet_tools.nets.resnet import ResNet

Net = Callable[[Tensor], Tensor]

TOLERANCE = 1e-4  # of the largest logit
ONNX_TOLERANCE = 1e-3  # onnxruntime adds in another order: 1e-6 is usual, 1e-4 in 152 layers of random weights
SMALL_PX = 48  # a side of the fixed images; a net of 200 layers takes half a second for all of them
SHOWN = 5  # names of images in a message
PHOTOS = Path(__file__).parents[1] / "assets" / "images"


@dataclass(frozen=True)
class Comparison:
    """The largest absolute difference between two nets' logits, on how many images, and the largest logit.

    `not_finite` names the net and the images for which it gave no finite numbers; those have no best class.
    """

    difference: float
    largest_logit: float
    images: int
    same_class: int
    not_finite: str = ""

    @property
    def relative(self) -> float:
        return self.difference / self.largest_logit if self.largest_logit else math.inf if self.difference else 0.0

    def within(self, tolerance: float) -> bool:
        """False also for logits that are not finite."""
        return not self.not_finite and self.relative <= tolerance

    def __str__(self) -> str:
        return (
            f"largest difference {self.difference:.3g}, which is {self.relative:.3g} of the largest logit "
            f"{self.largest_logit:.4g}; the same best class for {self.same_class} of {self.images} images"
            f"{'; ' * bool(self.not_finite)}{self.not_finite}"
        )


def net_in(path: Path, weights: str | None = None) -> tuple[Net, Preprocessing]:
    """The net in a file of any format, and how its images are prepared. Raises: ResnetToolsError."""
    if is_onnx(path):
        graph = load_onnx(path)
        return graph.model, graph.preprocessing
    checkpoint = load_checkpoint(path, weights=weights)
    return net_of(checkpoint.model), checkpoint.preprocessing


def net_of(model: ResNet) -> Net:
    return partial(logits_of, model)


@torch.inference_mode()
def run_plain(model: nn.Module, images: Tensor) -> Tensor:
    """The logits of any module, also of another library."""
    logits: Tensor = model(images)
    return logits


def fixed_images(preprocessing: Preprocessing) -> list[Tensor]:
    """Three random images of two shapes, and the photos of the package, prepared for the net but small."""
    side_px = min(SMALL_PX, preprocessing.crop_px)
    resize_px = round(preprocessing.resize_px * side_px / preprocessing.crop_px)
    small = replace(preprocessing, resize_px=resize_px, crop_px=side_px)
    random = torch.Generator().manual_seed(0)
    channels = preprocessing.channels
    square = torch.randn(2, channels, side_px, side_px, generator=random)
    wide = torch.randn(1, channels, side_px, side_px + side_px // 2, generator=random)
    return [torch.cat([square, photos(sorted(PHOTOS.glob("*.png")), small)]), wide]


def photos(paths: Sequence[str | Path], preprocessing: Preprocessing) -> Tensor:
    """(N, C, crop, crop). Raises: ImageError for the first that cannot be read."""
    return torch.stack([preprocess(path, preprocessing) for path in paths])


def logits_on(net: Net, batches: Sequence[Tensor]) -> Tensor:
    """(N, K) for the N images of all batches, which are small: on one thread.

    On several, the threads of a deep net would wait for each other at each layer, and on a busy machine for long.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return torch.cat([net(batch) for batch in batches])
    finally:
        torch.set_num_threads(threads)


def compare(
    expected: Tensor,
    found: Tensor,
    nets: tuple[str, str] = ("the first net", "the second net"),
    images: Sequence[str] = (),
) -> Comparison:
    """How far two nets' outputs (N, K) are apart; `nets` and `images` are what messages call them.

    Raises: ExportError if the nets differ in their number of classes.
    """
    if expected.shape != found.shape:
        raise ExportError(f"the nets have {expected.shape[1]} and {found.shape[1]} classes; they cannot be compared")
    finite = expected.isfinite().all(1) & found.isfinite().all(1)
    wrong = [_not_finite(name, logits, images) for name, logits in zip(nets, (expected, found), strict=True)]
    return Comparison(
        difference=float((expected.double() - found.double()).abs().max()),
        largest_logit=float(expected.double().abs().max()),
        images=len(expected),
        same_class=int(((expected.argmax(1) == found.argmax(1)) & finite).sum()),
        not_finite="; ".join(filter(None, wrong)),
    )


def _not_finite(net: str, logits: Tensor, images: Sequence[str]) -> str:
    """Which images a net gave NaN or infinite numbers for; empty if none."""
    rows = [row for row, is_finite in enumerate(logits.isfinite().all(1).tolist()) if not is_finite]
    if not rows:
        return ""
    named = ", ".join(images[row] for row in rows[:SHOWN]) + ", ..." * (len(rows) > SHOWN) if images else ""
    return f"{net} gives NaN or infinite numbers for {len(rows)} of {len(logits)} images{': ' * bool(named)}{named}"


def tolerance_for(*paths: Path) -> float:
    return ONNX_TOLERANCE if any(map(is_onnx, paths)) else TOLERANCE


def compare_files(first: Path, second: Path, images: Sequence[str] = (), *, weights: str | None = None) -> Comparison:
    """The nets of two files on these images, as the first prepares them, or on the fixed ones.

    weights: which net of the first file, as `load_checkpoint` takes it.

    Raises: ResnetToolsError if a net or an image cannot be read, or the nets differ in their number of classes.
    """
    net, preprocessing = net_in(first, weights)
    batches = fixed_images(preprocessing) if not images else None
    expected = _logits(net, preprocessing, batches, images)
    del net  # one net at a time is in memory
    found = _logits(net_in(second)[0], preprocessing, batches, images)
    return compare(expected, found, (str(first), str(second)), images)


def _logits(net: Net, preprocessing: Preprocessing, batches: Sequence[Tensor] | None, images: Sequence[str]) -> Tensor:
    if batches is not None:
        return logits_on(net, batches)
    return torch.cat([net(photos([path], preprocessing)) for path in images])
