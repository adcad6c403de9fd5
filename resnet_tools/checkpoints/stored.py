"""Tensors that still lie in a file: where their bytes are, and reading them into memory of the process's own.

Nothing stays mapped: a file that is overwritten later changes no net, and one that is cut meanwhile is an error.
"""

from __future__ import annotations

import io
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from resnet_tools.checkpoints.placeholders import Name, Unknown, name_of
from resnet_tools.errors import CheckpointError

MAX_DIMENSIONS = 16
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True, eq=False)
class Storage:
    """`nbytes` bytes from `start` in a file, or in `content`; `crc` is their CRC-32, or 0 if it is not known."""

    path: Path
    start: int
    nbytes: int
    content: bytes | None = field(default=None, repr=False)
    crc: int = 0


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A dense tensor in a storage; `offset` and `stride` count elements.

    `odd`: of a tensor that is stored in another way, what it is and what to do; it has a shape and no numbers.
    """

    storage: Storage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    odd: str | None = None

    @property
    def kind(self) -> str:
        """What a list of tensors calls it: its dtype, or `quantized tensor (qint8)`."""
        return self.odd.partition(";")[0].removeprefix("a ") if self.odd else str(self.dtype)

    @property
    def elements(self) -> int:
        count = 1
        for side in self.shape:
            count *= side
        return count

    @property
    def nbytes(self) -> int:
        return self.elements * self.dtype.itemsize


def stored_tensor(storage: Storage, dtype: torch.dtype, offset: Any, shape: Any, stride: Any) -> StoredTensor:
    """Raises: CheckpointError if it is not wholly inside its storage."""
    numbers = (offset, *shape, *stride)
    if not all(type(n) is int and 0 <= n < 1 << 62 for n in numbers) or len(shape) != len(stride):
        raise CheckpointError("a tensor in it has an offset, shape or strides that are not numbers of elements")
    if len(shape) > MAX_DIMENSIONS:
        raise CheckpointError(f"a tensor in it has {len(shape)} dimensions; expected at most {MAX_DIMENSIONS}")
    last = offset + sum((side - 1) * step for side, step in zip(shape, stride, strict=True))
    if 0 not in shape and (last + 1) * dtype.itemsize > storage.nbytes:
        raise CheckpointError(
            f"a tensor of shape {tuple(shape)} in it reaches byte {(last + 1) * dtype.itemsize} of a storage of "
            f"{storage.nbytes}; is the download complete?"
        )
    return StoredTensor(storage, dtype, offset, tuple(shape), tuple(stride))


def odd_tensor(path: Path, odd: str, shape: tuple[int, ...] = ()) -> StoredTensor:
    """A tensor that is known by name and shape only."""
    return StoredTensor(Storage(path, 0, 0), torch.float32, 0, shape, (), odd)


def load_tensors(stored: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
    """The tensors, in the process's own memory; those that share a storage share it here too.

    Raises: CheckpointError if a file ends early or cannot be read.
    """
    return _Loader().load_all(stored)


def load_value(value: Any) -> Any:
    """The same value with its tensors loaded, in nested dicts, lists and tuples.

    Raises: CheckpointError as `load_tensors`, or if it is nested too deeply.
    """
    loader = _Loader()
    try:
        return loader.value(value, {})
    except RecursionError:
        raise CheckpointError("its tables are nested too deeply") from None
    finally:
        loader.close()


class _Loader:
    def __init__(self) -> None:
        self.files: dict[Path, BinaryIO] = {}
        self.loaded: dict[int, Tensor] = {}

    def load_all(self, stored: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
        try:
            return {key: self.tensor(tensor) for key, tensor in stored.items()}
        finally:
            self.close()

    def close(self) -> None:
        for file in self.files.values():
            file.close()

    def tensor(self, stored: StoredTensor) -> Tensor:
        if stored.odd:
            raise CheckpointError(f"it holds {stored.odd}")
        if stored.elements == 0:
            return torch.empty(stored.shape, dtype=stored.dtype)
        size = stored.dtype.itemsize
        content = self.bytes_of(stored.storage)
        whole = content[: len(content) // size * size].view(stored.dtype)
        return whole.as_strided(stored.shape, stored.stride, stored.offset)

    def bytes_of(self, storage: Storage) -> Tensor:
        """The storage as bytes, read once."""
        if id(storage) not in self.loaded:
            try:
                self.loaded[id(storage)] = self.read(storage)
            except OSError as error:
                raise CheckpointError(f"cannot be read: {error.strerror or error}") from error
            except RuntimeError as error:  # of torch, which has no memory
                raise CheckpointError(f"a tensor of {storage.nbytes:,} bytes does not fit into memory") from error
        return self.loaded[id(storage)]

    def read(self, storage: Storage) -> Tensor:
        found = torch.empty(storage.nbytes, dtype=torch.uint8)
        if storage.path not in self.files and storage.content is None:
            self.files[storage.path] = storage.path.open("rb", buffering=0)
        file: BinaryIO = self.files[storage.path] if storage.content is None else io.BytesIO(storage.content)
        file.seek(storage.start)
        rest = memoryview(found.numpy())  # type: ignore[arg-type]
        while len(rest) and (count := file.readinto(rest)):  # type: ignore[attr-defined]
            rest = rest[count:]
        if len(rest):
            raise CheckpointError(f"the file ends {len(rest)} bytes before the end of a tensor; is it complete?")
        if storage.crc and zlib.crc32(found.numpy()) != storage.crc:  # type: ignore[arg-type]
            raise CheckpointError(
                f"damaged: the {storage.nbytes:,} bytes from byte {storage.start:,} on are not those that were saved "
                "(their checksum differs); get the file again"
            )
        return found

    def value(self, value: Any, done: dict[int, Any]) -> Any:
        """A table that is met again is the same again."""
        if isinstance(value, StoredTensor):
            return self.tensor(value)
        if isinstance(value, (Unknown, Name, Storage)):
            raise CheckpointError(
                f"it holds {name_of(value)}, which is not loaded, as it could run code; expected plain values"
            )
        if not isinstance(value, (dict, list, tuple)):
            return value
        if id(value) not in done:
            if isinstance(value, dict):
                done[id(value)] = {}
                done[id(value)].update((key, self.value(item, done)) for key, item in value.items())
            elif isinstance(value, list):
                done[id(value)] = []
                done[id(value)].extend(self.value(item, done) for item in value)
            else:
                done[id(value)] = tuple(self.value(item, done) for item in value)
        return done[id(value)]


def check_numbers(name: str, tensor: StoredTensor) -> None:
    """Raises: CheckpointError if a tensor is none of floating-point numbers that are all stored."""
    if tensor.odd:
        raise CheckpointError(f"{name} is {tensor.odd}")
    if tensor.nbytes > tensor.storage.nbytes:
        held = tensor.storage.nbytes // tensor.dtype.itemsize
        raise CheckpointError(
            f"{name} has {tensor.elements} elements and its storage {held}; save a copy of it (clone())"
        )
    usual = tensor.dtype in FLOATS or name.endswith("num_batches_tracked")
    if not usual and tensor.dtype.is_floating_point:
        raise CheckpointError(
            f"{name} holds {tensor.dtype}, whose scale is not known; convert it to float32 and save it again"
        )
    if not usual:
        raise CheckpointError(f"{name} holds {tensor.dtype}; expected floating-point weights, such as float32")


def row_major(storage: Storage, dtype: torch.dtype, shape: tuple[int, ...]) -> StoredTensor:
    """A tensor that lies in row-major order at the begin of its storage. Raises: CheckpointError as `stored_tensor`."""
    stride, steps = 1, []
    for side in reversed(shape):
        steps.append(stride)
        stride *= side if type(side) is int else 0
    return stored_tensor(storage, dtype, 0, shape, tuple(reversed(steps)))


def as_float32(name: str, tensor: Tensor) -> Tensor:
    """Raises: CheckpointError if a number is finite and too large for float32."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = tensor.float().contiguous()  # the same bits come from it, however it lay in the file
    if tensor.dtype == torch.float64 and bool((found.isinf() & tensor.isfinite()).any()):
        largest = float(tensor[tensor.isfinite()].abs().max())
        raise CheckpointError(f"{name} holds {largest:g}, which is beyond float32, in which nets compute")
    return found
