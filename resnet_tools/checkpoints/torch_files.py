"""A file of PyTorch -> its content: plain values, `StoredTensor` for tensors, `Unknown` for all else; no code is run.

torch.save writes a zip archive: NAME/data.pkl is the pickle, NAME/data/KEY the bytes of a storage, each stored as it
is. Before PyTorch 1.6 it wrote pickles one after another: a magic number, a protocol version, a description of the
machine, the content, the keys of the storages; then each storage, 8 bytes with its number of elements before it.
TorchScript archives are built like the first, and have code beside it.

Source: torch/serialization.py of PyTorch.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from resnet_tools.checkpoints.pickles import read_pickle
from resnet_tools.checkpoints.placeholders import Unknown, name_of
from resnet_tools.checkpoints.stored import Storage
from resnet_tools.checkpoints.torch_values import Values
from resnet_tools.errors import CheckpointError

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
LOCAL_HEADER_BYTES = 30
BIG_ENDIAN = "it was written on a big-endian machine, which is not supported; save it again on another"
_CODE = re.compile(r"(^|/)(code|extra)/|constants\.pkl$")
SHOWN = 4  # names of an archive that is none of PyTorch
_ARCHIVES = (  # of zip archives that are none of PyTorch: the end of a name in them, and what they are then
    (".npy", "an .npz archive of NumPy arrays"),
    (".weights.h5", "a Keras model"),
    ("saved_model.pb", "a TensorFlow model"),
    ("models/model.json", "a program of torch.export"),
    ("serialized_exported_program.json", "a program of torch.export"),
    (".safetensors", "a zip archive with a .safetensors file in it"),
    (".pth", "a zip archive with a .pth file in it"),
    (".pt", "a zip archive with a .pt file in it"),
    (".t7", "a zip archive with a .t7 file in it"),
)


FROZEN = (
    "a TorchScript archive without parameters: torch.jit.freeze has made them constants of its code, which is not run; "
    "save it before it is frozen"
)


@dataclass(frozen=True)
class TorchFile:
    """`content` is what torch.save was given; of a TorchScript archive, its module."""

    content: Any
    torchscript: bool = False


def read_torch(path: Path) -> TorchFile:
    """The content of a file that nobody vouches for. Raises: CheckpointError saying what it is instead."""
    try:
        with path.open("rb") as file:
            if zipfile.is_zipfile(file):
                return _read_zip(path, file)
            file.seek(0)
            if file.read(2) == b"PK":
                raise CheckpointError("not a whole PyTorch file (its end is missing); is the download complete?")
            file.seek(0)
            return TorchFile(_read_legacy(path, file, path.stat().st_size))
    except zipfile.BadZipFile as error:  # is_zipfile says so of some damaged directories
        raise CheckpointError(f"not a whole PyTorch file ({error}); is the download complete?") from error
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror or error}") from error


def _read_zip(path: Path, file: BinaryIO) -> TorchFile:
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(file) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            pickled = next((name for name in entries if name.endswith("/data.pkl") or name == "data.pkl"), None)
            if pickled is None:
                raise CheckpointError(_what_archive(list(entries)))
            _check_entries(entries.values(), size)
            root = pickled.removesuffix("data.pkl")
            order = archive.read(f"{root}byteorder") if f"{root}byteorder" in entries else b"little"
            content = archive.read(pickled)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, EOFError) as error:
        raise CheckpointError(f"not a whole PyTorch file ({error}); is the download complete?") from error
    if order.strip() != b"little":
        raise CheckpointError(BIG_ENDIAN)

    def storage(key: str, dtype: torch.dtype, elements: int) -> Storage:
        entry = entries.get(f"{root}data/{key}")
        if entry is None or elements * dtype.itemsize > entry.file_size:
            held = "no such record" if entry is None else f"{entry.file_size} bytes"
            raise CheckpointError(f"the storage {key:.20} has {elements} elements; the file has {held} for it")
        return Storage(path, _start_of(entry, file, size), entry.file_size, crc=entry.CRC)

    values = Values(path, storage)
    script = f"{root}constants.pkl" in entries or any(name.startswith(f"{root}code/") for name in entries)
    return TorchFile(read_pickle(io.BytesIO(content), values.build, values.persistent), script)


def _check_entries(entries: Iterable[zipfile.ZipInfo], size: int) -> None:
    """The pickle and the tensors are stored as they are; what else is there, such as code, is not read."""
    read = [entry for entry in entries if not _CODE.search(entry.filename)]
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in read) or sum(e.file_size for e in read) > size:
        raise CheckpointError("a compressed zip archive; expected a PyTorch file, whose parts are stored as they are")


def _known_archive(names: list[str]) -> str | None:
    return next((what for ending, what in _ARCHIVES if any(name.endswith(ending) for name in names)), None)


def _what_archive(names: list[str]) -> str:
    what = _known_archive(names)
    if what is not None:
        advice = ": unpack it and give that file" if what.startswith("a zip archive") else ""
        return f"this is {what}, not a checkpoint{advice}"
    held = ", ".join(f"{name:.40}" for name in names[:SHOWN]) or "nothing"
    return f"this is a zip archive that holds {held}{', ...' if len(names) > SHOWN else ''}, not a PyTorch file"


def _start_of(entry: zipfile.ZipInfo, file: BinaryIO, size: int) -> int:
    """Where the bytes of a record begin: after its local header, whose name and extra field have their own lengths."""
    file.seek(entry.header_offset)
    header = file.read(LOCAL_HEADER_BYTES)
    start = entry.header_offset + LOCAL_HEADER_BYTES
    start += int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    if not header.startswith(b"PK\x03\x04") or start + entry.file_size > size:
        raise CheckpointError(f"the record {entry.filename:.40} is not where the archive says; is it complete?")
    return start


def _read_legacy(path: Path, file: BinaryIO, size: int, content: bytes | None = None) -> Any:
    """A file as PyTorch wrote it before 1.6, or a pickle of a state dict; `content` if it stands inside another."""
    stream: Any = _Bounded(file, size)
    plain = Values(path, _no_storage, None if content is not None else _storage_in_bytes)
    first = read_pickle(stream, plain.build, plain.persistent)
    if type(first) is not int or first != MAGIC:
        if isinstance(first, (dict, Unknown, list, tuple)):
            return first
        raise CheckpointError(f"not a whole PyTorch file (a pickle of {name_of(first)})")
    if read_pickle(stream, plain.build, plain.persistent) != PROTOCOL:
        raise CheckpointError(f"not a whole PyTorch file (a version other than {PROTOCOL} of the old format)")
    system = read_pickle(stream, plain.build, plain.persistent)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise CheckpointError(BIG_ENDIAN)
    begin = file.tell()
    places = _places(path, file, size, content)

    def placed(key: str, dtype: torch.dtype, elements: int) -> Storage:
        if key not in places or elements * dtype.itemsize > places[key].nbytes:
            raise CheckpointError(f"the storage {key:.20} has {elements} elements, which the file does not hold")
        return places[key]

    file.seek(begin)
    values = Values(path, placed)
    return read_pickle(stream, values.build, values.persistent)


def _places(path: Path, file: BinaryIO, size: int, content: bytes | None) -> dict[str, Storage]:
    """Where the storages are. That is known only after the pickle that names them, so the pickle is read twice."""
    item_bytes: dict[str, int] = {}

    def noted(key: str, dtype: torch.dtype, elements: int) -> Storage:
        item_bytes[key] = dtype.itemsize
        return Storage(path, 0, elements * dtype.itemsize)

    values, stream = Values(path, noted), _Bounded(file, size)
    read_pickle(stream, values.build, values.persistent)
    keys = read_pickle(stream, values.build, values.persistent)
    places: dict[str, Storage] = {}
    for key in map(str, keys if isinstance(keys, list) else ()):
        elements = int.from_bytes(file.read(8), "little", signed=True)
        nbytes = elements * item_bytes.get(key, 1)
        if elements < 0 or file.tell() + nbytes > size:
            raise CheckpointError("not a whole PyTorch file (it ends inside a tensor); is the download complete?")
        places[key] = Storage(path, file.tell(), nbytes, content)
        file.seek(nbytes, io.SEEK_CUR)
    return places


def _storage_in_bytes(path: Path, content: bytes) -> Any:
    """A storage in a pickle that torch.save did not write: torch.save's old format inside a string of bytes."""
    return _read_legacy(path, io.BytesIO(content), len(content), content)


def _no_storage(key: str, dtype: torch.dtype, elements: int) -> Storage:
    raise CheckpointError("not a whole PyTorch file (a storage where none can be)")


class _Bounded:
    """A file from which nobody reads, or makes room for, more than it has."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size
        self.tell, self.readline = file.tell, file.readline

    def read(self, count: int) -> bytes:
        return self.file.read(max(0, min(count, self.size - self.file.tell())))
