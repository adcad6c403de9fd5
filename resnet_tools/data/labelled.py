"""A folder with class directories, or images with a file of labels -> samples in the numbering of a net's outputs.

The net's classes decide: directories (or the classes in a file of labels) are matched to their names; for nets of
ImageNet's 1000 classes also by WordNet id, as the outputs are in the order of the sorted ids. If nothing names the
outputs, the directory names in byte order are the classes, as in the original: those of `train/` beside `val/` if it
is there, else those of the folder itself, if there is one for each output.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from resnet_tools.data.files import images_below, skipped_text, subfolders
from resnet_tools.data.folder import SPLITS, find_part
from resnet_tools.data.label_files import labelled_files, read_synsets
from resnet_tools.data.label_rows import WORDNET_ID, is_number
from resnet_tools.data.labels import imagenet_labels, output_names
from resnet_tools.data.samples import Samples
from resnet_tools.data.splits import read_split
from resnet_tools.errors import DataError, Note
from resnet_tools.text import counted, listed

SPLIT = "val"


@dataclass(frozen=True)
class Outputs:
    """The outputs of a net: how many, and their names in order if the checkpoint or the user gives them."""

    count: int
    names: Sequence[str] | None = None
    source: Path | None = None  # the file of the names


def labelled_samples(
    folder: Path,
    outputs: Outputs,
    *,
    split: str | None = None,
    labels: Path | None = None,
    synsets: Path | None = None,
    stored: Path | None = None,
) -> Samples:
    """The images of `folder`, or of its part `split` (`val` if it is there), with the net's output of their class.

    stored: a `split.csv`; the part is its, if `folder` is not divided itself and most of its images are there.
    labels: a file, see `label_files`; without it the classes are the directories. In byte order of path, or as listed.
    synsets: a file of all WordNet ids in the order of the numbers in `labels`.
    Raises: DataError that names the folder and the classes that do not fit. Warns of classes without images.
    """
    rows = _stored_part(folder, split, stored) if stored and not labels else None
    if rows is not None:
        class_names = sorted({label for _, label in rows}, key=os.fsencode)
        numbers, names = _numbered(class_names, outputs, [], folder)
        return Samples([path for path, _ in rows], [numbers[label] for _, label in rows], names)
    part = _part(folder, split)
    trained = _trained(part) if part != folder or part.name == SPLIT else []
    ids = read_synsets(synsets) if synsets else None
    pairs = labelled_files(part, folder, labels, ids) if labels else _in_directories(part)
    if not pairs:
        raise DataError(f"{labels or part}: holds no images")
    found = sorted({label for _, label in pairs}, key=os.fsencode) if labels else _directories(part)
    numbers, names = _numbered(found, outputs, sorted(ids) if ids else trained, labels or part)
    return Samples([path for path, _ in pairs], [numbers[label] for _, label in pairs], names)


def numbered_samples(samples: Samples, outputs: Outputs, where: str) -> Samples:
    """The same images with the net's output of their class, matched by name as those of folders.

    where: what the data set is called in messages. Raises: DataError that names the classes that do not fit.
    """
    found = list(samples.class_names)
    numbers, names = _numbered(found, outputs, found if outputs.names is None else [], Path(where))
    return Samples(samples.images, [numbers[found[target]] for target in samples.targets], names)


def _stored_part(folder: Path, split: str | None, stored: Path) -> list[tuple[str, str]] | None:
    """Path and class of the images of a part in `split.csv`; None if the folder has such a part, or other images."""
    part = split or SPLIT
    if part not in SPLITS or find_part(os.fspath(folder), part):
        return None
    rows = read_split(stored)
    chosen = [(os.path.join(folder, row.path), row.class_name) for row in rows if row.split == part]
    found = [(path, label) for path, label in chosen if os.path.lexists(path)]
    if 2 * len(found) <= len(chosen):
        return None
    gone = [path for path, _ in chosen if not os.path.lexists(path)]
    if gone:
        are = "is" if len(gone) == 1 else "are"
        warnings.warn(
            f"{counted(len(gone), 'image')} of {stored} {are} not there any more: {listed(gone)}", stacklevel=3
        )
    images = counted(len(found), "image")
    warnings.warn(f"{folder}: only the {images} of {part} in {stored}; --split . takes all", Note, stacklevel=3)
    return found


def _part(folder: Path, split: str | None) -> Path:
    part = folder / (split or SPLIT)
    if part.is_dir():
        return part
    spelt = find_part(os.fspath(folder), split or SPLIT)
    if spelt is not None:
        return Path(spelt)
    if split is not None or find_part(os.fspath(folder), "train"):
        raise DataError(f"{part}: no such folder; --split says which part of {folder} is evaluated")
    return folder


def _trained(part: Path) -> list[str]:
    """The class directories of train/ beside a part of a data set."""
    beside = part.parent / "train"
    return _directories(beside) if part.name != beside.name and beside.is_dir() else []


def _directories(folder: Path) -> list[str]:
    """The names of the class directories in byte order, as the original sorts them; hidden ones do not count."""
    return sorted(map(os.path.basename, subfolders(os.fspath(folder))), key=os.fsencode)


def _in_directories(folder: Path) -> list[tuple[str, str]]:
    names = _directories(folder)
    if not names:
        raise DataError(
            f"{folder}: has no class folders; expected one for each class, or images with a list of their classes "
            "(--labels FILE with lines of `path,class`)"
        )
    skipped: Counter[str] = Counter()
    found = [(path, name) for name in names for path in images_below(os.fspath(folder / name), skipped)]
    if skipped:
        warnings.warn(skipped_text(skipped, f"{folder}: left out: "), stacklevel=2)
    return found


def _numbered(
    found: Sequence[str], outputs: Outputs, trained: Sequence[str], where: Path
) -> tuple[dict[str, int], list[str]]:
    """The output of each class that was found, and the names of all outputs."""
    # From the surest evidence to the weakest: names, WordNet ids, numbers; only then the byte order of folders.
    names = output_names(outputs.names, outputs.count, outputs.source)
    by_name = _by_name(names, found)
    if len(by_name) == len(found):
        _warn_of_missing(names, set(by_name.values()), where)
        return by_name, names
    is_imagenet = outputs.count == len(imagenet_labels()) and tuple(names) == imagenet_labels()
    if is_imagenet and all(WORDNET_ID.fullmatch(name) for name in found):
        return _by_place(found, _wordnet_ids(found, trained, where), where), names
    if where.is_file() and all(map(is_number, found)):
        return _by_number(found, outputs.count, where), names
    if outputs.names is not None:
        raise DataError(_mismatch(found, names, by_name, where))
    class_names = _sorted_classes(found, outputs.count, trained, where)
    return _by_place(found, class_names, where), [*class_names, *names[len(class_names) :]]


def _by_name(names: Sequence[str], found: Sequence[str]) -> dict[str, int]:
    """The outputs of those that name one output alone, in full or by the WordNet id that the name begins with."""
    places: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        wordnet = WORDNET_ID.match(name)
        for key in {name, wordnet[0]} if wordnet else {name}:
            places.setdefault(key, []).append(number)
    return {name: places[name][0] for name in found if len(places.get(name, ())) == 1}


def _by_place(found: Sequence[str], class_names: Sequence[str], where: Path) -> dict[str, int]:
    places = {name: number for number, name in enumerate(class_names)}
    unknown = [name for name in found if name not in places]
    if unknown:
        raise DataError(f"{where}: the classes {listed(unknown)} are not among those of train/ or --synsets")
    return {name: places[name] for name in found}


def _by_number(found: Sequence[str], count: int, where: Path) -> dict[str, int]:
    numbers = {name: int(name) for name in found}
    if max(numbers.values()) >= count:
        raise DataError(
            f"{where}: the class numbers are {min(numbers.values())} to {max(numbers.values())}; expected 0 to "
            f"{count - 1}, the net's outputs counted from 0 (for ImageNet in the order of the sorted WordNet ids)"
        )
    warnings.warn(f"{where}: class numbers are taken as the net's outputs, counted from 0", stacklevel=4)
    return numbers


def _wordnet_ids(found: Sequence[str], trained: Sequence[str], where: Path) -> Sequence[str]:
    """All 1000 ids, sorted: only their order says which output an id is."""
    ids = trained or found
    if len(ids) != len(imagenet_labels()) or not all(WORDNET_ID.fullmatch(name) for name in ids):
        raise DataError(
            f"{where}: has {len(found)} WordNet ids; which of the 1000 outputs they are is known from all 1000 only: "
            "give --synsets FILE with one id per line, or have train/ with a folder for each beside it"
        )
    return ids


def _sorted_classes(found: Sequence[str], count: int, trained: Sequence[str], where: Path) -> Sequence[str]:
    """The classes of a net that has no names: the sorted directories that it was trained on, as in the original."""
    if trained and len(trained) <= count:
        if len(trained) < count:
            warnings.warn(
                f"train/ has {counted(len(trained), 'class')}; the net has {counted(count, 'output')}", stacklevel=5
            )
        return trained
    if len(found) == count:
        return found
    raise DataError(
        f"{where}: has {counted(len(found), 'class')} ({listed(found)}), "
        f"the net has {counted(count, 'output')} without names. Give "
        "--class-names FILE with one name per line in the order of the outputs, or put it beside the model as "
        "NAME.classes.txt"
    )


def _mismatch(found: Sequence[str], names: Sequence[str], matched: dict[str, int], where: Path) -> str:
    unknown = [name for name in found if name not in matched]
    unused = [name for number, name in enumerate(names) if number not in matched.values()]
    rest = f"; without images are its classes {listed(unused)}" if unused else ""
    return f"{where}: {listed(unknown)} match no class of the net, or several{rest}"


def _warn_of_missing(names: Sequence[str], used: set[int], where: Path) -> None:
    unused = [name for number, name in enumerate(names) if number not in used]
    if unused:
        warnings.warn(
            f"{where}: {len(unused)} of the net's {len(names)} classes are not there: {listed(unused)}", stacklevel=4
        )
