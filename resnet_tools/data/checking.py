"""Training and validation samples -> what is wrong with them, before a net learns it.

Errors stop a training: no images, an unknown class, an image that cannot be read. One does not hide the others.
Warnings spoil its result: images that are in train and in val, classes of very different sizes or of few images, files
that are left out. Notes are worth knowing. Two images are the same if their files are, byte for byte.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from resnet_tools.data.findings import DataFindings, images_with_verb
from resnet_tools.data.image import image_head, load_image
from resnet_tools.data.loading import load_ahead
from resnet_tools.data.samples import LazyImage, Samples, Source
from resnet_tools.data.splits import file_digest
from resnet_tools.errors import ImageError
from resnet_tools.text import listed

Progress = Callable[[int, list[str]], None]  # of as many images more, and messages

MAX_IMBALANCE = 10
SMALL_PX = 32
MAX_COMPARED = 20_000  # files that the quick check reads


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
    _check_single(train, findings)
    _check_balance(findings)
    look = partial(_look, decode=decode)
    chosen = _same_sizes(train, val, findings) if not decode else (range(len(train)), range(len(val)))
    # All of train comes first, as each image of val is searched for in it; digests, not pixels, stay in memory.
    seen: dict[bytes, int] = {}
    seen_in_val: dict[bytes, int] = {}
    seen_targets: set[int] = set()
    for position, image in _looked(train, chosen[0], look, workers, findings, progress):
        seen_targets.add(train.targets[position])
        first = seen.setdefault(image.digest, position)
        if first != position:
            findings.repeated.append((train.name(position), train.name(first)))
            if train.targets[first] != train.targets[position]:
                names = f"{train.name(position)} and {train.name(first)}"
                findings.warnings.append(f"{names} are the same image in two classes")
    if decode:
        _check_unreadable(train, seen_targets, findings)
    for position, image in _looked(val, chosen[1], look, workers, findings, progress):
        first = seen_in_val.setdefault(image.digest, position)
        if val.targets[first] != val.targets[position]:
            names = f"{val.name(position)} and {val.name(first)}"
            findings.warnings.append(f"{names} are the same image in two classes")
        if image.digest in seen:
            findings.shared.append((val.name(position), train.name(seen[image.digest])))
    _summarise(findings)
    return findings


def _check_single(train: Samples, found: DataFindings) -> None:
    if len(found.class_names) == 1:
        found.warnings.append(
            f"there is one class only: {found.class_names[0]}; a net that knows no other gives it to every image"
            f"{_deeper(train)}"
        )


def _check_unreadable(train: Samples, readable: Set[int], found: DataFindings) -> None:
    """A class of which no image can be read is an output that a net never learns, and no error rate may tell."""
    broken = [train.class_names[target] for target in sorted(set(train.targets).difference(readable))]
    if broken:
        found.warnings.append(f"no training image can be read of: {listed(broken)}; a net does not learn such classes")


def _deeper(train: Samples) -> str:
    """Advice if all images of the single class lie in more than one folder, which may be the classes."""
    folders = {os.path.dirname(image) for image in train.images if isinstance(image, str)}
    if len(folders) < 2:
        return ""
    return f". If the folders in {os.path.commonpath(folders)} are the classes, give that as the folder"


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
            said = images_with_verb(pairs, f" of {part}", one, many)
            effect = ": the validation error will be too low" if part == "val/" else ""
            found.append(f"{said}{effect}: {listed([f'{first} = {second}' for first, second in pairs])}")
    if findings.small:
        said = images_with_verb(findings.small, "", "has a side", "have a side")
        enlarged = "is enlarged" if len(findings.small) == 1 else "are enlarged"
        findings.notes.append(f"{said} below {SMALL_PX} pixels and {enlarged}: {listed(findings.small)}")
    if findings.rotated:
        said = images_with_verb(findings.rotated, "", "has", "have")
        findings.notes.append(f"{said} an EXIF rotation, which --exif-orientation applies: {listed(findings.rotated)}")


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
    # Equal files have equal sizes, which the folder tells without reading. If too many are left, every second image of
    # val is tried, then every fourth: copies come by the hundred, and a part of them shows that they are there.
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
