"""Image -> normalised (C, crop, crop) float32 tensor, exactly as Torch7 made it; C is 3, or 1 for a net of gray images.

In: the path of an image, or its pixels as an (H, W, 3) array. Out: what the original's Scale, ColorNormalize and
CenterCrop (or TenCrop) give, within a few 1e-6: see `resample` for the scaling. Normalisation is part of its last
sum, and only the pixels of the crop are computed, so a 1 x 1,000,000 image costs no more than its file.

Gray is that of Torch7's image.rgb2y, 0.299 R + 0.587 G + 0.114 B, of which image.load(path, 1) makes gray images. It is
taken after the scaling: as scaling is a sum of pixels and nothing is clamped, that gives the same numbers.

Source: fb.resnet.torch 985e569, datasets/transforms.lua.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from resnet_tools.data.given_images import given_pixels
from resnet_tools.data.resample import merged, resample, resample_array
from resnet_tools.data.samples import LazyImage
from resnet_tools.data.taps import Span

if TYPE_CHECKING:
    from torch import Tensor

Pixels = TypeVar("Pixels")  # a tensor or an array
MAX_SIDE_PX = 8192
OPTIONAL_KEY = "exif_orientation"  # false where a file does not have it
GRAY = (0.299, 0.587, 0.114)  # of red, green and blue: image.rgb2y


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a net's input when it is classified: Scale(resize_px), CenterCrop(crop_px), normalise.

    `mean` and `std` are per channel, for pixels between 0 (black) and `pixel_max` (white): of red, green and blue, or
    one number each for a net of gray images.
    `exif_orientation`: files are first turned upright as their EXIF data says, which the original does not do.
    Raises ValueError for values with which no image could be prepared.

    It is a callable that takes an image in any form to the net's input, so torchvision's data sets and
    `torch.utils.data.DataLoader` take it as `transform`.

    >>> from resnet_tools import load_checkpoint
    >>> transform = load_checkpoint("demo").preprocessing
    >>> transform.resize_px, transform("resnet_tools/assets/images/bag.png").shape
    (256, torch.Size([3, 224, 224]))
    """

    resize_px: int
    crop_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixel_max: float = 1.0
    exif_orientation: bool = False

    def __post_init__(self) -> None:
        for name in ("resize_px", "crop_px"):
            px = getattr(self, name)
            if type(px) is not int or not 1 <= px <= MAX_SIDE_PX:
                raise ValueError(f"{name} is {px!r}; expected a whole number from 1 to {MAX_SIDE_PX}")
        if self.crop_px > self.resize_px:
            raise ValueError(
                f"a crop of {self.crop_px} x {self.crop_px} does not fit into an image "
                f"scaled to {self.resize_px} pixels on its shorter side; make the crop at most as large"
            )
        for name in ("mean", "std"):
            values = getattr(self, name)
            if type(values) is not tuple or len(values) not in (1, 3) or not all(map(_is_finite_number, values)):
                raise ValueError(f"{name} is {values!r}; expected three finite numbers, or one for gray images")
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} and std {len(self.std)} numbers; expected as many of both")
        if min(self.std) <= 0:
            raise ValueError(f"std is {self.std!r}; expected numbers above 0")
        if not _is_finite_number(self.pixel_max) or self.pixel_max <= 0:
            raise ValueError(f"pixel_max is {self.pixel_max!r}; expected a number above 0")
        if type(self.exif_orientation) is not bool:
            raise ValueError(f"exif_orientation is {self.exif_orientation!r}; expected true or false")

    def __call__(self, image: Any) -> Tensor:
        """The net's input for one image, as `preprocess`: what torchvision's data sets take as `transform`."""
        return preprocess(image, self)

    @property
    def channels(self) -> int:
        """Of the net's input: 3, or 1 for gray."""
        return len(self.mean)

    def for_channels(self, channels: int) -> Preprocessing:
        """The same for a net of so many input channels: gray has the gray of the three means, and of the deviations."""
        if channels == self.channels:
            return self
        if channels == len(GRAY):
            return replace(self, mean=self.mean * channels, std=self.std * channels)
        gray = {name: sum(w * x for w, x in zip(GRAY, getattr(self, name), strict=True)) for name in ("mean", "std")}
        return replace(self, mean=(gray["mean"],), std=(gray["std"],))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, as a checkpoint stores them. `exif_orientation` is there only if it is true, so that
        versions that do not know it read all other files."""
        values = {name: list(value) if type(value) is tuple else value for name, value in asdict(self).items()}
        return values if self.exif_orientation else {k: v for k, v in values.items() if k != OPTIONAL_KEY}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `to_dict`, for values from a file: raises ValueError that names what is wrong."""
        names = set(cls.__dataclass_fields__) - {OPTIONAL_KEY}
        if not isinstance(values, Mapping) or set(values) - {OPTIONAL_KEY} != names:
            found = sorted(map(str, values)) if isinstance(values, Mapping) else type(values).__name__
            raise ValueError(f"expected preprocessing with the keys {sorted(names)}, found {found}")
        arguments: dict[str, Any] = {k: tuple(v) if type(v) is list else v for k, v in values.items()}
        return cls(**arguments)


def _is_finite_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e30  # false for nan


IMAGENET = Preprocessing(256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR10 = Preprocessing(32, 32, (125.3, 123.0, 113.9), (63.0, 62.1, 66.7), pixel_max=255.0)
CIFAR100 = Preprocessing(32, 32, (129.3, 124.1, 112.4), (68.2, 65.4, 70.4), pixel_max=255.0)


def preprocess(image: Any, preprocessing: Preprocessing = IMAGENET, *, exif: bool | None = None) -> Tensor:
    """The net's input for one image: (C, crop_px, crop_px) float32.

    `image` is a path, a file's bytes, an open file, a PIL image, an array or a tensor: see `given_pixels`. `exif`: see
    `load_image`; as the preprocessing says if None.
    Raises ImageError.

    >>> import numpy as np
    >>> from resnet_tools import preprocess
    >>> preprocess(np.zeros((300, 400, 3), np.uint8)).shape
    torch.Size([3, 224, 224])
    """
    return _center_crop(normalised, image, preprocessing, exif)


def preprocess_array(image: Any, preprocessing: Preprocessing = IMAGENET, *, exif: bool | None = None) -> NDArray[Any]:
    """What `preprocess` gives, within 1e-6 and without torch."""
    return _center_crop(normalised_array, image, preprocessing, exif)


def ten_crops(image: Any, preprocessing: Preprocessing = IMAGENET, *, exif: bool | None = None) -> Tensor:
    """The original's ten crops of one image, decoded and scaled once: (10, C, crop_px, crop_px) float32.

    Center, top left, top right, bottom left, bottom right; then the same crops of the mirrored image.
    """
    import torch

    return torch.from_numpy(_ten_crops(lambda *given: normalised(*given).numpy(), image, preprocessing, exif))


def ten_crops_array(image: Any, preprocessing: Preprocessing = IMAGENET, *, exif: bool | None = None) -> NDArray[Any]:
    """What `ten_crops` gives, within 1e-6 and without torch."""
    return _ten_crops(normalised_array, image, preprocessing, exif)


def _center_crop(scale: Callable[..., Pixels], image: Any, preprocessing: Preprocessing, exif: bool | None) -> Pixels:
    pixels = given_pixels(loaded(image), exif=preprocessing.exif_orientation if exif is None else exif)
    height, width = scale_size(pixels.shape[0], pixels.shape[1], preprocessing.resize_px)
    crop = preprocessing.crop_px
    top, left = center_crop_offset(height, crop), center_crop_offset(width, crop)
    rows, columns = [range(top, top + crop)], [range(left, left + crop)]
    return scale(pixels, (height, width), rows, columns, preprocessing)


def _ten_crops(
    scale: Callable[..., NDArray[Any]],
    image: Any,
    preprocessing: Preprocessing,
    exif: bool | None,
) -> NDArray[Any]:
    pixels = given_pixels(loaded(image), exif=preprocessing.exif_orientation if exif is None else exif)
    height, width = scale_size(pixels.shape[0], pixels.shape[1], preprocessing.resize_px)
    crop = preprocessing.crop_px
    middle_y, middle_x = center_crop_offset(height, crop), center_crop_offset(width, crop)
    bottom, right = height - crop, width - crop
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right)]
    plain = [(middle_y, middle_x), *corners]
    # Where the crops of the mirrored image lie in the image itself: the center of an odd width moves by one.
    mirrored = [(y, right - x) for y, x in plain]

    tops, lefts = (sorted(set(starts)) for starts in zip(*plain, *mirrored, strict=True))
    rows, columns = ([range(start, start + crop) for start in starts] for starts in (tops, lefts))
    scaled = scale(pixels, (height, width), rows, columns, preprocessing)

    kept_rows, kept_columns = merged(rows), merged(columns)
    crops = np.empty((10, len(scaled), crop, crop), scaled.dtype)
    for number, (y, x) in enumerate(plain + mirrored):
        row, column = int(np.searchsorted(kept_rows, y)), int(np.searchsorted(kept_columns, x))
        window = scaled[:, row : row + crop, column : column + crop]
        crops[number] = window if number < 5 else window[:, :, ::-1]
    return crops


def pixels_of(image: Any, exif: bool = False) -> NDArray[Any]:
    """As `given_pixels`, but pixels (H, W, 3) are taken as they are: scaled ones may be below black or above white."""
    found = loaded(image)
    if isinstance(found, np.ndarray) and found.ndim == 3 and found.shape[2] == 3 and found.dtype.kind in "uf":
        return found
    return given_pixels(found, exif=exif)


def loaded(image: Any) -> Any:
    """What a `LazyImage` gives; all else as it is. Raises: ImageError."""
    return image.load() if isinstance(image, LazyImage) else image


def normalised(
    pixels: NDArray[Any],
    size: tuple[int, int],
    rows: Sequence[range],
    columns: Sequence[range],
    preprocessing: Preprocessing,
    *,
    mirrored: bool = False,
    spans: tuple[Span, Span] | None = None,
) -> Tensor:
    """The given rows and columns of the image scaled to `size`, (C, h, w): (x * pixel_max / white - mean) / std.

    spans: see `resample`.
    """
    scale, shift = _scale_and_shift(pixels, preprocessing)
    colours = resample(pixels, size, rows, columns, scale=scale, shift=shift, mirrored=mirrored, spans=spans)
    return colours.sum(0, keepdim=True) if preprocessing.channels == 1 else colours


def normalised_array(
    pixels: NDArray[Any],
    size: tuple[int, int],
    rows: Sequence[range],
    columns: Sequence[range],
    preprocessing: Preprocessing,
) -> NDArray[Any]:
    """What `normalised` gives, within 1e-6 and without torch."""
    scale, shift = _scale_and_shift(pixels, preprocessing)
    colours = resample_array(pixels, size, rows, columns, scale=scale, shift=shift)  # (3, h, w)
    return colours.sum(0, keepdims=True) if preprocessing.channels == 1 else colours


def _scale_and_shift(pixels: NDArray[Any], preprocessing: Preprocessing) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of each of the three colours."""
    scale = tuple(preprocessing.pixel_max / white_of(pixels) / std for std in preprocessing.std)
    shift = tuple(-mean / std for mean, std in zip(preprocessing.mean, preprocessing.std, strict=True))
    if preprocessing.channels == 1:  # the sum of the weighted colours, of which one carries the mean
        return tuple(weight * scale[0] for weight in GRAY), (*shift, 0.0, 0.0)
    return scale, shift


def white_of(pixels: NDArray[Any]) -> float:
    """The value of white: the largest of an unsigned type, 1 of floats."""
    return float(np.iinfo(pixels.dtype).max) if pixels.dtype.kind == "u" else 1.0


def scale_size(height: int, width: int, size: int) -> tuple[int, int]:
    """(h, w) that Scale(size) gives: the shorter side becomes `size`, the longer is cut off, not rounded.

    The ratio is rounded before the product: 100 x 140 scaled to 360 gives 503, as 1.4 * 360 = 503.99999999999994.
    """
    if (width <= height and width == size) or (height <= width and height == size):
        return height, width
    if width < height:
        return int(height / width * size), size
    return size, int(width / height * size)


def center_crop_offset(side: int, crop: int) -> int:
    """Where CenterCrop starts (0-based) along one side: half of what is left over, rounded up."""
    if crop > side:
        raise ValueError(f"a crop of {crop} pixels does not fit into {side} pixels")
    return (side - crop + 1) // 2
