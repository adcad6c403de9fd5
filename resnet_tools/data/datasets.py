"""The name and the place of a data set -> its training and validation samples.

`imagenet` is any folder with train/ and val/. `cifar10` and `cifar100` are the published files, or the `cifar10.t7`
that the original made of them: a table of train and val, each of data (N x 3 x 32 x 32 bytes) and labels from 1.
"""

from __future__ import annotations

import os

import numpy as np

from resnet_tools.data.cifar import FORMS, checked_batch, joined_samples, read_cifar
from resnet_tools.data.folder import find_classes, find_folder
from resnet_tools.data.labels import cifar_labels
from resnet_tools.data.samples import Samples
from resnet_tools.errors import DataError
from resnet_tools.torch7.lua import LuaTable
from resnet_tools.torch7.t7 import read_t7

DATASETS = ("imagenet", "cifar10", "cifar100")


def read_dataset(name: str, path: str) -> tuple[Samples, Samples]:
    """Training and validation samples.

    Raises DataError, or T7Error, that says what is missing or damaged. Warns of classes without validation images.
    """
    if name == "imagenet":
        class_names = find_classes(path)
        return find_folder(path, "train", class_names), find_folder(path, "val", class_names)
    if name not in FORMS:
        raise DataError(f"unknown data set {name!r}; expected one of {', '.join(DATASETS)}")
    cache = path if path.endswith(".t7") else os.path.join(path, f"{name}.t7")
    return _read_cache(name, cache) if os.path.isfile(cache) else read_cifar(name, path)


def _read_cache(name: str, path: str) -> tuple[Samples, Samples]:
    table = read_t7(path)
    splits = []
    for split in ("train", "val"):
        part = table.get(split) if isinstance(table, LuaTable) else None
        data, labels = (part.get(key) if isinstance(part, LuaTable) else None for key in ("data", "labels"))
        if not isinstance(data, np.ndarray) or not isinstance(labels, np.ndarray):
            raise DataError(
                f"{path}: expected a table of train and val, each of data and labels, as the original wrote"
            )
        class_names = cifar_labels(name)
        try:
            numbers = [int(label) - 1 for label in labels.ravel()]
            splits.append(joined_samples([checked_batch(np.asarray(data), numbers, len(class_names))], class_names))
        except ValueError as error:
            raise DataError(f"{path}: {split}: {error}, counted from 1") from error
    return splits[0], splits[1]
