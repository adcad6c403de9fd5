"""The name and the place of a data set -> its training and validation samples."""

from __future__ import annotations

from resnet_tools.data.folder import find_classes, find_folder
from resnet_tools.data.samples import Samples
from resnet_tools.errors import DataError

DATASETS = ("imagenet", "cifar10", "cifar100")


def read_dataset(name: str, path: str) -> tuple[Samples, Samples]:
    """Training and validation samples. `imagenet` is any folder with train/ and val/.

    Raises DataError that says what is missing or damaged. Warns of classes without validation images.
    """
    if name == "imagenet":
        return read_folders(path)
    raise DataError(f"unknown data set {name!r}; expected one of {', '.join(DATASETS)}")


def read_folders(path: str) -> tuple[Samples, Samples]:
    classes = find_classes(path)
    return find_folder(path, "train", classes), find_folder(path, "val", classes)
