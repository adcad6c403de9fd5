"""How a net is run on images: what a caller asked for -> the device and the loading of the images."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from resnet_tools.compute.cpus import CPU_WORKERS
from resnet_tools.compute.engines import ENGINES, device_for, engine_threads, find_engine
from resnet_tools.compute.predictions import Loading
from resnet_tools.data.transforms import MAX_SIDE_PX, Preprocessing
from resnet_tools.errors import ResnetToolsError
from resnet_tools.jobs.defaults import (
    CPU_BATCH_SIZE,
    GPU_BATCH_SIZE,
    MAX_BATCH_SIZE,
    MAX_WORKERS,
    ONE_THREAD_BATCH_SIZE,
    PRECISIONS,
)

# Where another engine runs a net, torch is not needed, which takes seconds to import.
if TYPE_CHECKING:
    import torch

Progress = Callable[[int, int], object]  # (done, total)


@dataclass(frozen=True)
class Running:
    """None stands for what was not given: the batch size and the workers that suit the device, the net's own sizes.

    Raises: ResnetToolsError if a value is none that there is.
    """

    batch_size: int | None = None
    device: str | int | torch.device = "auto"
    engine: str = "auto"
    precision: str = "single"
    resize_px: int | None = None
    crop_px: int | None = None
    ten_crop: bool = False
    exif_orientation: bool | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        require_whole("batch_size", self.batch_size, 1, MAX_BATCH_SIZE)
        require_whole("resize_px", self.resize_px, 1, MAX_SIDE_PX)
        require_whole("crop_px", self.crop_px, 1, MAX_SIDE_PX)
        require_whole("workers", self.workers, 0, MAX_WORKERS)
        require_one_of("engine", self.engine, ENGINES)
        require_one_of("precision", self.precision, PRECISIONS)
        require_bool("ten_crop", self.ten_crop)
        if self.exif_orientation is not None:
            require_bool("exif_orientation", self.exif_orientation)

    def found_device(self) -> torch.device:
        """Raises: ResnetToolsError if this machine has no such device."""
        from resnet_tools.compute.device import find_device

        return find_device(device_for(self.engine, str(self.device)))

    @property
    def runs_torch(self) -> bool:
        """Whether torch runs the nets that it can run. Raises: ResnetToolsError."""
        return find_engine(self.engine, str(self.device), self.precision) == "torch"

    def loading(self, default: Preprocessing, cpu_batch_size: int = CPU_BATCH_SIZE) -> Loading:
        """How images are loaded for a net with that preprocessing. Raises: ResnetToolsError if the sizes do not fit."""
        try:
            preprocessing = changed_preprocessing(default, self.resize_px, self.crop_px, self.exif_orientation)
        except ValueError as error:
            raise ResnetToolsError(f"{error} (resize_px, crop_px)") from error
        batch_size, workers = cpu_batch_size, CPU_WORKERS
        if self.runs_torch:
            from resnet_tools.compute.device import default_workers

            device = self.found_device()
            # Ten crops of 8 images are 80.
            one_thread = device.type == "cpu" and engine_threads() == 1 and not self.ten_crop
            on_cpu = max(cpu_batch_size, ONE_THREAD_BATCH_SIZE) if one_thread else cpu_batch_size
            batch_size = GPU_BATCH_SIZE if device.type == "cuda" else on_cpu
            workers = default_workers(device)
        workers = workers if self.workers is None else int(self.workers)
        return Loading(preprocessing, int(self.batch_size or batch_size), self.ten_crop, workers)


def changed_preprocessing(
    default: Preprocessing, resize_px: int | None, crop_px: int | None, exif_orientation: bool | None = None
) -> Preprocessing:
    """The model's own preprocessing with what was asked for. Raises: ValueError if the sizes do not fit."""
    return replace(
        default,
        resize_px=int(resize_px or default.resize_px),
        crop_px=int(crop_px or default.crop_px),
        exif_orientation=default.exif_orientation if exif_orientation is None else exif_orientation,
    )


def require_whole(name: str, value: object, low: int, high: int | None = None) -> None:
    """Raises: ResnetToolsError if the value is neither None nor a whole number in this range."""
    if value is None:
        return
    try:
        number = None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or number < low or (high is not None and number > high):
        expected = f"a whole number from {low} to {high}" if high is not None else f"a whole number, {low} or more"
        raise ResnetToolsError(f"{name} is {value!r:.60}; expected {expected}")


def require_one_of(name: str, value: object, choices: Collection[str]) -> None:
    """Raises: ResnetToolsError if the value is none of them."""
    if not isinstance(value, str) or value not in choices:
        raise ResnetToolsError(f"{name} is {value!r:.60}; expected {', '.join(map(repr, choices))}")


def require_bool(name: str, value: object) -> None:
    """Raises: ResnetToolsError if it is something else, of which much, such as "false", would count as True."""
    if not isinstance(value, (bool, np.bool_)):
        raise ResnetToolsError(f"{name} is {value!r:.60}; expected True or False")


def counting(progress: Progress | None, total: int) -> Callable[[int, list[str]], None]:
    """A function that is told how many images were done since, as the loops call it, and tells `progress` the sum."""
    done = 0

    def count(images: int, _: Any) -> None:
        nonlocal done
        done += images
        if progress is not None and images:
            progress(done, total)

    return count
