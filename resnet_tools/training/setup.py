"""Options, data and a start -> the parts of a run, put together."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import torch

from resnet_tools.compute.device import configure, default_workers, find_precision
from resnet_tools.compute.inference import TEN_CROPS, Loading
from resnet_tools.compute.processes import Processes
from resnet_tools.data.photo_cache import PhotoCache, open_cache
from resnet_tools.data.samples import Samples
from resnet_tools.data.transforms import Preprocessing
from resnet_tools.errors import TrainingError
from resnet_tools.locking import LOCK_NAME, locked_folder
from resnet_tools.text import counted
from resnet_tools.training.compute_config import ComputeConfig
from resnet_tools.training.loading_watch import LoadingWatch
from resnet_tools.training.optimizer import freeze
from resnet_tools.training.options import TrainOptions
from resnet_tools.training.recipe import AugmentationName, RecipeName
from resnet_tools.training.run import Run, RunData, SavePolicy
from resnet_tools.training.run_files import LATEST, has_run
from resnet_tools.training.run_samples import check_outside
from resnet_tools.training.saving import keep_best, remove_old
from resnet_tools.training.start import Start
from resnet_tools.training.step import TrainStep
from resnet_tools.training.transforms import TrainingTransform, copies_side_px, training_transform

KEPT_EPOCHS = 2
LOG_EVERY = 10
FEW_IMAGES = 16


def set_up_compute(options: TrainOptions, start: Start, device: torch.device, processes: Processes) -> ComputeConfig:
    """The device made ready. Raises: TrainingError if it cannot compute in the precision that was asked for."""
    original = start.state.recipe.name == "original"  # computes in full float32, as the original does
    precision = find_precision(options.precision, device, automatic=not original)
    images = start.state.recipe.batch_size // processes.count
    if processes.count > 1 and images < FEW_IMAGES and not (options.sync_bn or start.state.recipe.freeze_bn):
        warnings.warn(
            f"{counted(images, 'image')} per process {'is' if images == 1 else 'are'} too few for batch norm, "
            "whose statistics are those of a process: give a "
            "larger --batch-size, fewer processes, or, on GPUs, --sync-bn",
            stacklevel=2,
        )
    configure(device, options.cudnn, allow_tf32=precision not in ("single", "double"))
    return ComputeConfig(
        device,
        precision,
        processes,
        sync_bn=options.sync_bn,
        compile=options.compile,
        checkpoint_activations=options.checkpoint_activations,
        deterministic=options.cudnn == "deterministic",
    )


def run_data(
    options: TrainOptions,
    start: Start,
    train: Samples,
    val: Samples,
    preprocessing: Preprocessing,
    config: ComputeConfig,
) -> RunData:
    """The samples with their transforms. As in the original, a batch of validation holds as many views as one of
    training has images.
    """
    form = "imagenet" if start.checkpoint.architecture.stem == "imagenet" else "cifar10"
    recipe, views = start.state.recipe, TEN_CROPS if options.ten_crop else 1
    workers = default_workers(config.device) if options.workers is None else options.workers
    batch_size = max(1, recipe.batch_size // config.processes.count // views)
    transform = training_transform(
        recipe.augmentation,
        form,
        preprocessing,
        as_bytes=_as_bytes(recipe.augmentation, config.device),
        reduced=recipe.name != "original",
    )
    return RunData(
        train,
        val,
        replace(transform, cache=_cache(options, recipe.name, transform, config.processes)),
        Loading(preprocessing, batch_size, options.ten_crop, workers=workers),
        skip_unreadable=options.on_error == "skip",
    )


def _cache(
    options: TrainOptions, recipe: RecipeName, transform: TrainingTransform, processes: Processes
) -> PhotoCache | None:
    """Raises: OptionError, DataError."""
    if options.cache is None or options.test_only:
        return None
    options.check_cache(recipe)
    check_outside(options, "--cache", options.cache)
    exif = transform.preprocessing.exif_orientation
    return open_cache(options.cache, copies_side_px(transform), exif=exif, first=processes.rank == 0)


def _as_bytes(augmentation: AugmentationName, device: torch.device) -> bool:
    """On their way to a GPU, images of our own recipes are a quarter as large; the original's stay as they are."""
    return device.type == "cuda" and augmentation in ("light", "trivial")


def build_run(
    options: TrainOptions, start: Start, data: RunData, config: ComputeConfig, stop_signal: Callable[[], int]
) -> Run:
    """The run, ready to train in its folder, which `held_folder` made. Raises: TrainingError."""
    folder, recipe = options.save_folder, start.state.recipe
    if config.processes.rank == 0 and options.resume:
        keep_best(Path(options.resume), folder, start.state.best_epoch)
        if os.path.samefile(options.resume, folder):
            remove_old(folder, start.state, options.keep or 0)
    elif config.processes.rank == 0:
        (folder / LATEST).unlink(missing_ok=True)  # with --overwrite: a restart must not take it for this run's
    # Before the optimizer and the exchange of gradients are made, which skip what is frozen.
    freeze(start.checkpoint.model, recipe.freeze, norms=recipe.freeze_bn)
    train_step = TrainStep(start.checkpoint.model, recipe, config)
    start.restore(train_step)
    original = recipe.name == "original"
    keep = options.keep if options.keep is not None else 0 if original else KEPT_EPOCHS
    return Run(
        train_step,
        replace(start.checkpoint, preprocessing=data.loading.preprocessing),
        start.state,
        data,
        SavePolicy(folder, 60 * (options.save_every or float("inf")), keep),
        stop_signal,
        log_every=options.log_every or (1 if original else LOG_EVERY),
        watch=None if original or config.processes.rank > 0 else _watch(options, data),
    )


def _watch(options: TrainOptions, data: RunData) -> LoadingWatch:
    return LoadingWatch(options.cache, data.train, data.loading.preprocessing.crop_px)


@contextmanager
def held_folder(options: TrainOptions, processes: Processes) -> Iterator[None]:
    """Process 0 makes the folder of the run and keeps every other training out of it until the block ends.

    Raises: LockedError if another training holds it, TrainingError if it cannot be written to, or if a run came into
    it since the options were checked, or if it is among the class folders.
    """
    folder = options.save_folder
    if processes.rank > 0 or options.test_only:
        yield
        return
    check_outside(options, "--save", folder)
    is_new = not folder.exists()
    _make_folder(folder)
    try:
        with _locked(folder):
            if has_run(folder) and not (options.resume or options.overwrite):
                raise TrainingError(f"--save {folder}: another run has been saved here meanwhile; give another folder")
            yield
    finally:
        if is_new:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


@contextmanager
def held_to_resume(options: TrainOptions, processes: Processes) -> Iterator[None]:
    """The same for a folder that a run is only read from, to be continued in another; one that cannot be written to
    needs no lock. Raises: LockedError if a training is at work in it."""
    folder = Path(options.resume or ".")
    elsewhere = options.resume is not None and folder.resolve() != options.save_folder.resolve()
    with ExitStack() as stack:
        if elsewhere and processes.rank == 0:
            with suppress(OSError):
                stack.enter_context(_locked(folder))
        yield


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """`locked_folder`, which leaves nothing behind."""
    with locked_folder(folder):
        try:
            yield
        finally:
            with suppress(OSError):  # as where an open file cannot be removed
                (folder / LOCK_NAME).unlink(missing_ok=True)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(0, "permission denied")
    except OSError as error:
        raise TrainingError(f"--save {folder}: {error.strerror}; give a folder that can be written to") from error
