"""Training and validation samples -> what is wrong with them, before a net learns it.

Errors stop a training: no images, an unknown class, an image that cannot be read. One does not hide the others.
Warnings spoil its result: images that are in train and in val, classes of very different sizes or of few images, files
that are left out. Notes are worth knowing. Two images are the same if their files are, byte for byte.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from resnet_tools.data.datasets import packed_dataset, read_dataset
from resnet_tools.data.files import images_in
from resnet_tools.data.findings import DataFindings, findings_text
from resnet_tools.data.folder import (
    SPLITS,
    FolderContent,
    class_folders,
    find_layout,
    find_part,
    listed,
    read_class_folders,
)
from resnet_tools.data.image import image_head, load_image
from resnet_tools.data.labels import cifar_labels
from resnet_tools.data.loading import load_ahead
from resnet_tools.data.samples import LazyImage, Samples, Source
from resnet_tools.data.splits import VAL_FRACTION, Splitting, file_digest, split_samples
from resnet_tools.errors import DataError, ImageError, ResnetToolsError

__all__ = ["DataFindings", "check_samples", "find_splits", "findings_text"]

Progress = Callable[[int, list[str]], None]  # of as many images more, and messages

MAX_IMBALANCE = 10
FEW_IMAGES = 10
SMALL_PX = 32
MAX_COMPARED = 20_000  # files that the quick check reads


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
    _check_sizes(Counter([*train.targets, *val.targets]), found)
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
    _check_sizes(Counter([*train.targets, *val.targets]), found)
    without = [k for k in range(len(found.class_names)) if k not in set(train.targets)]
    if without:
        found.warnings.append(f"{path}: without a training image: {listed([found.class_names[k] for k in without])}")
    found.notes.append(f"`resnet train --dataset {name} --data {path}` trains on these images")
    return train, val, found


def _check_sizes(images: Counter[int], found: DataFindings) -> None:
    """Warn of a single class, and of classes with few images; `images`: class -> how many in train and val."""
    if len(found.class_names) == 1:
        found.warnings.append(
            f"there is one class only: {found.class_names[0]}; a net that knows no other gives it to every image"
        )
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
        folders = {split: find_part(path, split) for split in SPLITS} if os.path.isdir(path) else {}
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
        said = _counted(strays, "", "is in no class folder and is", "are in no class folder and are")
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


def check_samples(
    train: Samples,
    val: Samples,
    *,
    decode: bool = True,
    workers: int = 2,
    progress: Progress | None = None,
    found: DataFindings | None = None,
) -> DataFindings:
    """What is wrong with the samples, after what was `found` before. workers: threads.

    Without `decode` images are not decoded, and only files of the same size in train and val are read, at most some
    20,000: enough to be quick with a million files.
    """
    counts = {
        split: np.bincount(np.asarray(samples.targets, int), minlength=len(samples.class_names)).tolist()
        for split, samples in (("train", train), ("val", val))
    }
    findings = DataFindings(list(train.class_names), counts)
    if found:
        for name in ("errors", "warnings", "notes", "left_out"):
            getattr(findings, name).extend(getattr(found, name))
    _check_balance(findings)
    look = partial(_look, decode=decode)
    chosen = _same_sizes(train, val, findings) if not decode else (range(len(train)), range(len(val)))
    seen: dict[bytes, int] = {}
    seen_in_val: dict[bytes, int] = {}
    for position, image in _looked(train, chosen[0], look, workers, findings, progress):
        first = seen.setdefault(image.digest, position)
        if first != position:
            findings.repeated.append((train.name(position), train.name(first)))
            if train.targets[first] != train.targets[position]:
                names = f"{train.name(position)} and {train.name(first)}"
                findings.warnings.append(f"{names} are the same image in two classes")
    for position, image in _looked(val, chosen[1], look, workers, findings, progress):
        first = seen_in_val.setdefault(image.digest, position)
        if val.targets[first] != val.targets[position]:
            names = f"{val.name(position)} and {val.name(first)}"
            findings.warnings.append(f"{names} are the same image in two classes")
        if image.digest in seen:
            findings.shared.append((val.name(position), train.name(seen[image.digest])))
    _summarise(findings)
    return findings


def _check_balance(findings: DataFindings) -> None:
    pairs = [(count, name) for name, count in zip(findings.class_names, findings.counts["train"], strict=True) if count]
    if pairs and max(pairs)[0] > MAX_IMBALANCE * min(pairs)[0]:
        (most, largest), (fewest, smallest) = max(pairs), min(pairs)
        findings.warnings.append(
            f"classes of very different sizes: {most} training images of {largest}, {fewest} of {smallest}; "
            "a net learns to prefer the large ones"
        )


def _summarise(findings: DataFindings) -> None:
    for pairs, found, part, one, many in (
        (findings.shared, findings.warnings, "val/", "is also in train/", "are also in train/"),
        (findings.repeated, findings.notes, "train/", "occurs more than once", "occur more than once"),
    ):
        if pairs:
            said = _counted(pairs, f" of {part}", one, many)
            effect = ": the validation error will be too low" if part == "val/" else ""
            found.append(f"{said}{effect}: {listed([f'{first} = {second}' for first, second in pairs])}")
    if findings.small:
        said = _counted(findings.small, "", "has a side", "have a side")
        enlarged = "is enlarged" if len(findings.small) == 1 else "are enlarged"
        findings.notes.append(f"{said} below {SMALL_PX} pixels and {enlarged}: {listed(findings.small)}")
    if findings.rotated:
        said = _counted(findings.rotated, "", "has", "have")
        findings.notes.append(f"{said} an EXIF rotation, which --exif-orientation applies: {listed(findings.rotated)}")


def _counted(found: Sequence[object], which: str, one: str, many: str) -> str:
    return f"1 image{which} {one}" if len(found) == 1 else f"{len(found)} images{which} {many}"


@dataclass(frozen=True)
class Look:
    digest: bytes
    side_px: int  # the shorter one
    rotated: bool = False


def _looked(
    samples: Samples,
    positions: Sequence[int],
    look: Callable[[Source], Look],
    workers: int,
    findings: DataFindings,
    progress: Progress | None,
) -> Iterable[tuple[int, Look]]:
    """The images at the positions that can be read; the others become errors, small ones are noted."""
    images = samples.images
    for position, image in load_ahead(positions, lambda k: look(images[k]), workers=workers, ahead=4 * workers):
        if isinstance(image, ImageError):
            findings.errors.append(str(image))
        else:
            if image.side_px < SMALL_PX:
                findings.small.append(samples.name(position))
            if image.rotated:
                findings.rotated.append(samples.name(position))
            yield position, image
        if progress:
            progress(1, [])


def _look(source: Source, *, decode: bool) -> Look:
    """Raises ImageError."""
    image = source.load() if isinstance(source, LazyImage) else source
    if isinstance(image, np.ndarray):
        return Look(hashlib.blake2b(image.tobytes(), digest_size=16).digest(), min(image.shape[:2]))
    side_px = min(load_image(image).shape[:2]) if decode else SMALL_PX
    try:
        return Look(file_digest(image), side_px, decode and _is_rotated(image))
    except OSError as error:
        raise ImageError(f"{image}: {error.strerror}") from error


def _is_rotated(path: str) -> bool:
    head = image_head(path)
    return head is not None and head[2] != 1


def _same_sizes(train: Samples, val: Samples, findings: DataFindings) -> tuple[Sequence[int], Sequence[int]]:
    """The positions in train and in val of files that have as many bytes as one in the other; of many, a part."""
    if isinstance(train.images, np.ndarray) or isinstance(val.images, np.ndarray):
        return range(len(train)), range(len(val))
    if isinstance(train.images[0], LazyImage):  # to compare them all would be to load them all
        return range(0), range(0)
    train_sizes, val_sizes = _sizes(train, findings), _sizes(val, findings)
    step = 1
    while True:
        in_val = np.arange(0, len(val_sizes), step)
        in_val = in_val[np.isin(val_sizes[in_val], train_sizes[train_sizes >= 0])]
        in_train = np.flatnonzero(np.isin(train_sizes, val_sizes[in_val]))
        if len(in_val) + len(in_train) <= MAX_COMPARED or step > len(val_sizes):
            break
        step *= 2
    if step > 1:
        findings.notes.append(
            f"only one in {step} images of val/ was searched for in train/; `resnet check-data` compares all"
        )
    return in_train.tolist(), in_val.tolist()


def _sizes(samples: Samples, findings: DataFindings) -> NDArray[np.int64]:
    """The size of each file in bytes; -1, and an error among the findings, where there is no file."""
    sizes = np.full(len(samples), -1, np.int64)
    for position, path in enumerate(samples.images):
        try:
            sizes[position] = os.stat(path).st_size
        except OSError as error:
            findings.errors.append(f"{path}: {error.strerror}")
    return sizes
