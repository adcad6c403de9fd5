"""The files of CIFAR-10 and CIFAR-100, as published -> `Samples`.

PATH is a folder with an archive (cifar-10-python.tar.gz, cifar-10-binary.tar.gz, cifar-100-...) or with the folder
that is in it (cifar-10-batches-py, as torchvision keeps it), or one of these itself. Images are
(N, 32, 32, 3) bytes; classes of CIFAR-100 are its fine ones.

A binary file is records of 1 byte label (CIFAR-100: coarse and fine) and 3072 bytes of pixels, (3, 32, 32). A Python
file is a pickled dict of the same, read by `pickled`, which runs nothing.
Source: https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import lzma
import os
import struct
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnet_tools.data.labels import cifar_labels
from resnet_tools.data.pickled import read_pickle
from resnet_tools.data.samples import Samples
from resnet_tools.errors import DataError
from resnet_tools.text import counted

SOURCE = "https://www.cs.toronto.edu/~kriz/cifar.html"
IMAGE_BYTES = 3 * 32 * 32
# KeyError: a link to nothing; RecursionError: links in a circle
ARCHIVE_ERRORS = (
    *(tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, ValueError),
    *(KeyError, RecursionError, struct.error, OverflowError),
)
MAX_FILE_BYTES = 1 << 28  # the largest, CIFAR-100's train, has 155 MB


@dataclass(frozen=True)
class Form:
    """One of the forms in which a data set is published: its archive and folder, and the files in it."""

    archive: str
    folder: str
    train: tuple[str, ...]
    val: str
    names: str
    names_key: str  # in the pickled file of names; "" for a text file
    label: str | int  # the key of the labels in a pickled batch, or their byte in a binary record
    label_bytes: int = 0


BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
BINARY_BATCHES = tuple(f"{name}.bin" for name in BATCHES)
CIFAR10_PYTHON = Form(
    "cifar-10-python.tar.gz", "cifar-10-batches-py", BATCHES, "test_batch", "batches.meta", "label_names", "labels"
)
CIFAR10_BINARY = Form(
    "cifar-10-binary.tar.gz", "cifar-10-batches-bin", BINARY_BATCHES, "test_batch.bin", "batches.meta.txt", "", 0, 1
)
CIFAR100_PYTHON = Form(
    "cifar-100-python.tar.gz", "cifar-100-python", ("train",), "test", "meta", "fine_label_names", "fine_labels"
)
CIFAR100_BINARY = Form(
    "cifar-100-binary.tar.gz", "cifar-100-binary", ("train.bin",), "test.bin", "fine_label_names.txt", "", 1, 2
)
FORMS = {"cifar10": (CIFAR10_PYTHON, CIFAR10_BINARY), "cifar100": (CIFAR100_PYTHON, CIFAR100_BINARY)}


def read_cifar(name: str, path: str) -> tuple[Samples, Samples]:
    """Training and validation samples of `cifar10` or `cifar100`.

    Raises DataError: nothing of the kind is at PATH, a file of it is missing, or one is damaged.
    """
    for form in FORMS[name]:
        for place, read in ((form.folder, _read_folder), (form.archive, _read_archive), ("", _read_itself)):
            where = os.path.join(path, place) if place else path
            files = read(where, form) if os.path.exists(where) else None
            if files:
                return _samples(name, form, files, where)
    raise DataError(f"{path}: {expected(name)}")


def holds_cifar(name: str, path: str) -> bool:
    """Whether the files of a data set are at PATH, as far as their names say."""
    places = [place for form in FORMS[name] for place in (form.folder, form.archive)]
    itself = os.path.basename(os.path.normpath(path)) in places and os.path.exists(path)
    return itself or any(os.path.exists(os.path.join(path, place)) for place in places)


def expected(name: str) -> str:
    """What was expected, and where to get it."""
    forms = " or ".join(f"{form.folder}/ or {form.archive}" for form in FORMS[name])
    found = f"expected a folder with {forms}, or the original's {name}.t7"
    return f"{found}, but found none of them; get an archive from {SOURCE}"


def _read_folder(folder: str, form: Form) -> dict[str, bytes]:
    """The files of this form in a folder."""
    files = {}
    for name in (*form.train, form.val, form.names):
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            files[name] = _read_file(path)
    return files


def _read_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise DataError(f"{path}: more than {MAX_FILE_BYTES >> 20} MiB; no file of CIFAR is that large")
    return data


def _read_archive(path: str, form: Form) -> dict[str, bytes]:
    """The same from an archive, without unpacking it."""
    wanted = {f"{form.folder}/{name}": name for name in (*form.train, form.val, form.names)}
    files = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = wanted.get(member.name.removeprefix("./"))
                content = archive.extractfile(member) if name and 0 <= member.size <= MAX_FILE_BYTES else None
                if name and content:
                    files[name] = content.read()
            while archive.fileobj and archive.fileobj.read(1 << 20):
                pass  # read to the end, where the checksum is
    except ARCHIVE_ERRORS as error:
        reason = str(error).partition("\n")[0].rstrip(":")
        raise DataError(f"{path}: damaged archive ({reason}); download it again from {SOURCE}") from error
    return files


def _read_itself(path: str, form: Form) -> dict[str, bytes]:
    if os.path.isdir(path):
        files = _read_folder(path, form)
        # `train` and `test` are also the names of folders and files of other data sets
        return files if {*form.train, form.val} & files.keys() else {}
    return _read_archive(path, form) if path.endswith((".tar.gz", ".tgz", ".tar")) else {}


def _samples(name: str, form: Form, files: dict[str, bytes], where: str) -> tuple[Samples, Samples]:
    missing = [file for file in (*form.train, form.val) if file not in files]
    if missing:
        raise DataError(f"{where}: {', '.join(missing)} missing; get the archive again from {SOURCE}")
    class_names: Sequence[str] = cifar_labels(name)
    file = form.names
    try:
        if file in files:
            class_names = _class_names(files[file], form, len(class_names))
        batches = {}
        for file in (*form.train, form.val):
            batches[file] = checked_batch(*_batch(files[file], form), len(class_names))
    except ValueError as error:
        raise DataError(f"{where}: {file}: {error}; download the archive again from {SOURCE}") from error
    train = joined_samples([batches[file] for file in form.train], class_names)
    return train, joined_samples([batches[form.val]], class_names)


def _batch(data: bytes, form: Form) -> tuple[Any, Any]:
    """What a file holds as (N, 3072) pixels and N labels from 0."""
    if isinstance(form.label, str):
        content = read_pickle(data)
        return content.get("data"), content.get(form.label)
    record = form.label_bytes + IMAGE_BYTES
    if len(data) % record:
        raise ValueError(f"{len(data)} bytes are not a whole number of records of {record}")
    records = np.frombuffer(data, np.uint8).reshape(-1, record)
    return records[:, form.label_bytes :], records[:, form.label].tolist()


def _class_names(data: bytes, form: Form, count: int) -> tuple[str, ...]:
    names: Any = read_pickle(data).get(form.names_key) if form.names_key else data.decode("utf-8").split()
    if type(names) is not list or len(names) != count or not all(type(name) in (str, bytes) for name in names):
        raise ValueError(f"expected {count} names of classes, found {names!r:.60}")
    return tuple(name.decode("utf-8") if type(name) is bytes else str(name) for name in names)


Batch = tuple[NDArray[np.uint8], list[int]]


def checked_batch(pixels: Any, labels: Any, num_classes: int) -> Batch:
    """Images (N, 3, H, W), or N rows of 32 x 32, and N labels from 0, if a file holds such.

    Raises ValueError if they are not.
    """
    is_array = isinstance(pixels, np.ndarray) and pixels.ndim > 1
    is_images = is_array and pixels.ndim == 4 and pixels.shape[1] == 3
    if not is_array or pixels.dtype != np.uint8 or not (is_images or pixels[:1].size == IMAGE_BYTES):
        found = f"{pixels.dtype} {pixels.shape}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise ValueError(f"expected images of {IMAGE_BYTES} bytes each, found {found}")
    if not isinstance(labels, list) or len(labels) != len(pixels):
        found = counted(len(labels), "label") if isinstance(labels, list) else type(labels).__name__
        raise ValueError(f"expected {len(pixels)} labels, one per image, found {found}")
    wrong = [label for label in labels if type(label) is not int or not 0 <= label < num_classes]
    if wrong:
        raise ValueError(f"expected the numbers of {num_classes} classes, found {wrong[0]!r:.60}")
    return pixels if is_images else pixels.reshape(-1, 3, 32, 32), labels


def joined_samples(batches: Sequence[Batch], class_names: Sequence[str]) -> Samples:
    images = np.concatenate([pixels for pixels, _ in batches])
    targets = [target for _, labels in batches for target in labels]
    return Samples(np.ascontiguousarray(images.transpose(0, 2, 3, 1)), targets, list(class_names))
