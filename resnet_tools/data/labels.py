"""Class numbers -> class names.

`imagenet_labels.txt` holds the 1000 strings of the original's `pretrained/imagenet.lua`, all synonyms of a class on
one line, the first class first; `cifar10_labels.txt` and `cifar100_labels.txt` the names of CIFAR's (fine) classes.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from resnet_tools.errors import ResnetToolsError


def output_names(class_names: Sequence[str] | None, n: int) -> list[str]:
    """The names of a net's `n` outputs in order: the given ones, else ImageNet's for 1000 outputs, else numbers.

    Numbers count from 1, as Lua does: "class 1", "class 2", ...

    Raises ResnetToolsError when names are given and there are not `n` of them.
    """
    if class_names:
        if len(class_names) != n:
            raise ResnetToolsError(f"the net has {n} classes, but {len(class_names)} class names are given")
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
    return tuple(read_labels(Path(__file__).with_name("imagenet_labels.txt")))


@functools.cache
def cifar_labels(name: str) -> tuple[str, ...]:
    """The labels of `cifar10` or `cifar100` in the order of their numbers."""
    return tuple(read_labels(Path(__file__).with_name(f"{name}_labels.txt")))


def read_labels(path: str | os.PathLike[str]) -> list[str]:
    """The class names in a UTF-8 text file, one a line, the first class first.

    Raises ResnetToolsError when the file cannot be read, is no text, is empty, or has an empty line between others.
    """
    name = os.fspath(path)
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ResnetToolsError(f"{name}: {error.strerror or error}") from error
    except ValueError as error:  # UnicodeDecodeError, or a path with a null byte
        raise ResnetToolsError(f"{name}: not a UTF-8 text file of class names, one a line ({error})") from error
    labels = [line.rstrip("\r") for line in text.rstrip("\r\n").split("\n")]
    if labels == [""]:
        raise ResnetToolsError(f"{name}: holds no class names; expected one a line")
    for number, label in enumerate(labels, 1):
        if not label.strip():
            raise ResnetToolsError(f"{name}: line {number} is empty; expected one class name a line")
    return labels
