"""Class numbers -> class names.

Lists of class names are read in every form of `class_lists`.

`imagenet_labels.txt` holds the 1000 strings of the original's `pretrained/imagenet.lua`, all synonyms of a class on
one line, the first class first; `cifar10_labels.txt` and `cifar100_labels.txt` the names of CIFAR's (fine) classes.
"""

from __future__ import annotations

import codecs
import functools
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from resnet_tools.data.class_lists import listed_names, plain_lines
from resnet_tools.errors import ResnetToolsError
from resnet_tools.reading import read_bounded
from resnet_tools.text import counted

MAX_LIST_BYTES = 1 << 24
OWN_ENDING = ".classes.txt"  # of what `convert` writes beside a .t7: one name per line, even if they end in numbers


def output_names(class_names: Sequence[str] | None, n: int, source: str | os.PathLike[str] | None = None) -> list[str]:
    """The names of a net's `n` outputs in order: the given ones, ImageNet's for 1000 outputs, otherwise numbers.

    Numbers count from 1, as Lua does: "class 1", "class 2", ...

    Raises ResnetToolsError when names are given, in the file `source`, and there are not `n` of them.
    """
    if class_names:
        if len(class_names) != n:
            where = "" if source is None else f"{os.fspath(source)}: "
            raise ResnetToolsError(
                f"{where}the net has {counted(n, 'class')}, "
                f"but {counted(len(class_names), 'class name')} {'is' if len(class_names) == 1 else 'are'} given"
            )
        return list(class_names)
    if n == len(imagenet_labels()):
        return list(imagenet_labels())
    return [f"class {number}" for number in range(1, n + 1)]


def short_names(names: Sequence[str]) -> list[str]:
    """Each name up to its first comma, ImageNet's first synonym, unless another name is the same up to there."""
    short = [name.partition(",")[0] or name for name in names]
    counts = Counter(short)
    return [cut if counts[cut] == 1 else name for name, cut in zip(names, short, strict=True)]


@functools.cache
def imagenet_labels() -> tuple[str, ...]:
    """The 1000 labels of ImageNet in the order of the original's outputs."""
    return tuple(read_lines(Path(__file__).with_name("imagenet_labels.txt")))


@functools.cache
def cifar_labels(name: str) -> tuple[str, ...]:
    """The labels of `cifar10` or `cifar100` in the order of their numbers."""
    return tuple(read_lines(Path(__file__).with_name(f"{name}_labels.txt")))


def read_labels(path: str | os.PathLike[str], num_classes: int | None = None) -> list[str]:
    """The class names in a file, the first output's first, in any form that `class_lists` reads.

    The plain form is one name per line, and NAME.classes.txt always has it. Warns of any other, with the file's name.
    num_classes: how many names are expected, the outputs of the net.
    Raises ResnetToolsError when the file cannot be read, is not text, is empty, has an entry that does not fit, or
    another number of names.
    """
    names, remarks = (read_lines(path), []) if os.fspath(path).endswith(OWN_ENDING) else _listed(path)
    if num_classes is not None and len(names) != num_classes:
        raise ResnetToolsError(
            "; ".join(
                [
                    f"{os.fspath(path)}: the net has {counted(num_classes, 'class')}, "
                    f"but {counted(len(names), 'name')} {'is' if len(names) == 1 else 'are'} here",
                    *remarks,
                ]
            )
        )
    for remark in remarks:
        warnings.warn(f"{os.fspath(path)}: {remark}", stacklevel=2)
    return names


def _listed(path: str | os.PathLike[str]) -> tuple[list[str], list[str]]:
    """The names, and what there is to say of how they were read. Raises: ResnetToolsError."""
    text = read_text(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            names, form = listed_names(text)
        except ValueError as error:
            raise ResnetToolsError(f"{os.fspath(path)}: {error}") from error
    return names, [str(warning.message) for warning in caught] + ([f"read as {form}"] if form else [])


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    """The lines of a text file, whatever they look like; none may be empty. Raises ResnetToolsError."""
    try:
        return plain_lines(read_text(path))
    except ValueError as error:
        raise ResnetToolsError(f"{os.fspath(path)}: {error}") from error


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a file in UTF-8 or UTF-16, without its byte order mark. Raises ResnetToolsError."""
    data = read_bounded(path, MAX_LIST_BYTES, "list of class names")
    try:
        text = data.decode(encoding_of(data))
    except UnicodeDecodeError as error:
        raise ResnetToolsError(
            f"{os.fspath(path)}: not a UTF-8 text file, nor one in UTF-16 ({error}); save it as UTF-8"
        ) from error
    if "\0" in text:
        raise ResnetToolsError(f"{os.fspath(path)}: not a text file; it holds null bytes")
    return text


def encoding_of(data: bytes) -> str:
    """The encoding of a text: by its byte order mark, else by its zero bytes, else UTF-8."""
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    # Without a mark: every other byte of western text in UTF-16 is zero.
    even, odd = data[:1000:2], data[1:1000:2]
    if even.count(0) == 0 and 2 * odd.count(0) > len(odd):
        return "utf-16-le"
    if odd.count(0) == 0 and 2 * even.count(0) > len(even):
        return "utf-16-be"
    return "utf-8-sig"
