"""The options of `resnet train`, with their types.

None stands for an option that was not given. Only `start` and `setup` read these; the rest of the training gets what
it uses. Nothing heavy is imported here, so that a wrong option is reported at once.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from resnet_tools.errors import OptionError
from resnet_tools.training.recipe import AugmentationName, Recipe, RecipeName, Schedule
from resnet_tools.training.run_files import DEFAULT_FOLDER, has_run

# A resumed run has these already.
NOT_WITH_RESUME = (
    "retrain", "weights", "reset_classifier", "classifier_only", "n_classes", "arch", "stem", "in_channels", "net_type",
    "depth", "shortcut_type", "optim_state", "val_fraction", "exif_orientation",
)  # fmt: skip
# A resumed run takes these from the `args.json` of its folder, unless they are given anew; see `arguments`. What it has
# computed with is in its checkpoint: net, recipe, data set, seed, preprocessing. What depends on the machine is asked
# anew: device, processes, workers, compiling.
RESUMED = (
    "data", "train_list", "val_list", "on_error", "check", "keep", "save_every", "ten_crop", "log_every", "report",
    "tensorboard", "cache", "precision", "cudnn", "checkpoint_activations", "sync_bn",
)  # fmt: skip


@dataclass(frozen=True)
class TrainOptions:
    """The fields are named as the options are; those of the recipe as the fields of `Recipe`."""

    # Data
    data: str
    dataset: str | None  # imagenet, cifar10, cifar100 or module:function
    val_fraction: float | None
    train_list: Path | None
    val_list: Path | None
    exif_orientation: bool | None
    resize_size: int | None
    crop_size: int | None
    on_error: Literal["fail", "skip"] | None
    check: bool
    # Model
    retrain: str | None
    weights: str | None
    reset_classifier: bool
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
    # Recipe
    recipe: RecipeName | None
    epochs: int | None
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
    augmentation: AugmentationName | None
    label_smoothing: float | None
    mixup: float | None
    cutmix: float | None
    ema: float | None
    early_stop: int | None
    # Run
    save: str | None
    resume: str | None
    overwrite: bool
    keep: int | None
    save_every: float | None
    optim_state: str | None
    manual_seed: int | None
    test_only: bool
    ten_crop: bool
    log_every: int | None
    report: bool | None
    tensorboard: bool
    quiet: bool
    # Speed
    device: str
    n_gpu: int
    workers: int | None
    cache: Path | None
    precision: Literal["single", "tf32", "double", "half", "bf16"] | None
    cudnn: Literal["fastest", "default", "deterministic"]
    compile: bool
    checkpoint_activations: bool
    sync_bn: bool

    @property
    def save_folder(self) -> Path:
        """Unless --save says otherwise, a resumed run continues in its own folder."""
        return Path(self.save or self.resume or DEFAULT_FOLDER)

    def continued(self) -> TrainOptions:
        """The same training after a restart of its processes: it resumes what it has saved, if anything."""
        if self.test_only or not has_run(self.save_folder):
            return self
        nothing: dict[str, Any] = dict.fromkeys(NOT_WITH_RESUME) | {"reset_classifier": False, "classifier_only": False}
        return replace(self, **nothing, epoch_number=1, resume=str(self.save_folder))

    def with_on_error(self, recipe: RecipeName) -> TrainOptions:
        """The same with a choice for images that cannot be read: a few broken ones among photos are left out, but the
        original stops, and an error rate that is asked for counts every image.
        """
        stops = recipe == "original" or self.test_only
        return self if self.on_error else replace(self, on_error="fail" if stops else "skip")

    def check_cache(self, recipe: RecipeName) -> None:
        """Raises: OptionError if this recipe cannot use --cache."""
        if self.cache is not None and recipe == "original" and not self.test_only:
            raise OptionError(
                "--cache trains on smaller copies of the images, but --recipe original on the images themselves, as in "
                "2016; leave --cache out, or give --recipe finetune or modern"
            )

    @property
    def chooses_net(self) -> bool:
        """Whether anything that was given says which net, or which size of images, it is to be."""
        given = (self.retrain, self.resume, self.arch, self.stem, self.depth, self.resize_size, self.crop_size)
        return any(given) or self.dataset not in (None, "imagenet")

    @property
    def recipe_changes(self) -> dict[str, Any]:
        """The fields of the recipe that were given."""
        own = {field.name for field in fields(self)}
        values = {field.name: getattr(self, field.name) for field in fields(Recipe) if field.name in own}
        return {name: value for name, value in values.items() if value is not None}
