"""Path <-> tensors by name, in files that nobody vouches for: PyTorch (.pt, .pth) and safetensors.

Tensors are known by `StoredTensor` first, which costs nothing, and only those that are used are read, into memory of
the process's own.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resnet_tools.checkpoints.placeholders import Unknown, name_of, tables_of
from resnet_tools.checkpoints.stored import (
    Storage,
    StoredTensor,
    as_float32,
    check_numbers,
    load_tensors,
    load_value,
    odd_tensor,
    row_major,
)
from resnet_tools.checkpoints.torch_files import read_torch
from resnet_tools.checkpoints.torch_values import array_of
from resnet_tools.errors import CheckpointError
from resnet_tools.text import counted
from resnet_tools.torch7.sniff import HEAD_BYTES, content_kind, describe_content, looks_like_t7
from resnet_tools.writing import written_whole

MAX_VISITED = 1_000_000  # values in nested tables
SHORTEST = 4  # bytes of a file that can be told
READ_HERE = ".t7, .pt, .pth, .safetensors and .onnx"
MAX_LIST = 64  # items of a list that may be tables
MAX_NESTING = 12  # of tables around the tensors; modules of a TorchScript archive are tables too


def format_of(path: Path) -> str:
    """Which loader reads the file: pt (also for state dicts of PyTorch), safetensors or t7.

    Raises: CheckpointError if it is no regular file, cannot be read, or is of another kind, which is named.
    """
    if re.match(r"[a-z0-9+]+:/", str(path)):
        raise CheckpointError(f"{path}: this is an address; download the file and give its path")
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise CheckpointError(f"{path}: a pipe or device; expected a file")
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        size = path.stat().st_size
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise CheckpointError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    kind = content_kind(head, size)
    if kind in _FORMATS:
        return _FORMATS[kind]
    if kind is None and looks_like_t7(head):
        return "t7"
    raise CheckpointError(f"{path}: {_what_instead(kind, head, size, path.suffix.lower())}")


def _what_instead(kind: str | None, head: bytes, size: int, ending: str) -> str:
    """What is said of content that is none of ours. It decides; the name says only what a part of a file is part of."""
    if 0 < size < SHORTEST or (kind is None and ending in _WHOLE):
        what = _WHOLE.get(ending, "file of a model")
        return f"not a whole {what} ({counted(size, 'byte')}); is the download complete?"
    return describe_content(head, size) or f"its content is of no kind that is read here, which are {READ_HERE}"


def tensors_in(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a PyTorch or safetensors file as they are stored, by name; nested tables are searched.

    Raises: CheckpointError if the file cannot be read.
    """
    try:
        content = read_torch(path).content if format_of(path) == "pt" else read_safetensors(path)[0]
        return {"/".join(keys): tensor for keys, tensor in named_tensors(content)}
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def named_tensors(content: Any) -> Iterator[tuple[tuple[str, ...], StoredTensor]]:
    """Each tensor in nested tables with the keys that lead to it, those of the outer tables first.

    Tables under keys that are no strings, such as the state of an optimizer, are left out.
    """
    waiting: deque[tuple[tuple[str, ...], Any, tuple[int, ...]]] = deque([((), content, ())])
    visited = 0
    while waiting:
        keys, value, around = waiting.popleft()
        for table in _tables_in(value) if len(keys) <= MAX_NESTING and not is_module(value) else ():
            visited += len(table)
            if visited > MAX_VISITED:  # a few bytes can name one table a million times
                raise CheckpointError(f"its tables hold more than {MAX_VISITED:,} values")
            inside = (*around, id(value))
            for key, inner in table.items():
                found = array_of(Path(), inner) if isinstance(inner, Unknown) else inner
                if isinstance(key, str) and isinstance(found, StoredTensor):
                    yield (*keys, key), found
                elif (
                    isinstance(key, str) and isinstance(found, (dict, Unknown, list, tuple)) and id(found) not in inside
                ):
                    waiting.append(((*keys, key), found, inside))


def _tables_in(value: Any) -> Iterator[dict[Any, Any]]:
    """The tables that a value is or has; a short list has its items under their numbers, but for tensors."""
    if not isinstance(value, (list, tuple)):
        yield from tables_of(value)
    elif len(value) <= MAX_LIST:
        yield {str(at): item for at, item in enumerate(value) if not isinstance(item, StoredTensor) or item.odd}


def pickled_module(content: Any) -> str | None:
    """The message that a file without tables of tensors deserves that holds objects, above all a whole model."""
    waiting, seen = deque([content]), set[int]()
    first = None
    while waiting:
        value = waiting.popleft()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Unknown) and first is None and not value.class_name.startswith("torch._utils."):
            first = value.class_name
        if is_module(value):
            return (
                f"it holds a whole pickled model of the class {value.class_name:.100}, which is not loaded, as it "
                "could run code; save the model's state_dict() in the program that made it"
            )
        waiting.extend(inner for table in tables_of(value) for inner in table.values())
    if first is None:
        return None
    return f"it holds no weights but a {first:.100}, which is not loaded, as it could run code; save a state_dict()"


def is_module(value: Any) -> bool:
    """Whether it is a pickled nn.Module: its class is code that is not in the file, or should not be run."""
    state = value.state if isinstance(value, Unknown) else None
    return isinstance(state, dict) and "_parameters" in state and "_modules" in state


def torch_load(path: Path, *, mapped: bool = False) -> Any:
    """The plain values and tensors in a file of PyTorch, as torch.load gives them.

    mapped: the tensors are read when they are used, from a file that nobody may change meanwhile.
    Raises: CheckpointError if the file is not whole, or holds anything else.
    """
    content = read_torch(path).content
    return _mapped(path) if mapped else load_value(content)


def _mapped(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd in the file is checked by us
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch.load raises whatever its damaged input leads to
        reason = str(error).partition("\n")[0].partition("  (")[0]
        raise CheckpointError(f"not a whole PyTorch file ({type(error).__name__}: {reason:.200})") from error


def torch_save(content: Mapping[str, Any], path: Path) -> None:
    """Write tensors and plain values for `torch_load`; a whole file replaces an earlier one.

    Raises: CheckpointError if it cannot be written, with the OSError as its cause.
    """
    try:
        with written_whole(path) as partial:
            torch_write(content, partial)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror or error}") from error


def torch_write(content: Mapping[str, Any], path: Path) -> None:
    """Write for `torch_load` where it belongs. Raises: OSError."""
    with path.open("wb") as file:  # given a path, torch.save would not say why it cannot write
        try:
            torch.save(content, file)
        except RuntimeError as error:  # that the archive is not whole, raised on the way out of the error of the disk
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def read_safetensors(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """The tensors and the metadata. Raises: CheckpointError if the file is not whole.

    The file is 8 bytes with the length of a header, the header in JSON, and the tensors.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:  # checks the whole header
            metadata = file.metadata() or {}
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        return {key: _of_header(path, 8 + length, entry) for key, entry in header.items()}, metadata
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"not a whole safetensors file ({error}); is the download complete?") from error


def _of_header(path: Path, data: int, entry: dict[str, Any]) -> StoredTensor:
    begin, end = entry["data_offsets"]
    dtype = _SAFETENSORS.get(entry["dtype"])
    if dtype is None:
        odd = f"a tensor of the type {entry['dtype']!r:.20}; convert it to float32 and save it again"
        return odd_tensor(path, odd, tuple(entry["shape"]))
    return row_major(Storage(path, data + begin, end - begin), dtype, tuple(entry["shape"]))


def write_safetensors(state: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write contiguous tensors. Raises: OSError if the file cannot be written."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(dict(state), path, metadata=dict(metadata))
    except SafetensorError as error:  # "No space left on device (os error 28)"; safetensors 0.4: "Os { code: 28, ... }"
        number = re.search(r"(?:os error|Os { code:) (\d+)", str(error))
        raise (OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(str(error))) from error
    path.chmod(mode)  # as any new file; safetensors makes it readable for the owner only


def float_state(state: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
    """Float32 tensors by name, and batch counters as they are, in the process's own memory.

    Raises: CheckpointError if a number is too large for float32, or the file ends before a tensor does.
    """
    loaded = load_tensors(state)
    return {key: as_float32(key, tensor) if tensor.is_floating_point() else tensor for key, tensor in loaded.items()}


def checked_state(content: Any) -> dict[str, StoredTensor]:
    """Weights by name. Raises: CheckpointError for anything else, or for a tensor larger than its data."""
    if not isinstance(content, Mapping) or not content:
        found = "an empty table" if content == {} else name_of(content)
        raise CheckpointError(f"it holds {found}; expected a state dict of parameter names and tensors")
    for key, tensor in content.items():
        if not isinstance(key, str) or not isinstance(tensor, StoredTensor):
            raise CheckpointError(
                f"under the key {key!r:.80} it holds {name_of(tensor)}; expected parameter names and tensors"
            )
        check_numbers(key, tensor)
    stored = {id(t.storage): t.storage.nbytes for t in content.values()}
    if sum(t.nbytes for t in content.values()) > sum(stored.values()):
        raise CheckpointError("its tensors overlap in the file; expected each weight stored once")
    return dict(content)


_FORMATS: dict[str | None, str] = {"zip": "pt", "pickle": "pt", "safetensors": "safetensors"}
_WHOLE = {
    ".t7": "Lua Torch file",
    ".safetensors": "safetensors file",
    **dict.fromkeys((".pt", ".pth", ".ckpt"), "PyTorch file"),
}
_SAFETENSORS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "BOOL": torch.bool,
}
