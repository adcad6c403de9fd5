"""A folder with train/ and val/, each with a folder of images for every class -> `Samples`.

Classes are the folders in train/, in byte order of their names: the first is the net's first output, as in the
original. Hidden folders and stray files do not count. Subfolders of a class are searched too, links are followed, and
images are in byte order. val/ may lack classes of train/, not the reverse.

Source: fb.resnet.torch 985e569, datasets/imagenet-gen.lua.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Sequence

from resnet_tools.data.files import NO_IMAGES, images_below, skipped_text, subfolders
from resnet_tools.data.samples import Samples
from resnet_tools.errors import DataError

SPLITS = ("train", "val")
LAYOUT = "expected PATH/train/CLASS/IMAGE and PATH/val/CLASS/IMAGE"
OTHER_NAMES = {"train": ("training",), "val": ("valid", "validation", "test", "testing")}
SHOWN = 5  # names in a message


def find_folder(path: str, split: str, class_names: Sequence[str] | None = None) -> Samples:
    """The images below PATH/SPLIT and their classes, numbered as in `class_names` (as in train/ if None).

    Warns of classes without images in val/. Raises: DataError saying what is missing and what was found instead.
    """
    if class_names is None:
        class_names = find_classes(path)
    folder = _split_folder(path, split)
    try:
        found = {_name(inside): inside for inside in subfolders(folder)}
        skipped: Counter[str] = Counter()
        images = [images_below(found[name], skipped) if name in found else [] for name in class_names]
    except OSError as error:
        raise DataError(f"{error.filename}: {error.strerror}") from error
    _check_names(folder, set(found), class_names)
    empty = [name for name, paths in zip(class_names, images, strict=True) if not paths]
    if len(empty) == len(class_names):
        raise DataError(f"{folder}: {NO_IMAGES}; {LAYOUT}.{skipped_text(skipped, ' Left out: ')}")
    if empty and split == "train":
        raise DataError(f"{folder}: without an image: {listed(empty)}; add images, or remove the empty folders")
    if empty:
        warnings.warn(f"{folder}: of {len(class_names)} classes, without an image here: {listed(empty)}", stacklevel=2)
    if skipped:
        warnings.warn(skipped_text(skipped, f"{folder}: left out: "), stacklevel=2)
    targets = [target for target, paths in enumerate(images) for _ in paths]
    return Samples([path for paths in images for path in paths], targets, list(class_names))


def find_classes(path: str) -> list[str]:
    """The class names: the folders in PATH/train, in byte order. Raises: DataError."""
    folder = _split_folder(path, "train")
    try:
        names = sorted(map(_name, subfolders(folder)), key=os.fsencode)
    except OSError as error:
        raise DataError(f"{error.filename}: {error.strerror}") from error
    if not names:
        raise DataError(f"{folder}: holds no folders, one for each class; {LAYOUT}. {_content(folder)}")
    return names


def _split_folder(path: str, split: str) -> str:
    folder = os.path.join(path, split)
    if os.path.isdir(folder):
        return folder
    if not os.path.isdir(path):
        found = "it is a file" if os.path.exists(path) else "there is nothing of this name"
        raise DataError(f"{path}: expected the folder of a data set, but {found}; {LAYOUT}")
    for name in OTHER_NAMES.get(split, ()):
        if os.path.isdir(os.path.join(path, name)):
            raise DataError(f"{path}: {split}/ is missing; {LAYOUT}. There is {name}/: rename it to {split}")
    raise DataError(f"{path}: {split}/ is missing; {LAYOUT}. {_content(path)}")


def _content(folder: str) -> str:
    """What a folder holds instead, in a sentence."""
    names = sorted(map(_name, subfolders(folder)), key=os.fsencode)
    if names:
        return f"Found the folders {listed(names)}"
    files = sum(not name.startswith(".") for name in os.listdir(folder))
    return f"Found {files} files and no folders" if files else "Found nothing in it"


def _check_names(folder: str, found: set[str], class_names: Sequence[str]) -> None:
    unknown = sorted(found.difference(class_names), key=os.fsencode)
    if unknown:
        raise DataError(
            f"{folder}: of unknown classes: {listed(unknown)}; train/ has {len(class_names)}: {listed(class_names)}. "
            "Add them to train/, or remove them here"
        )


def listed(names: Sequence[str]) -> str:
    """The first of the names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _name(path: str) -> str:
    return os.path.basename(path)
