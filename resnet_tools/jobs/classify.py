"""Images in any form and a net -> the most probable labels of each image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import torch

from resnet_tools.compute.device import kept_settings
from resnet_tools.compute.predictions import Prediction
from resnet_tools.errors import ImageError
from resnet_tools.jobs.images import given_images
from resnet_tools.jobs.nets import ClassNames, GivenNet, given_classifier
from resnet_tools.jobs.running import Progress, Running, counting, require_whole

SHOWN = 10  # images that the text of a result shows


@dataclass(frozen=True)
class ImageLabels:
    """The most probable labels of one image, the best first.

    `name`: its path, or `image K` by its place in what was given. `labels`, `indices` (positions in the net's output,
    from 0) and `probabilities` (0 to 1) belong together. `error`: why there are none, else None.
    """

    name: str
    labels: list[str]
    indices: list[int]
    probabilities: list[float]
    error: str | None = None

    @property
    def label(self) -> str | None:
        """The most probable one; None if the image could not be read."""
        return self.labels[0] if self.labels else None

    @property
    def probability(self) -> float | None:
        """That of `label`."""
        return self.probabilities[0] if self.probabilities else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `resnet classify --json` writes them."""
        if self.error is not None:
            return {"path": self.name, "error": self.error}
        found = zip(self.indices, self.labels, self.probabilities, strict=True)
        return {"path": self.name, "classes": [{"index": i, "label": n, "probability": p} for i, n, p in found]}


@dataclass(frozen=True, repr=False)
class Predictions(Sequence[ImageLabels]):
    """What `classify` gives: a sequence of one `ImageLabels` for each image, in the order given.

    `images`: the same as a list. `class_names`: of all K outputs of the net.
    """

    images: list[ImageLabels]
    class_names: list[str]

    def __len__(self) -> int:
        return len(self.images)

    @overload
    def __getitem__(self, k: int) -> ImageLabels: ...
    @overload
    def __getitem__(self, k: slice) -> list[ImageLabels]: ...
    def __getitem__(self, k: int | slice) -> ImageLabels | list[ImageLabels]:
        return self.images[k]

    def __iter__(self) -> Iterator[ImageLabels]:
        return iter(self.images)

    def __repr__(self) -> str:
        lines = [_line(image) for image in self.images[:SHOWN]]
        more = len(self.images) - SHOWN
        return "\n".join([*lines, f"... and {more} more"] if more > 0 else lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: {"images": [...], "class_names": [...]}."""
        return {"images": [image.to_dict() for image in self.images], "class_names": list(self.class_names)}

    def rows(self) -> list[dict[str, Any]]:
        """One row for each label of each image, for `pandas.DataFrame`: name, rank (from 1), index, label, probability,
        error. An image that could not be read has one row without a label."""
        return [row for image in self.images for row in _rows(image)]


def _line(image: ImageLabels) -> str:
    if image.error is not None:
        return f"{image.name!r}: {image.error}"
    found = zip(image.labels, image.probabilities, strict=True)
    return f"{image.name!r}: {', '.join(f'{label} {100 * probability:.1f} %' for label, probability in found)}"


def _rows(image: ImageLabels) -> list[dict[str, Any]]:
    if image.error is not None:
        nothing: dict[str, Any] = dict.fromkeys(("rank", "index", "label", "probability"))
        return [{"name": image.name, **nothing, "error": image.error}]
    found = zip(image.indices, image.labels, image.probabilities, strict=True)
    return [
        {"name": image.name, "rank": k, "index": index, "label": label, "probability": probability, "error": None}
        for k, (index, label, probability) in enumerate(found, 1)
    ]


def classify(
    images: Any,
    checkpoint: GivenNet = "demo",
    *,
    top_k: int = 5,
    class_names: ClassNames | None = None,
    weights: str | None = None,
    batch_size: int | None = None,
    device: str | int | torch.device = "auto",
    engine: str = "auto",
    precision: str = "single",
    ten_crop: bool = False,
    resize_px: int | None = None,
    crop_px: int | None = None,
    exif_orientation: bool | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Predictions:
    """The most probable labels of images, as `resnet classify` gives them.

    images: one image or several. One is a path, the bytes of a file, an open file, a PIL image, an array (H, W),
    (H, W, 3) or (H, W, 4) of uint8, uint16 or floats from 0 to 1, or a tensor (3, H, W) of these. Several are a folder,
    a pattern such as `photos/*.jpg`, an array (N, H, W, 3), a tensor (N, 3, H, W), or any iterable of images.
    checkpoint: the path of a net in any format, `demo`, a loaded `Checkpoint` or net, which stay as they are.
    top_k: how many labels for each image. class_names: names of the outputs, or a file of them, in place of the net's.
    weights: which net of a file that holds several. batch_size: images at once (by default 8, or 64 on a GPU).
    device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`. engine: `torch`, `onnxruntime`, which is quicker on a CPU and is
    taken by itself for the net in a file, if it is installed, or `openvino`, which computes in bf16 too. precision:
    `single`, `tf32`, `bf16` or `half`.
    ten_crop: the mean of ten crops. resize_px, crop_px: the shorter side and the crop, in place of the net's own sizes.
    exif_orientation: turn images upright as their EXIF data says, by default as the net was trained.
    workers: threads, or above 4 processes, that load images. progress: called with the images done and their number.

    Returns: one entry for each image in the order given; in `error` it says why one of several could not be read.
    Raises: ImageError if a single image cannot be read; CheckpointError and other ResnetToolsErrors for a net that
    cannot be loaded, a value that does not exist, or too little memory.

    >>> from resnet_tools import classify
    >>> found = classify("resnet_tools/assets/images/bag.png")
    >>> found[0].label, round(found[0].probability, 2)
    ('bag', 1.0)
    """
    require_whole("top_k", top_k, 1)
    running = Running(batch_size, device, engine, precision, resize_px, crop_px, ten_crop, exif_orientation, workers)
    with kept_settings():
        classifier = given_classifier(checkpoint, running, weights=weights, class_names=class_names)
        loading = running.loading(classifier.preprocessing)
        given = given_images(images, exif=loading.preprocessing.exif_orientation)
        found, count = [], counting(progress, len(given.names))
        for prediction in classifier.classify(given.sources, loading=loading, top_k=top_k):
            if given.single and isinstance(prediction, tuple):
                raise prediction[1]
            found.append(_labelled(prediction, classifier.class_names))
            count(1, [])
    return Predictions(found, classifier.class_names)


def _labelled(prediction: Prediction | tuple[str, ImageError], names: Sequence[str]) -> ImageLabels:
    if isinstance(prediction, tuple):
        name = str(prediction[0])
        return ImageLabels(name, [], [], [], str(prediction[1]).removeprefix(f"{name}: "))
    labels = [names[index] for index in prediction.indices]
    return ImageLabels(str(prediction.path), labels, prediction.indices, prediction.probabilities)
