"""A folder with a folder of images for every class -> `Samples`.

PATH/train/CLASS/IMAGE and PATH/val/CLASS/IMAGE, or PATH/CLASS/IMAGE, or PATH/train/CLASS/IMAGE alone: of the last two
somebody has to split validation images off. Classes are the folders in train/ (or PATH), in byte order of their names:
the first is the net's first output, as in the original. Hidden folders and stray files are none. Images are searched in
subfolders of a class too, links are followed, and their order is byte order. val/ may lack classes of train/, not the
reverse.

Source: fb.resnet.torch 985e569, datasets/imagenet-gen.lua.
"""

from __future__ import annotations

import os
import shlex
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from resnet_tools.data.files import NO_IMAGES, images_below, images_in, skipped_text, subfolders
from resnet_tools.data.samples import Samples
from resnet_tools.errors import DataError
from resnet_tools.text import counted, listed

SPLITS = ("train", "val")
LAYOUT = "expected PATH/train/CLASS/IMAGE and PATH/val/CLASS/IMAGE"
OTHER_NAMES = {"train": ("training",), "val": ("valid", "validation", "test", "testing")}
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")


@dataclass(frozen=True)
class Layout:
    """The folders that hold the class folders; `val` None: validation images are to be split off `train`."""

    train: str
    val: str | None


@dataclass
class FolderContent:
    """The images of the known classes, and all that is wrong. `unknown`: the images of each other class.

    `left_out`: the files that are left out because of their endings.
    """

    samples: Samples
    unknown: dict[str, list[str]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def find_layout(path: str, *, may_split: bool = True, must_split: bool = False) -> Layout:
    """Where the images for training and validation are.

    may_split: a folder with train/ alone, or of class folders, is complete, as validation images can be split off.
    must_split: that is what was asked for.
    Raises: DataError that says what is missing, and what was found instead.
    """
    train, val = find_part(path, "train"), find_part(path, "val")
    if train is not None and may_split and _is_class(path, train):
        return Layout(path, None)
    if must_split and train is not None and val is not None:
        raise DataError(f"{path}: --val-fraction is given, but there is {val}; leave it out, or give --data {train}")
    if not may_split or (train is not None and val is not None):
        return Layout(_split_folder(path, "train"), _split_folder(path, "val"))
    if train is not None:
        renamed = None if must_split else _other_part(path, "val")
        return Layout(train, None if renamed is None else _split_folder(path, "val"))
    is_flat = os.path.isdir(path) and _names(path) and not any(_other_part(path, split) for split in SPLITS)
    holds_val = val is not None and _names(val)
    return Layout(path if is_flat and not holds_val else _split_folder(path, "train"), None)


def find_any_part(path: str, split: str) -> str | None:
    """The path of PATH/train or PATH/val, also under another usual name, such as valid/; None if there is none."""
    part = find_part(path, split)
    other = _other_part(path, split) if part is None and os.path.isdir(path) else None
    return part if other is None else os.path.join(path, other)


def find_part(path: str, split: str) -> str | None:
    """The path of PATH/train or PATH/val, also if it is spelt Train or VAL; None if there is none."""
    folder = os.path.join(path, split)
    if os.path.isdir(folder):
        return folder
    names = _names(path) if os.path.isdir(path) else []
    return next((os.path.join(path, name) for name in names if name.lower() == split), None)


def _other_part(path: str, split: str) -> str | None:
    """The name of a folder of class folders that is called otherwise: `valid`, `test`, ... Classes may be called so."""
    known = {name.lower(): name for name in _names(path)}
    found = [known[name] for name in OTHER_NAMES[split] if name in known]
    return next((name for name in found if _names(os.path.join(path, name))), None)


def _is_class(path: str, train: str) -> bool:
    """Whether train/ is a folder of images of trains, beside those of cars and buses."""
    beside = [name for name in _names(path) if name.lower() not in SPLITS]
    return bool(beside) and not _names(train) and bool(images_below(train))


def find_folder(path: str, split: str, class_names: Sequence[str] | None = None) -> Samples:
    """The images below PATH/SPLIT and their classes, numbered as in `class_names` (as in train/ if None).

    Warns of classes without images in val/. Raises: DataError saying what is missing and what was found instead.
    """
    if class_names is None:
        class_names = find_classes(path)
    return checked_samples(read_class_folders(_split_folder(path, split), class_names, split))


def find_classes(path: str) -> list[str]:
    """The names of the classes: of the folders in PATH/train, in byte order. Raises DataError."""
    return class_folders(_split_folder(path, "train"))


def class_folders(folder: str) -> list[str]:
    """The names of the folders in a folder, in byte order. Raises DataError if there is none."""
    names = _names(folder)
    if not names:
        raise DataError(f"{folder}: holds no folders, one for each class; {LAYOUT}. {_content(folder)}")
    return names


def checked_samples(content: FolderContent) -> Samples:
    """The images of a folder that has no errors; warns of the rest. Raises: DataError with all errors."""
    if content.errors:
        raise DataError(*content.errors)
    for warning in content.warnings:
        warnings.warn(warning, stacklevel=3)
    return content.samples


def read_class_folders(folder: str, class_names: Sequence[str], split: str) -> FolderContent:
    """All images in the class folders of a folder, and what is wrong with it as a part of a data set.

    split: `train`, where every class has an image, or `val`, where some may have none. Raises: DataError if the folder
    itself cannot be read.
    """
    content, skipped = FolderContent(Samples([], [], list(class_names))), Counter[str]()
    images: dict[str, list[str]] = {name: [] for name in class_names}
    for name in _names(folder):
        try:
            images[name] = images_below(os.path.join(folder, name), skipped, content.left_out)
        except OSError as error:
            content.errors.append(f"{error.filename}: {error.strerror}")
    content.samples = Samples(
        [path for name in class_names for path in images[name]],
        [target for target, name in enumerate(class_names) for _ in images[name]],
        list(class_names),
    )
    content.unknown = {name: paths for name, paths in images.items() if name not in set(class_names)}
    if content.unknown:
        content.errors.append(_unknown_text(folder, list(content.unknown), class_names))
    left_out = skipped_text(skipped, "left out: ").removesuffix(".")
    left_out += f": {listed([os.path.relpath(path, folder) for path in content.left_out])}" if skipped else ""
    _check_empty(folder, [name for name in class_names if not images[name]], split, content, left_out)
    return content


def _check_empty(folder: str, empty: Sequence[str], split: str, content: FolderContent, left_out: str) -> None:
    """Add what there is to say of classes without images, and of the files that were left out."""
    classes = len(content.samples.class_names)
    if len(empty) == classes:
        content.errors.append(f"{folder}: {NO_IMAGES}; {LAYOUT}.{left_out and f' {left_out.capitalize()}'}")
    elif empty and split == "train":
        content.errors.append(f"{folder}: without an image: {listed(empty)}; add images, or remove the empty folders")
    elif empty:
        content.warnings.append(f"{folder}: of {classes} classes, without an image here: {listed(empty)}")
    if left_out and len(empty) < classes:
        content.warnings.append(f"{folder}: {left_out}")


def _split_folder(path: str, split: str) -> str:
    folder = find_part(path, split)
    if folder is not None:
        return folder
    if not os.path.isdir(path):
        is_archive = path.lower().endswith(ARCHIVES)
        found = (
            f"it is a file{' (unpack it first)' * is_archive}"
            if os.path.exists(path)
            else "there is nothing of this name"
        )
        raise DataError(f"{path}: expected the folder of a data set, but {found}; {LAYOUT}")
    other = _other_part(path, split)
    if other is not None:
        moved = f"mv {shlex.quote(os.path.join(path, other))} {shlex.quote(os.path.join(path, split))}"
        more = ", or give --val-fraction to split train/" if split == "val" else ""
        raise DataError(
            f"{path}: {split}/ is missing; {LAYOUT}. There is {other}/: rename it to {split} ({moved}){more}"
        )
    raise DataError(f"{path}: {split}/ is missing; {LAYOUT}, or PATH/CLASS/IMAGE. {_content(path)}")


def _content(folder: str) -> str:
    """What a folder holds instead, in a sentence."""
    names = _names(folder)
    if names:
        return f"Found the folders {listed(names)}"
    files = sum(not name.startswith(".") for name in os.listdir(folder))
    images = len(images_in(folder))
    lists = "; if a file lists the classes of these images, `resnet train` takes --train-list FILE" if images else ""
    return f"Found {counted(files, 'file')} and no folders{lists}" if files else "Found nothing in it"


def _unknown_text(folder: str, unknown: Sequence[str], class_names: Sequence[str]) -> str:
    return (
        f"{folder}: of unknown classes: {listed(unknown)}; train/ has {len(class_names)}: {listed(class_names)}. "
        "Add them to train/, or remove them here"
    )


def _names(folder: str) -> list[str]:
    """The names of the folders in a folder, in byte order. Raises: DataError."""
    try:
        return sorted(map(os.path.basename, subfolders(folder)), key=os.fsencode)
    except OSError as error:
        raise DataError(f"{error.filename}: {error.strerror}") from error
