"""The arguments of `train` in Python -> the options of a training, each checked as the command line checks it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from math import inf, isfinite
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypedDict, Union, get_args, get_origin, get_type_hints

from resnet_tools.errors import OptionError
from resnet_tools.training.arguments import ARGUMENTS, OPTION_NAMES, Plain
from resnet_tools.training.option_checks import check_together, with_stored
from resnet_tools.training.options import TrainOptions
from resnet_tools.training.recipe import AugmentationName, RecipeName, Schedule

FilePath = str | os.PathLike[str]


class TrainArguments(TypedDict, total=False):
    """The options of `resnet train` as keywords; `resnet train --help` says what each does."""

    dataset: str | None
    val_fraction: float | None
    train_list: FilePath | None
    val_list: FilePath | None
    exif_orientation: bool | None
    resize_size: int | None
    crop_size: int | None
    on_error: Literal["fail", "skip"] | None
    check: bool
    weights: str | None
    classifier_only: bool
    n_classes: int | None
    arch: str | None
    stem: Literal["imagenet", "cifar"] | None
    in_channels: int | None
    net_type: Literal["resnet", "preresnet"] | None
    depth: int | None
    shortcut_type: Literal["A", "B", "C"] | None
    freeze: int | None
    freeze_bn: bool | None
    recipe: RecipeName | None
    n_epochs: int | None
    epoch_number: int
    batch_size: int | None
    accumulate: int | None
    lr: float | None
    classifier_lr: float | None
    lr_schedule: Schedule | None
    warmup_epochs: float | None
    momentum: float | None
    weight_decay: float | None
    decay_norm: bool | None
    augment: AugmentationName | None
    label_smoothing: float | None
    mixup: float | None
    cutmix: float | None
    ema: float | None
    early_stop: int | None
    overwrite: bool
    keep: int | None
    save_every: float | None
    optim_state: FilePath | None
    manual_seed: int | None
    ten_crop: bool
    log_every: int | None
    report: bool | None
    tensorboard: bool
    device: str
    workers: int | None
    cache: FilePath | None
    precision: Literal["single", "tf32", "double", "half", "bf16"] | None
    cudnn: Literal["fastest", "default", "deterministic"]
    compile: bool
    checkpoint_activations: bool
    sync_bn: bool


DEFAULTS: dict[str, Any] = {
    "data": "", "check": True, "epoch_number": 1, "quiet": True, "device": "auto", "n_gpu": 1,
    "cudnn": "fastest",
}  # fmt: skip
# The least and the largest value of a number; "(" and ")" stand for bounds that are not part of the range.
RANGES: dict[str, tuple[str, float, float, str]] = {
    "val_fraction": ("(", 0, 1, ")"), "resize_size": ("[", 1, 8192, "]"), "crop_size": ("[", 1, 8192, "]"),
    "n_classes": ("[", 1, inf, ")"), "in_channels": ("[", 1, 3, "]"), "depth": ("[", 1, inf, ")"),
    "freeze": ("[", 0, inf, ")"), "epochs": ("[", 1, inf, ")"), "epoch_number": ("[", 1, inf, ")"),
    "batch_size": ("[", 1, 65536, "]"), "accumulate": ("[", 1, inf, ")"), "lr": ("(", 0, inf, ")"),
    "classifier_lr": ("(", 0, inf, ")"), "warmup_epochs": ("[", 0, inf, ")"), "momentum": ("[", 0, 1, ")"),
    "weight_decay": ("[", 0, inf, ")"), "label_smoothing": ("[", 0, 1, ")"), "mixup": ("[", 0, inf, ")"),
    "cutmix": ("[", 0, inf, ")"), "ema": ("[", 0, 1, ")"), "early_stop": ("[", 0, inf, ")"),
    "keep": ("[", 0, inf, ")"), "save_every": ("(", 0, inf, ")"), "manual_seed": ("[", 0, 2**63 - 1, "]"),
    "log_every": ("[", 1, inf, ")"), "workers": ("[", 0, 256, "]"),
}  # fmt: skip
FIELDS = {option: field for field, option in OPTION_NAMES.items()}


def train_options(arguments: Mapping[str, Any]) -> TrainOptions:
    """The options; with `resume`, those that were not given are what the run to resume has stored.

    Raises: OptionError if a value is none that there is, or options contradict each other; TrainingError for a run
    whose options are damaged.
    """
    hints = get_type_hints(TrainOptions)
    given: dict[str, Any] = {}
    for name, value in arguments.items():
        field = FIELDS.get(name, name)
        if field not in hints or name in OPTION_NAMES:
            raise OptionError(f"{name}: there is no such option; `resnet train --help` and help(train) list them")
        given[field] = _checked(field, value, hints[field])
    values: dict[str, Any] = dict.fromkeys(hints)
    values |= {name: False for name, hint in hints.items() if hint is bool} | DEFAULTS | given
    values["reset_classifier"] = values["reset_classifier"] or values["classifier_only"]
    options = TrainOptions(**values)
    if options.resume:
        options, _ = with_stored(options, given, lambda name, value, folder: _stored(name, value, hints[name], folder))
    check_together(options)
    return options


def _stored(name: str, value: Plain, hint: Any, folder: Path) -> Any:
    try:
        return _checked(name, value, hint)
    except OptionError as error:
        path = folder / ARGUMENTS
        raise OptionError(f"{path}: {error}. Give {OPTION_NAMES.get(name, name)} anew, or remove {path}") from None


def _checked(name: str, value: Any, hint: Any) -> Any:
    """The value as a field of this type holds it. Raises: OptionError."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if value is None and NoneType in kinds:
        return None
    [kind] = [kind for kind in kinds if kind is not NoneType]
    option = OPTION_NAMES.get(name, name)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise OptionError(f"{option} is {value!r:.60}; expected {', '.join(map(repr, get_args(kind)))}")
        return value
    if kind in (str, Path):
        if not isinstance(value, (str, os.PathLike)):
            raise OptionError(f"{option} is {value!r:.60}; expected a {'path' if kind is Path else 'text'}")
        return kind(os.fsdecode(value))
    return _number(option, name, value, kind)


def _number(option: str, name: str, value: Any, kind: type) -> Any:
    if isinstance(value, bool) or kind is bool:
        if kind is bool and isinstance(value, bool):
            return value
        raise OptionError(f"{option} is {value!r:.60}; expected {'True or False' if kind is bool else 'a number'}")
    try:
        number = kind(value) if not isinstance(value, str) else None
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or number != value or not isfinite(number) or not _is_inside(number, RANGES[name]):
        what = "a whole number" if kind is int else "a number"
        raise OptionError(f"{option} is {value!r:.60}; expected {what} {_range_text(RANGES[name])}")
    return number


def _range_text(limits: tuple[str, float, float, str]) -> str:
    opening, low, high, closing = limits
    start = f"above {low:g}" if opening == "(" else f"of at least {low:g}"
    return start + ("" if high == inf else f" and below {high:g}" if closing == ")" else f" and at most {high:.0f}")


def _is_inside(number: float, limits: tuple[str, float, float, str]) -> bool:
    opening, low, high, closing = limits
    return (low < number if opening == "(" else low <= number) and (number < high if closing == ")" else number <= high)
