"""The path of a data set -> its training and validation samples as far as they are there, and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from resnet_tools.data.datasets import packed_dataset, read_dataset
from resnet_tools.data.files import images_in
from resnet_tools.data.findings import DataFindings, images_with_verb
from resnet_tools.data.folder import (
    SPLITS,
    FolderContent,
    class_folders,
    find_any_part,
    find_layout,
    read_class_folders,
)
from resnet_tools.data.labels import cifar_labels
from resnet_tools.data.samples import Samples
from resnet_tools.data.splits import VAL_FRACTION, Splitting, split_samples
from resnet_tools.errors import DataError, ResnetToolsError
from resnet_tools.text import listed

FEW_IMAGES = 10


def find_splits(path: str) -> tuple[Samples, Samples, DataFindings]:
    """The samples of a folder, as far as they are there, and all that is wrong with their folders.

    A folder without val/ is split as `resnet train` splits it. Classes that only val/ has come after the others.
    CIFAR, and .t7 files like the original's cifar10.t7, are read as `resnet train --dataset` reads them.
    """
    found = DataFindings([], {})
    name = packed_dataset(path)
    if name is not None:
        return _packed(name, path, found)
    contents = _contents(path, found)
    is_to_split = set(contents) == {"train"} and not found.errors
    found.class_names = list(
        dict.fromkeys(
            name for content in contents.values() for name in (*content.samples.class_names, *content.unknown)
        )
    )
    train, val = (_all_samples(contents.get(split), found.class_names) for split in SPLITS)
    for content in contents.values():
        found.errors += content.errors
        found.warnings += content.warnings
        found.left_out += content.left_out
    if is_to_split:
        train, val = _divided(train, path, found)
    _check_sizes(train, val, found)
    return train, val, found


def _packed(name: str, path: str, found: DataFindings) -> tuple[Samples, Samples, DataFindings]:
    try:
        train, val = read_dataset(name, path)
        if len(train.class_names) == len(cifar_labels("cifar100")) and name != "cifar100":
            name = "cifar100"  # only the number of classes tells which of both a .t7 is
            train, val = read_dataset(name, path)
    except ResnetToolsError as error:
        found.errors.append(str(error))
        return Samples([], [], []), Samples([], [], []), found
    found.class_names = list(train.class_names)
    _check_sizes(train, val, found)
    without = [k for k in range(len(found.class_names)) if k not in set(train.targets)]
    if without:
        found.warnings.append(f"{path}: without a training image: {listed([found.class_names[k] for k in without])}")
    found.notes.append(f"`resnet train --dataset {name} --data {path}` trains on these images")
    return train, val, found


def _check_sizes(train: Samples, val: Samples, found: DataFindings) -> None:
    """Warn of classes with few images in train and val together."""
    images = Counter([*train.targets, *val.targets])
    few = [f"{name} ({images[k]})" for k, name in enumerate(found.class_names) if 0 < images[k] < FEW_IMAGES]
    if few:
        found.warnings.append(f"classes of fewer than {FEW_IMAGES} images: {listed(few)}; a net learns little of them")


def _contents(path: str, found: DataFindings) -> dict[str, FolderContent]:
    """What is in train/ and in val/, as far as they are there; all in `train` if it is to be split."""
    contents: dict[str, FolderContent] = {}
    try:
        layout = find_layout(path)
        folders = {"train": layout.train, "val": layout.val}
    except DataError as error:
        found.errors.append(str(error))
        folders = {split: find_any_part(path, split) for split in SPLITS}
    class_names: list[str] = []
    for split, folder in folders.items():
        if folder is None:
            continue
        try:
            class_names = class_names or class_folders(folder)
            contents[split] = read_class_folders(folder, class_names, split)
            _note_strays(folder, found)
        except (DataError, OSError) as error:
            found.errors.append(str(error))
    return contents


def _note_strays(folder: str, found: DataFindings) -> None:
    strays = images_in(folder)
    if strays:
        said = images_with_verb(strays, "", "is in no class folder and is", "are in no class folder and are")
        found.notes.append(f"{said} left out: {listed(strays)}")


def _all_samples(content: FolderContent | None, class_names: Sequence[str]) -> Samples:
    """The images of a folder, those of unknown classes too."""
    if content is None:
        return Samples([], [], class_names)
    images, targets = list(content.samples.images), list(content.samples.targets)
    for name, paths in content.unknown.items():
        images += paths
        targets += [class_names.index(name)] * len(paths)
    return Samples(images, targets, class_names)


def _divided(train: Samples, path: str, found: DataFindings) -> tuple[Samples, Samples]:
    try:
        train, val, _ = split_samples(train, path, Splitting())
    except DataError as error:
        found.errors.append(str(error))
        return train, Samples([], [], train.class_names)
    without = sorted(set(range(len(train.class_names))) - set(val.targets))
    if without:
        names = [train.class_names[target] for target in without]
        found.warnings.append(
            f"{path}: of {len(train.class_names)} classes, without a validation image: {listed(names)}"
        )
    found.notes.append(
        f"there are no validation images: `resnet train` takes {len(val)} of these (--val-fraction {VAL_FRACTION:g})"
    )
    return train, val
