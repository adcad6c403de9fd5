"""Images of one folder -> those to train on and those to validate on; and the file that keeps which is which.

A split depends only on the names, the classes and the contents of the images and on a seed, never on the order in which
they are found. `split.csv` has the columns path, class, split: a path relative to the folder of the data with `/`
between its parts, and `train` or `val`. Names that are not UTF-8 are in it as the bytes that they are.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from resnet_tools.data.samples import Samples
from resnet_tools.errors import DataError, ResnetToolsError
from resnet_tools.reading import hashed, read_bounded
from resnet_tools.text import counted, listed
from resnet_tools.writing import written_whole

SPLIT_FILE = "split.csv"
COLUMNS = ["path", "class", "split"]
VAL_FRACTION = 0.2
MAX_FILE_BYTES = 1 << 30
LAST_BYTES = 4096  # of compressed pixels, which differ even where the head of a file does not


@dataclass(frozen=True)
class Splitting:
    """How validation images are split off where a data set has none of its own.

    fraction: their part of each class; None: VAL_FRACTION, and a data set that has its own is no contradiction.
    stored: the `split.csv` of an earlier run, which is used again if it is there.
    """

    fraction: float | None = None
    seed: int = 0
    stored: Path | None = None


@dataclass(frozen=True)
class SplitRow:
    """One image: its path below the folder of the data, its class, and `train` or `val`."""

    path: str
    class_name: str
    split: str


def split_images(images: Sequence[tuple[str, str, Hashable]], fraction: float, seed: int) -> list[str]:
    """`train` or `val` for each image, given as path, class and content.

    Of each class the fraction goes to `val`: at least one image, and never the last one of `train`. Images of the same
    content stay together, even in several classes, so a class with one content only is in `train`.
    """
    copies: dict[Hashable, list[int]] = defaultdict(list)
    for position, (_, _, content) in enumerate(images):
        copies[content].append(position)
    groups = sorted(copies.values(), key=lambda group: _draw(min(images[k][0] for k in group), seed))
    chosen = _validation_groups([Counter(images[k][1] for k in group) for group in groups], fraction)
    parts = ["train"] * len(images)
    for position in (position for number in chosen for position in groups[number]):
        parts[position] = "val"
    return parts


def _draw(path: str, seed: int) -> bytes:
    """A random number of an image, which no other image changes."""
    return hashlib.blake2b(b"%d %s" % (seed, os.fsencode(path)), digest_size=16).digest()


def _validation_groups(groups: Sequence[Counter[str]], fraction: float) -> set[int]:
    """The numbers of the groups for validation. A group is images of one content: class -> how many of them."""
    of_class: dict[str, list[int]] = defaultdict(list)
    for number, group in enumerate(groups):
        for name in group:
            of_class[name].append(number)
    left = Counter({name: len(numbers) for name, numbers in of_class.items()})  # groups still in train
    in_val: Counter[str] = Counter()  # images
    chosen: set[int] = set()

    def choose(number: int) -> None:
        if number not in chosen and all(left[name] > 1 for name in groups[number]):
            chosen.add(number)
            left.subtract(groups[number].keys())
            in_val.update(groups[number])

    for name in sorted(of_class):
        wanted = max(1, round(fraction * sum(groups[number][name] for number in of_class[name])))
        for number in of_class[name]:
            if len(groups[number]) == 1 and in_val[name] + groups[number][name] <= wanted:
                choose(number)
        # All contents may have more copies than are wanted, or be in other classes too.
        for number in sorted(of_class[name], key=lambda number: (len(groups[number]), groups[number][name])):
            if in_val[name] == 0:
                choose(number)
    return chosen


def content_keys(paths: Sequence[str]) -> list[Hashable]:
    """A value for each file, which is the same for equal files and for no others.

    Only files of equal size and with equal ends are read whole. A file that cannot be read is equal to none; whoever
    decodes it will say what is wrong.
    """
    keys: list[Hashable] = [_attempted(os.path.getsize, path) for path in paths]
    for read in (_last_bytes, file_digest):
        shared = Counter(keys)
        keys = [
            (key, _attempted(read, path)) if shared[key] > 1 else key for key, path in zip(keys, paths, strict=True)
        ]
    return keys


def _last_bytes(path: str) -> bytes:
    """Raises: OSError."""
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - LAST_BYTES))
        return file.read(LAST_BYTES)


def file_digest(path: str) -> bytes:
    """A short hash of the bytes of a file. Raises: OSError."""
    return hashed(path, hashlib.blake2b(digest_size=16)).digest()


def _attempted(function: Callable[[str], Hashable], path: str) -> Hashable:
    try:
        return function(path)
    except OSError:
        return path


def split_samples(samples: Samples, top: str, splitting: Splitting) -> tuple[Samples, Samples, list[SplitRow]]:
    """The images of files in two parts, and the rows for `split.csv`. Warns of what changed since a stored split.

    top: the folder from which the paths in the rows count. Raises: DataError.
    """
    paths = [str(path) for path in samples.images]
    names = [relative_path(path, top) for path in paths]
    classes = [samples.class_names[target] for target in samples.targets]
    is_stored = splitting.stored is not None and splitting.stored.is_file()
    if splitting.stored is not None and is_stored:
        rows = read_split(splitting.stored)
        known = {(row.path, row.class_name): row.split for row in rows}
        parts = [known.get(key, "") for key in zip(names, classes, strict=True)]
        _warn_of_changes(rows, names, parts, splitting.stored)
    else:
        if splitting.stored is not None:
            warnings.warn(f"{splitting.stored} is gone: the images are split anew, as for a new run", stacklevel=2)
        contents = content_keys(paths)
        images = list(zip(names, classes, contents, strict=True))
        fraction = VAL_FRACTION if splitting.fraction is None else splitting.fraction
        parts = split_images(images, fraction, splitting.seed)
        rows = [SplitRow(*row) for row in zip(names, classes, parts, strict=True)]
    train, val = (_part(samples, parts, split) for split in ("train", "val"))
    if not len(train) or not len(val):
        counts = f"{counted(len(train), 'image')} to train on and {len(val)} to validate on"
        if is_stored:
            raise DataError(f"{splitting.stored}: leaves of {top} {counts}; expected some of both")
        raise DataError(f"{top}: {counts}; expected at least two different images of one class")
    return train, val, rows


def relative_path(path: str, top: str) -> str:
    """A path as `split.csv` has it."""
    start = os.path.join(top, "")
    inside = path.removeprefix(start) if path.startswith(start) else os.path.relpath(path, top)
    return inside.replace(os.sep, "/")


def _part(samples: Samples, parts: Sequence[str], split: str) -> Samples:
    positions = [k for k, part in enumerate(parts) if part == split]
    images, targets = [str(samples.images[k]) for k in positions], [samples.targets[k] for k in positions]
    return Samples(images, targets, samples.class_names)


def _warn_of_changes(rows: Sequence[SplitRow], names: Sequence[str], parts: Sequence[str], stored: Path) -> None:
    there = set(names)
    gone = [row.path for row in rows if row.path not in there]
    new = [name for name, part in zip(names, parts, strict=True) if not part]
    if gone:
        warnings.warn(f"{_images(gone, f'of {stored} ')} not there any more: {listed(gone)}", stacklevel=3)
    if new:
        uses = f"a new run uses {'it' if len(new) == 1 else 'them'}"
        warnings.warn(f"{_images(new)} not in {stored} and left out: {listed(new)}; {uses}", stacklevel=3)


def _images(names: Sequence[str], which: str = "") -> str:
    return f"1 image {which}is" if len(names) == 1 else f"{len(names)} images {which}are"


def read_split(path: Path) -> list[SplitRow]:
    """The rows of a `split.csv`. Raises: DataError that names the line."""
    try:
        text = read_bounded(path, MAX_FILE_BYTES, "split.csv").decode("utf-8", "surrogateescape")
        table = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = next(table, [])
        rows = [_row(cells, f"{path}: line {table.line_num}") for cells in table]
    except csv.Error as error:
        raise DataError(f"{path}: cannot be read as CSV: {error}") from error
    except DataError:
        raise
    except ResnetToolsError as error:
        raise DataError(str(error)) from error
    if header != COLUMNS:
        raise DataError(f"{path}: the first line is {','.join(header)!r:.80}; expected {','.join(COLUMNS)}")
    if len({row.path for row in rows}) < len(rows):
        [(twice, _)] = Counter(row.path for row in rows).most_common(1)
        raise DataError(f"{path}: names {twice} twice; every image is in one part")
    return rows


def _row(cells: Sequence[str], where: str) -> SplitRow:
    if len(cells) != len(COLUMNS) or not cells[0] or cells[2] not in ("train", "val"):
        raise DataError(f"{where} is {','.join(cells)!r:.80}; expected `path,class,train` or `path,class,val`")
    return SplitRow(*cells)


def stored_split(data: Path, model: Path) -> Path | None:
    """The `split.csv` in the folder of the data, or else the one of the run that the model, or run folder, is from."""
    run = model if model.is_dir() else model.parent
    return next((path for path in (data / SPLIT_FILE, run / SPLIT_FILE) if path.is_file()), None)


def keep_split(folder: Path, rows: Sequence[SplitRow] | None) -> None:
    """Write `split.csv` into the folder of a run; None: remove that of a run which had one there.

    Raises: DataError if the folder cannot be written to.
    """
    path = folder / SPLIT_FILE
    try:
        if rows is None:
            path.unlink(missing_ok=True)
            return
        with (
            written_whole(path) as partial_file,
            partial_file.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
        ):
            table = csv.writer(file)  # ends lines with \r\n, which makes it quote names with either
            table.writerow(COLUMNS)
            table.writerows((row.path, row.class_name, row.split) for row in rows)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from error
