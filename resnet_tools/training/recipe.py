"""How a net is trained: every number in one frozen value, which is saved with each checkpoint.

As in the original, learning rates are for the given batch size and are not scaled with it. Sources: opts.lua and
train.lua of facebook/fb.resnet.torch for `original`; for `modern` He et al. 2018 (arXiv:1812.01187), Wightman et al.
2021 (arXiv:2110.00476) and Müller and Hutter 2021 (arXiv:2103.10158); `finetune` was chosen by experiment (README).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args, get_type_hints

from resnet_tools.errors import TrainingError
from resnet_tools.text import counted

RecipeName = Literal["original", "finetune", "modern"]
Schedule = Literal["step", "cosine"]
AugmentationName = Literal["original", "light", "trivial", "none"]

# The epochs, from 1, at which the original multiplies the learning rate by 0.1.
ORIGINAL_STEPS = {"imagenet": tuple(range(31, 1000, 30)), "cifar10": (81, 122), "cifar100": (81, 122)}
GOING_ON = 0.1  # of the usual rate, for a net that has been trained on these classes already
LONGEST_WARMUP = 0.2  # of the epochs, unless --warmup-epochs says otherwise
ORIGINAL_EPOCHS = {"imagenet": 90, "cifar10": 164, "cifar100": 164}


@dataclass(frozen=True)
class Recipe:
    """Learning rates, their schedule, regularisation and augmentation. Epochs count from 1.

    `classifier_lr` is the learning rate of the last layer, which follows the same schedule. `decay_norm`: weight decay
    also applies to batch norms and biases. `steps`: the epochs at which the step schedule divides the rates by 10;
    except in `original`, at half and at three quarters of the epochs. `ema`: decay of the moving average of the
    weights, 0 for none. `freeze`: stages that are not trained: 0 none, 1 the stem, 2 also the first stage, ...
    `early_stop`: epochs without a lower top-1 error after which training ends, 0 for never.
    """

    name: RecipeName
    epochs: int
    batch_size: int
    lr: float
    classifier_lr: float
    steps: tuple[int, ...] = ()
    lr_schedule: Schedule = "step"
    warmup_epochs: float = 0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    decay_norm: bool = True
    augmentation: AugmentationName = "original"
    label_smoothing: float = 0
    mixup: float = 0
    cutmix: float = 0
    ema: float = 0
    freeze: int = 0
    freeze_bn: bool = False
    accumulate: int = 1
    early_stop: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {name: list(value) if type(value) is tuple else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: object) -> Recipe:
        """The inverse of `to_dict`, for values from a file. Raises: TrainingError."""
        names = {field.name for field in fields(cls)}
        if not isinstance(values, Mapping) or set(values) != names:
            raise TrainingError("the checkpoint holds a recipe of another version; start a new run with its options")
        arguments: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        for name, hint in get_type_hints(cls).items():
            if not _is_possible(arguments[name], hint):
                raise TrainingError(f"the checkpoint's recipe has an invalid {name}: {arguments[name]!r:.40}")
        made = cls(**arguments)
        _check(made)
        return made


def default_recipe_name(*, fine_tuning: bool) -> RecipeName:
    """The recipe of a run that names none."""
    return "finetune" if fine_tuning else "original"


def make_recipe(name: RecipeName, dataset: str, **changes: Any) -> Recipe:
    """The named recipe for a data set, with `changes` as in `changed`."""
    return changed(_BASES[name](dataset), **changes)


def changed(base: Recipe, **changes: Any) -> Recipe:
    """A recipe with some fields changed, by name; None keeps the recipe's own value.

    Unless it is given, the classifier's learning rate keeps its ratio to `lr`. Raises: TrainingError if the values
    contradict each other.
    """
    given = {field: value for field, value in changes.items() if value is not None}
    if "lr" in given and "classifier_lr" not in given:
        given["classifier_lr"] = given["lr"] * base.classifier_lr / base.lr
    made = replace(base, **given)
    if made.name != "original":
        half, three_quarters = made.epochs // 2 + 1, made.epochs * 3 // 4 + 1
        made = replace(made, steps=(half, three_quarters))
    if "warmup_epochs" not in given:
        made = replace(made, warmup_epochs=min(made.warmup_epochs, made.epochs * LONGEST_WARMUP))
    _check(made)
    return made


def going_on(made: Recipe, dataset: str) -> Recipe:
    """The recipe of a net that was trained with `made` and is trained again, on the same classes.

    One low rate for all layers: at the usual ones, above all that of a new classifier, the net would first lose what it
    has learned.
    """
    lr = min(made.lr, GOING_ON * make_recipe(made.name, dataset).lr)
    return replace(made, lr=lr, classifier_lr=lr)


def _original(dataset: str) -> Recipe:
    return Recipe("original", ORIGINAL_EPOCHS[dataset], 32, 0.1, 0.1, steps=ORIGINAL_STEPS[dataset])


def _finetune(dataset: str) -> Recipe:
    return Recipe(
        "finetune",
        20,
        32,
        lr=0.03,
        classifier_lr=0.3,
        lr_schedule="cosine",
        warmup_epochs=1,
        label_smoothing=0.1,
        augmentation="light" if dataset == "imagenet" else "original",
    )


def _modern(dataset: str) -> Recipe:
    return Recipe(
        "modern",
        100,
        128,
        lr=0.1,
        classifier_lr=0.1,
        lr_schedule="cosine",
        warmup_epochs=5,
        weight_decay=5e-5 if dataset == "imagenet" else 5e-4,
        decay_norm=False,
        augmentation="trivial",
        label_smoothing=0.1,
        mixup=0.2,
        cutmix=1.0,
        ema=0.9998,
    )


_BASES = {"original": _original, "finetune": _finetune, "modern": _modern}


def _is_possible(value: object, hint: Any) -> bool:
    """Whether a value from a file fits the type of a field; a number must be at least 0 and below a billion."""
    if hint is bool:
        return isinstance(value, bool)
    if hint is int or hint is float:
        kinds = (int,) if hint is int else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool) and 0 <= value < 1e9  # false for nan
    if hint == tuple[int, ...]:
        return isinstance(value, tuple) and all(type(number) is int for number in value)
    return value in get_args(hint)


def _check(made: Recipe) -> None:
    if min(made.epochs, made.batch_size, made.accumulate) < 1 or min(made.lr, made.classifier_lr) <= 0:
        raise TrainingError("--n-epochs, --batch-size, --accumulate and learning rates must be above 0")
    if made.warmup_epochs >= max(1, made.epochs):
        raise TrainingError(
            f"a warm-up of {made.warmup_epochs:g} epochs leaves none of the {made.epochs}; lower --warmup-epochs"
        )
    if made.mixup + made.cutmix > 0 and made.batch_size < 2:
        raise TrainingError("mixup and CutMix mix the images of a batch with each other; give --batch-size 2 or more")


def recipe_line(made: Recipe, origin: str = "") -> str:
    """One line for the user: the recipe in use, why it is this one (`origin`), and the names of the others."""
    parts = [
        counted(made.epochs, "epoch"),
        f"batches of {made.batch_size}" + (f" x {made.accumulate}" if made.accumulate > 1 else ""),
        f"learning rate {made.lr:g}" + (f", classifier {made.classifier_lr:g}" * (made.classifier_lr != made.lr)),
        f"{made.lr_schedule} schedule" + (f" after {made.warmup_epochs:g} of warm-up" if made.warmup_epochs else ""),
        f"weight decay {made.weight_decay:g}" + ("" if made.decay_norm else " except on batch norms and biases"),
        f"{made.augmentation} augmentation",
    ]
    extras = ("label_smoothing", "mixup", "cutmix", "ema", "freeze", "freeze_bn", "early_stop")
    parts += [f"{name.replace('_', ' ')} {getattr(made, name):g}" for name in extras if getattr(made, name)]
    others = " or ".join(name for name in _BASES if name != made.name)
    return f"Recipe {made.name}{origin}: {', '.join(parts)} (--recipe {others} for another)"


def lr_factor(made: Recipe, epochs_done: float) -> float:
    """The factor of the learning rates after `epochs_done` epochs, which need not be a whole number.

    step: divided by 10 at each epoch of `steps`. cosine: from 1 to 0 over the epochs after the warm-up, during which
    the factor rises linearly. Source of the step schedule: Trainer:learningRate in train.lua.
    """
    if epochs_done < made.warmup_epochs:
        return max(epochs_done, 1e-3 * made.warmup_epochs) / made.warmup_epochs
    if made.lr_schedule == "step":
        return float(0.1 ** sum(int(epochs_done) + 1 >= epoch for epoch in made.steps))
    share = (epochs_done - made.warmup_epochs) / max(1e-9, made.epochs - made.warmup_epochs)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
