"""What commands share: options, the check of their files, and a quick start."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from resnet_tools.compute.inference import Loading
    from resnet_tools.data.transforms import Preprocessing

BATCH_SIZE = click.IntRange(1, 65536)
SIDE_PX = click.IntRange(1, 8192)
F = TypeVar("F", bound=Callable[..., Any])

MODEL_HELP = """MODEL is a .t7, .pt, .safetensors or torchvision .pth file, told by content, or `demo`: the small net
    that comes with the package."""


def model_argument(function: F) -> F:
    return click.argument("model", type=click.Path(path_type=str))(function)


@dataclass(frozen=True)
class Inference:
    """What `inference_options` were given."""

    batch_size: int
    device: str
    precision: str
    resize_size: int | None
    crop_size: int | None
    ten_crop: bool
    exif_orientation: bool
    workers: int

    def loading(self, default: Preprocessing) -> Loading:
        """How images are loaded for a net with that preprocessing. Raises: click.UsageError if the sizes do not fit."""
        from resnet_tools.compute.inference import Loading

        preprocessing = changed_preprocessing(default, self.resize_size, self.crop_size)
        return Loading(preprocessing, self.batch_size, self.ten_crop, self.exif_orientation, self.workers)


def inference_options(function: Callable[..., int]) -> Callable[..., int]:
    """The options of every command that runs a net on images, given to it as one argument `inference`."""

    @wraps(function)
    def command(*arguments: Any, **values: Any) -> int:
        inference = Inference(**{field.name: values.pop(field.name) for field in fields(Inference)})
        return function(*arguments, inference=inference, **values)

    options = (
        click.option(
            "--batch-size", type=click.IntRange(1, 65536), default=8, show_default=True, help="Images at once."
        ),
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps."),
        click.option(
            "--precision",
            type=click.Choice(["single", "bf16", "half"]),
            default="single",
            show_default=True,
            help="Numbers of the net: 32 bits as the original, or 16 bits, faster and about 1 % off.",
        ),
        click.option("--resize-size", type=SIDE_PX, help="Shorter side in pixels; as the model says, mostly 256."),
        click.option("--crop-size", type=SIDE_PX, help="Side of the crop in pixels; as the model says, mostly 224."),
        click.option(
            "--ten-crop", is_flag=True, help="Mean output of ten crops: corners, center and their mirror images."
        ),
        click.option(
            "--exif-orientation", is_flag=True, help="Turn images as their EXIF data says; the original does not."
        ),
        click.option(
            "--workers", type=click.IntRange(0, 256), default=2, show_default=True, help="Threads that load images."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def check_files(model: str, images: Sequence[str]) -> list[str]:
    """The image files of the arguments.

    Raises: click.UsageError (exit code 2) that names every missing file, the model too.
    """
    from resnet_tools.data.files import image_files
    from resnet_tools.errors import ImageError

    missing = _missing_models([model])
    paths: list[str] = []
    try:
        paths = image_files(images)
    except ImageError as error:
        missing.append(str(error))
    if missing:
        raise click.UsageError("\n".join(missing))
    return paths


def check_models(models: Sequence[str]) -> None:
    """Raises: click.UsageError (exit code 2) that names every missing file."""
    missing = _missing_models(models)
    if missing:
        raise click.UsageError("\n".join(missing))


def _missing_models(models: Sequence[str]) -> list[str]:
    return [f"{model}: no such model file" for model in models if model != "demo" and not Path(model).is_file()]


def changed_preprocessing(default: Preprocessing, resize_px: int | None, crop_px: int | None) -> Preprocessing:
    """The model's own preprocessing with the sizes that were asked for. Raises: click.UsageError if they do not fit."""
    try:
        return replace(default, resize_px=resize_px or default.resize_px, crop_px=crop_px or default.crop_px)
    except ValueError as error:
        raise click.UsageError(f"{error} (--resize-size, --crop-size)") from error


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import without garbage collection, which would walk torch's million objects several times over."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def warnings_as_lines(*, quiet: bool = False) -> Iterator[None]:
    """Show warnings about a file as one line on stderr, or not at all if `quiet`: another process shows them."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        if not quiet:
            click.echo(f"Warning: {message}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = show
        yield
