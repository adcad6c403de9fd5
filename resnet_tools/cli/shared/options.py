"""What commands share: options, checks of the files that were given, and fast imports."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from resnet_tools.jobs.defaults import (
    CPU_BATCH_SIZE,
    EXTRACTION_BATCH_SIZE,
    GPU_BATCH_SIZE,
    MAX_BATCH_SIZE,
    MAX_WORKERS,
    ONE_THREAD_BATCH_SIZE,
)
from resnet_tools.text import printable

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from resnet_tools.compute.predictions import Loading
    from resnet_tools.data.transforms import Preprocessing
    from resnet_tools.jobs.running import Running

BATCH_SIZE = click.IntRange(1, MAX_BATCH_SIZE)
MAX_LIST_BYTES = 1 << 29
SIDE_PX = click.IntRange(1, 8192)
F = TypeVar("F", bound=Callable[..., Any])

MODEL_HELP = """MODEL is a .t7, .pt, .safetensors, torchvision .pth or .onnx file, recognised by its content, or `demo`,
    the small net that comes with the package."""


class UsageErrors(click.UsageError):
    """Several things that are wrong with a command line, a line each."""

    def __init__(self, messages: Sequence[str]) -> None:
        super().__init__("\n".join(map(printable, messages)))


def file_names(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """For `shell_complete` of what is text to click: the names of files, which the shell finds itself."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def model_argument(function: F) -> F:
    return click.argument("model", type=click.Path(path_type=str))(function)


@dataclass(frozen=True)
class Inference:
    """The values of `inference_options`."""

    batch_size: int | None
    device: str
    engine: str
    precision: str
    resize_size: int | None
    crop_size: int | None
    ten_crop: bool
    exif_orientation: bool | None
    workers: int | None

    def loading(self, default: Preprocessing, cpu_batch_size: int = CPU_BATCH_SIZE) -> Loading:
        """How images are loaded for a net with that preprocessing. Raises: click.UsageError if the sizes do not fit."""
        self.check_sizes(default)
        return self.running().loading(default, cpu_batch_size)

    def check_sizes(self, default: Preprocessing) -> None:
        """Raises: click.UsageError if the sizes do not fit."""
        from resnet_tools.jobs.running import changed_preprocessing

        try:
            changed_preprocessing(default, self.resize_size, self.crop_size)
        except ValueError as error:
            raise click.UsageError(f"{error} (--resize-size, --crop-size)") from error

    def running(self) -> Running:
        """The same as a function takes it."""
        from resnet_tools.jobs.running import Running

        return Running(
            self.batch_size,
            self.device,
            self.engine,
            self.precision,
            self.resize_size,
            self.crop_size,
            self.ten_crop,
            self.exif_orientation,
            self.workers,
        )


@dataclass(frozen=True)
class Images:
    """The values of `image_options`: files, folders, patterns, addresses, and lists of them."""

    images: tuple[str, ...]
    lists: tuple[str, ...]
    allow_urls: bool

    def arguments(self, folders: Sequence[str] = ()) -> list[str]:
        """All that was named, folders before the content of lists. Raises: ResnetToolsError if one cannot be read."""
        if self.lists.count("-") + self.images.count("-") > 1:
            raise click.UsageError("stdin can be given only once, as an image or as a list of images")
        listed = {path: listed_images(path) for path in self.lists}
        empty = [path for path, names in listed.items() if not names]
        if empty:
            raise UsageErrors([f"{path}: this list names no images" for path in empty])
        return [*self.images, *folders, *(name for path in self.lists for name in listed[path])]


def image_options(function: Callable[..., int]) -> Callable[..., int]:
    """IMAGE... and the options that name more of them, given to the command as one argument `sources`."""

    @wraps(function)
    def command(*arguments: Any, **values: Any) -> int:
        sources = Images(**{field.name: values.pop(field.name) for field in fields(Images)})
        return function(*arguments, sources=sources, **values)

    for option in (
        click.option("--allow-urls", is_flag=True, help="Fetch images given as http:// and https:// addresses."),
        click.option(
            "--from-file",
            "lists",
            multiple=True,
            type=click.Path(exists=True, dir_okay=False, allow_dash=True),
            help="A list of images, one per line or separated by null bytes; - reads stdin. May be repeated.",
        ),
        click.argument("images", nargs=-1, metavar="[IMAGE...]", shell_complete=file_names),
    ):
        command = option(command)
    return command


def listed_images(path: str) -> list[str]:
    """The names in a list, or on stdin. Raises: ResnetToolsError if it cannot be read."""
    from resnet_tools.data.image_lists import names_in_list
    from resnet_tools.reading import read_bounded, read_stdin

    read = read_stdin if path == "-" else partial(read_bounded, path)
    return names_in_list(read(MAX_LIST_BYTES, "list of images"))


def device_name(_: click.Context, __: click.Parameter, name: str) -> str:
    """A bare number names a GPU: 1 is cuda:1."""
    return f"cuda:{int(name)}" if name.isascii() and name.isdecimal() and len(name) < 5 else name


INFERENCE_OPTIONS = (
    click.option(
        "--batch-size",
        type=BATCH_SIZE,
        help=f"Number of images per forward pass.  [default: {GPU_BATCH_SIZE} on a GPU, else {CPU_BATCH_SIZE}; "
        f"{ONE_THREAD_BATCH_SIZE} for torch on one core; {EXTRACTION_BATCH_SIZE} to extract features]",
    ),
    click.option(
        "--device",
        default="auto",
        show_default=True,
        callback=device_name,
        help="auto, cpu, cuda, cuda:1 (or 1), or mps.",
    ),
    click.option(
        "--engine",
        type=click.Choice(["auto", "torch", "onnxruntime", "openvino"]),
        default="auto",
        show_default=True,
        help="What runs the net: auto is onnxruntime on a CPU, where it is installed and --precision is single, "
        "and torch elsewhere; openvino (an extra) also computes in bf16, on CPUs that have it. Outputs differ by about "
        "1e-6.",
    ),
    click.option(
        "--precision",
        type=click.Choice(["single", "tf32", "bf16", "half"]),
        default="single",
        show_default=True,
        help="Arithmetic: single is 32-bit floats, as in the original; tf32 lets a GPU round products to 10 bits "
        "(outputs differ by about 0.1 %); bf16 and half are 16-bit floats (about 1 %).",
    ),
    click.option(
        "--resize-size",
        type=SIDE_PX,
        help="Scale the shorter side to this many pixels. [default: from the model, usually 256]",
    ),
    click.option(
        "--crop-size", type=SIDE_PX, help="Side of the center crop in pixels. [default: from the model, usually 224]"
    ),
    click.option(
        "--ten-crop",
        is_flag=True,
        help="Average the outputs of ten crops: four corners, center, and their mirror images.",
    ),
    click.option(
        "--exif-orientation/--no-exif-orientation",
        default=None,
        help="Rotate images as their EXIF data says; the original does not.  [default: as the net was trained]",
    ),
    click.option(
        "--workers",
        type=click.IntRange(0, MAX_WORKERS),
        help="Image-loading threads, or, if more than 4, processes.  [default: 2; for a GPU, the cores that this "
        "job may use divided by its processes on this machine, at most 16]",
    ),
)


def inference_options(function: Callable[..., int]) -> Callable[..., int]:
    """The options of every command that runs a net on images, given to it as one argument `inference`."""

    @wraps(function)
    def command(*arguments: Any, **values: Any) -> int:
        inference = Inference(**{field.name: values.pop(field.name) for field in fields(Inference)})
        return function(*arguments, inference=inference, **values)

    for option in reversed(INFERENCE_OPTIONS):
        command = option(command)
    return command


def check_files(model: str, images: Sequence[str], *, allow_urls: bool = False) -> list[str]:
    """The image files of the arguments. Reports on stderr which files in folders were left out.

    Raises: click.UsageError (exit code 2) that names every missing file, the model too.
    """
    from resnet_tools.data.files import image_files, skipped_text
    from resnet_tools.errors import ImageError

    skipped: Counter[str] = Counter()

    missing = _missing_models([model])
    paths: list[str] = []
    try:
        paths = image_files(images, allow_urls=allow_urls, skipped=skipped)
    except ImageError as error:
        missing += map(str, error.args)
    if missing:
        raise UsageErrors(missing)
    if skipped:
        click.echo(skipped_text(skipped, "Left out: "), err=True)
    return paths


def refuse_inputs(output: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str] | None]) -> None:
    """Raises: click.UsageError if the file to write is one of those that are read, under whatever name."""
    if not os.path.exists(output):
        return
    for path in inputs:
        if path is not None and os.path.exists(path) and os.path.samefile(path, output):
            raise click.UsageError(
                f"{os.fspath(output)}: this file is read ({path}) and would be overwritten; give another --output"
            )


def check_models(models: Sequence[str]) -> None:
    """Raises: click.UsageError (exit code 2) that names every missing file."""
    missing = _missing_models(models)
    if missing:
        raise UsageErrors(missing)


def _missing_models(models: Sequence[str]) -> list[str]:
    """A line for each model that is not there, and one on where there are some."""
    from resnet_tools.checkpoints.run_folder import holds_run, no_run_text
    from resnet_tools.nets.catalog import download_advice

    absent = [model for model in models if model != "demo" and not Path(model).is_file()]
    folders = [model for model in absent if Path(model).is_dir()]
    missing = [no_run_text(model) for model in folders if not holds_run(Path(model))]
    absent = [model for model in absent if model not in folders]
    advice = [download_advice(absent[0])] if absent else []
    return missing + [f"{model}: no such model file" for model in absent] + advice


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import with garbage collection off: it would walk torch's million objects several times."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
