"""Name and path of a data set -> its training and validation samples.

`imagenet` is any folder of class folders, with train/ and val/ or to be split, or lists of images. `cifar10` and
`cifar100` are the published files, or the `cifar10.t7` that the original made of them: a table of train and val, each
of data (N x 3 x 32 x 32 bytes) and labels from 1. Such a table may also hold images of another side, gray ones, other
numbers of classes, and labels from 0.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnet_tools.data.cifar import FORMS, checked_batch, holds_cifar, joined_samples, read_cifar
from resnet_tools.data.custom import is_custom, read_custom
from resnet_tools.data.folder import (
    checked_samples,
    class_folders,
    find_classes,
    find_folder,
    find_layout,
    read_class_folders,
)
from resnet_tools.data.image import image_head
from resnet_tools.data.label_files import labelled_files
from resnet_tools.data.label_rows import is_number
from resnet_tools.data.labels import cifar_labels
from resnet_tools.data.samples import Samples
from resnet_tools.data.splits import SplitRow, Splitting, split_samples
from resnet_tools.errors import DataError
from resnet_tools.text import counted, listed
from resnet_tools.torch7.lua import LuaTable
from resnet_tools.torch7.t7 import read_t7

DATASETS = ("imagenet", "cifar10", "cifar100")
SMALL_PX, LOOKED_AT = 64, 100
SplitData = tuple[Samples, Samples, list[SplitRow] | None]  # training, validation, and the split if it was made here


def read_dataset(name: str, path: str) -> tuple[Samples, Samples]:
    """Training and validation samples of a data set that has both.

    Raises DataError, or T7Error, that says what is missing or damaged. Warns of classes without validation images.
    """
    if name == "imagenet":
        class_names = find_classes(path)
        return find_folder(path, "train", class_names), find_folder(path, "val", class_names)
    if name not in FORMS:
        raise DataError(f"unknown data set {name!r}; expected one of {', '.join(DATASETS)}")
    cache = path if path.lower().endswith(".t7") else os.path.join(path, f"{name}.t7")
    return _read_cache(name, cache) if os.path.isfile(cache) else read_cifar(name, path)


def packed_dataset(path: str) -> str | None:
    """The name of the data set whose files, not class folders, are at PATH; None if there are none."""
    if os.path.isfile(path) and path.lower().endswith(".t7"):
        return "cifar10"
    for name in FORMS:
        if os.path.isfile(os.path.join(path, f"{name}.t7")) or holds_cifar(name, path):
            return name
    return None


def dataset_kind(name: str) -> str:
    """The data set whose recipes and preprocessing fit: that of a data set in Python is `imagenet`."""
    return "imagenet" if is_custom(name) else name


def read_split_dataset(
    name: str,
    path: str,
    splitting: Splitting,
    train_list: Path | None = None,
    val_list: Path | None = None,
) -> SplitData:
    """Training and validation samples; where a data set has no validation images of its own, they are split off.

    train_list, val_list: files of `path,class` lines in place of folders, see `label_files`.
    Raises and warns as `read_dataset`.
    """
    if is_custom(name):
        if splitting.fraction is not None or train_list is not None or val_list is not None:
            raise DataError(f"--dataset {name} says itself what is for validation; leave out lists and --val-fraction")
        return *read_custom(name, path), None
    if train_list is not None or val_list is not None:
        return _read_lists(name, path, splitting, train_list, val_list)
    if name != "imagenet":
        if splitting.fraction is not None:
            raise DataError(f"--val-fraction: {name} has validation images of its own; leave it out")
        return *read_dataset(name, path), None
    layout = find_layout(path, must_split=splitting.fraction is not None)
    class_names = class_folders(layout.train)
    train = checked_samples(read_class_folders(layout.train, class_names, "train"))
    if layout.val is None:
        return split_samples(train, path, splitting)
    return train, checked_samples(read_class_folders(layout.val, class_names, "val")), None


def mostly_small(samples: Samples) -> bool:
    """Whether most images, of a hundred that are looked at, are 64 pixels or smaller; of files the heads are read."""
    sides = []
    for k in range(0, len(samples), -(-len(samples) // LOOKED_AT)):
        image = samples.images[k]
        shape = image_head(image) if isinstance(image, str) else getattr(image, "shape", None)
        sides += [int(max(shape[:2]))] if shape else []
    return sum(side <= SMALL_PX for side in sides) > len(sides) / 2


def _read_lists(
    name: str, path: str, splitting: Splitting, train_list: Path | None, val_list: Path | None
) -> SplitData:
    if name != "imagenet" or train_list is None:
        problem = "is given without --train-list" if train_list is None else f"does not go with --dataset {name}"
        raise DataError(f"{'--val-list' if train_list is None else '--train-list'} {problem}")
    if val_list is not None and splitting.fraction is not None:
        raise DataError("--val-fraction splits off validation images, but --val-list names some; give one of them")
    pairs = _listed_images(path, train_list)
    class_names = sorted_classes({label for _, label in pairs})
    train = _numbered(pairs, class_names, train_list)
    if val_list is None:
        return split_samples(train, path, splitting)
    return train, _numbered(_listed_images(path, val_list), class_names, val_list), None


def _listed_images(path: str, file: Path) -> list[tuple[str, str]]:
    if not os.path.isdir(path):
        raise DataError(f"{path}: no such folder; the paths in {file} count from --data")
    return labelled_files(Path(path), Path(path), file, None)


def sorted_classes(names: Collection[str]) -> list[str]:
    """Class names in byte order, as those of folders; numbers in the order of their values."""
    return sorted(names, key=int) if all(map(is_number, names)) else sorted(names, key=os.fsencode)


def _numbered(pairs: Sequence[tuple[str, str]], class_names: Sequence[str], file: Path) -> Samples:
    numbers = {name: number for number, name in enumerate(class_names)}
    unknown = sorted({label for _, label in pairs}.difference(numbers), key=os.fsencode)
    if unknown:
        raise DataError(
            f"{file}: of unknown classes: {listed(unknown)}; --train-list has {len(class_names)}: {listed(class_names)}"
        )
    return Samples([path for path, _ in pairs], [numbers[label] for _, label in pairs], class_names)


def _read_cache(name: str, path: str) -> tuple[Samples, Samples]:
    table = read_t7(path)
    parts = {split: _part(table, split, path) for split in ("train", "val")}
    try:
        first, class_names = _classes(name, [labels for _, labels in parts.values()], parts["train"][0].shape)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    splits = []
    for split, (data, labels) in parts.items():
        try:
            numbers = [label - first for label in labels]
            splits.append(joined_samples([checked_batch(data, numbers, len(class_names))], class_names))
        except ValueError as error:
            raise DataError(f"{path}: {split}: {error}, counted from {first}") from error
    return splits[0], splits[1]


def _part(table: Any, split: str, path: str) -> tuple[NDArray[Any], list[int]]:
    """The images and labels of a split as they are in the file, gray images copied to three channels."""
    part = table.get(split) if isinstance(table, LuaTable) else None
    data, labels = (part.get(key) if isinstance(part, LuaTable) else None for key in ("data", "labels"))
    if not isinstance(data, np.ndarray) or not isinstance(labels, np.ndarray):
        raise DataError(
            f"{path}: {split} holds no data and labels; expected a table of train and val, each of data and labels, as "
            "the original wrote"
        )
    data = np.asarray(data)
    gray = data.ndim == 4 and data.shape[1] == 1
    if data.dtype != np.uint8 or data.ndim != 4 or data.shape[1] not in (1, 3) or data.size == 0:
        raise DataError(f"{path}: {split}: expected images as bytes, N x 3 x H x W, found {data.dtype} {data.shape}")
    numbers = np.asarray(labels, np.float64).ravel()
    if not np.array_equal(numbers, numbers.round()) or not (np.abs(numbers) < 1e6).all():
        raise DataError(f"{path}: {split}: expected whole numbers as labels, found {numbers[:5].tolist()}, ...")
    if len(numbers) != len(data):
        raise DataError(
            f"{path}: {split}: has {counted(len(data), 'image')} and {counted(len(numbers), 'label')}; "
            "expected one for each"
        )
    return np.repeat(data, 3, 1) if gray else data, numbers.astype(np.int64).tolist()


def _classes(name: str, labels: Sequence[Sequence[int]], shape: tuple[int, ...]) -> tuple[int, Sequence[str]]:
    """The number that the labels count from, and the names of the classes: CIFAR's own, or numbers.

    Raises: ValueError if they are no labels of CIFAR, and not all of 0..K-1 or 1..K.
    """
    found = sorted({label for split in labels for label in split})
    names = cifar_labels(name)
    first = 0 if found[:1] == [0] else 1
    if shape[2:] == (32, 32) and found and first <= found[0] and found[-1] - first < len(names):
        return first, names  # a part of CIFAR need not have all classes
    if found != list(range(first, first + len(found))):
        raise ValueError(
            f"the labels are {found[0]} to {found[-1]}, {len(found)} different ones; expected 1 to {len(names)} or "
            f"0 to {len(names) - 1}, or for other classes every number from 1, or from 0, to the last"
        )
    return first, [f"class {number}" for number in range(1, len(found) + 1)]
