"""What the classes and functions mean that PyTorch files name: tensors, NumPy's numbers and arrays, plain containers.

They are told by their names and made here; nothing that a file names is looked up or called.

Source: torch/_utils.py (`_rebuild_*`) and torch/_tensor.py of PyTorch; numpy's `ndarray.__reduce__`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from resnet_tools.checkpoints.placeholders import Name, Unknown, Unordered
from resnet_tools.checkpoints.stored import MAX_DIMENSIONS, Storage, StoredTensor, odd_tensor, row_major, stored_tensor

StorageOf = Callable[[str, torch.dtype, int], Storage]  # of a key, as long as so many elements
_STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexDouble": torch.complex128,
    "ComplexFloat": torch.complex64,
    "Untyped": torch.uint8,
}


class Values:
    """`build` and `persistent` for `read_pickle`; `in_bytes` reads a storage that a string of bytes holds."""

    def __init__(self, path: Path, storage_of: StorageOf, in_bytes: Callable[[Path, bytes], Any] | None = None) -> None:
        self.path, self.storage_of, self.in_bytes = path, storage_of, in_bytes
        self.storages: dict[str, Storage] = {}

    def persistent(self, pid: Any) -> Any:
        """("storage", class, key, device, elements[, view]) -> the storage with its dtype."""
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or not isinstance(pid[1], Name):
            return Unknown("a persistent id")
        dtype = _STORAGES.get(pid[1].name.rpartition(".")[2].removesuffix("Storage"))
        key, elements = str(pid[2]), pid[4]
        if dtype is None or type(elements) is not int or elements < 0:
            return Unknown(pid[1].name)
        if key not in self.storages:
            self.storages[key] = self.storage_of(key, dtype, elements)
        return self.storages[key], dtype

    def build(self, name: str, arguments: tuple[Any, ...]) -> Any:
        module, _, what = name.rpartition(".")
        if module.partition(".")[0] == "numpy":
            return _numpy_value(self.path, what, arguments)
        if what.startswith("_rebuild_") and module in ("torch._utils", "torch._tensor", "torch.tensor"):
            return self.tensor(what, arguments)
        if name in _TENSORS:
            return arguments[0] if arguments and isinstance(arguments[0], StoredTensor) else NotImplemented
        if name == "torch.storage._load_from_bytes" and self.in_bytes and isinstance(arguments[0], bytes):
            return self.in_bytes(self.path, arguments[0])
        if name in _TABLES:
            return _table(arguments)
        if name in _LISTS and len(arguments) <= 1 and all(isinstance(a, (list, tuple)) for a in arguments):
            kind = Unordered if name.endswith("set") else list
            return tuple(*arguments) if name == "torch.Size" else kind(*arguments)
        if name == "_codecs.encode" and arguments and isinstance(arguments[0], str):
            return arguments[0].encode(arguments[1] if arguments[1:] == ("latin1",) else "utf-8")
        return NotImplemented

    def tensor(self, what: str, arguments: tuple[Any, ...]) -> Any:
        if what == "_rebuild_from_type_v2" and len(arguments) > 2 and isinstance(arguments[0], Name):
            return self.build(arguments[0].name, arguments[2]) if isinstance(arguments[2], tuple) else NotImplemented
        if what in ("_rebuild_parameter", "_rebuild_parameter_with_state", "_rebuild_device_tensor_from_numpy"):
            tensor = array_of(self.path, arguments[0])
            return tensor if isinstance(tensor, StoredTensor) else NotImplemented
        dense = what in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3") and len(arguments) > 3
        if not dense or not isinstance(arguments[0], tuple) or not isinstance(arguments[0][0], Storage):
            return odd_tensor(self.path, _what_tensor(what, arguments), _shape_among(arguments))
        stored, offset, shape, stride = arguments[:4]
        dtype = stored[1]
        if what == "_rebuild_tensor_v3":
            named = getattr(torch, arguments[6].name.rpartition(".")[2], None) if len(arguments) > 6 else None
            dtype = named if isinstance(named, torch.dtype) else dtype
        return stored_tensor(stored[0], dtype, offset, shape, stride)


def _what_tensor(what: str, arguments: tuple[Any, ...]) -> str:
    """What a tensor is that is not stored as one dense block of numbers, and what to do."""
    kind = next((kind for part, kind in _ODD if part in what), None)
    if kind is None:
        return f"a tensor of a kind that is not supported ({what:.60}); save plain tensors"
    first = arguments[0] if arguments else None
    stored = first.class_name.rpartition(".")[2] if isinstance(first, Unknown) else ""  # QInt8Storage
    dtype = stored.removesuffix("Storage").lower() if stored.endswith("Storage") else ""
    return kind.replace(";", f" ({dtype});", 1) if dtype else kind


def _shape_among(arguments: tuple[Any, ...]) -> tuple[int, ...]:
    """The first tuple of whole numbers, which is the shape; sparse tensors have it one level deeper."""
    inner = [part for argument in arguments if isinstance(argument, tuple) for part in (argument, *argument)]
    shapes = (part for part in inner if isinstance(part, tuple) and 0 < len(part) <= MAX_DIMENSIONS)
    return next((s for s in shapes if all(type(side) is int and 0 <= side < 1 << 62 for side in s)), ())


def _table(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """A dict made of a dict or of pairs; the first argument of a defaultdict makes its values and is left out."""
    found: dict[Any, Any] = {}
    for argument in arguments:
        if isinstance(argument, dict):
            found.update(argument)
        elif isinstance(argument, (list, tuple)):
            found.update((pair[0], pair[1]) for pair in argument if isinstance(pair[0], (str, bool, type(None))))
    return found


def _numpy_value(path: Path, what: str, arguments: tuple[Any, ...]) -> Any:
    if what != "scalar" or len(arguments) != 2 or not isinstance(arguments[1], bytes):
        return NotImplemented
    dtype = _numpy_dtype(arguments[0])
    if dtype is None or len(arguments[1]) != dtype.itemsize:
        return NotImplemented
    return _text(np.frombuffer(arguments[1], dtype)[0].item())


def _numpy_dtype(value: Any) -> np.dtype[Any] | None:
    """A dtype of plain numbers or text, or None."""
    code = value.arguments[0] if isinstance(value, Unknown) and value.arguments else None
    if not isinstance(value, Unknown) or value.class_name != "numpy.dtype" or not isinstance(code, str):
        return None
    if not _DTYPE.fullmatch(code):
        return None
    big = isinstance(value.state, tuple) and len(value.state) > 1 and value.state[1] == ">"
    found: np.dtype[Any] = np.dtype(code).newbyteorder(">" if big else "<")
    return found


def array_of(path: Path, value: Any) -> Any:
    """The tensor in an array of NumPy's numbers; else the value."""
    if not is_array(value):
        return value
    shape, dtype, is_fortran, content = _array_state(value)
    if dtype is None or dtype.kind in "SU" or not isinstance(content, bytes) or len(content) % dtype.itemsize:
        return value
    little = dtype.newbyteorder("<")
    if dtype != little:
        content = np.frombuffer(content, dtype).astype(little).tobytes()
    storage = Storage(path, 0, len(content), content)
    kind = torch.from_numpy(np.empty(0, little)).dtype
    if not is_fortran:
        return row_major(storage, kind, shape)
    turned = row_major(storage, kind, shape[::-1])
    return stored_tensor(storage, kind, 0, shape, turned.stride[::-1])


def is_array(value: Any) -> bool:
    """Whether it is an array of NumPy, of any type."""
    return isinstance(value, Unknown) and value.class_name in ("numpy.ndarray", *_RECONSTRUCTED)


def texts_of(value: Any) -> list[str] | None:
    """The strings of a list, a tuple, or an array of NumPy of one dimension; None if it is none of them."""
    if is_array(value):
        shape, dtype, _, content = _array_state(value)
        if dtype is not None and dtype.kind in "SU" and dtype.itemsize and isinstance(content, bytes):
            whole = len(shape) == 1 and shape[0] * dtype.itemsize == len(content)
            value = np.frombuffer(content, dtype).tolist() if whole else None
        else:  # an array of objects holds a list
            value = content if len(shape) == 1 else None
    if not isinstance(value, (list, tuple)) or isinstance(value, Unordered):
        return None
    texts = [_text(item) for item in value]
    return texts if all(isinstance(text, str) for text in texts) else None


def _array_state(value: Unknown) -> tuple[tuple[int, ...], np.dtype[Any] | None, bool, Any]:
    """Shape, dtype, whether the first index runs fastest, and the content, which follow a version in its state."""
    state = value.state
    if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[1], tuple):
        return (), None, False, None
    return state[1], _numpy_dtype(state[2]), bool(state[3]), state[4]


def _text(value: Any) -> Any:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value


_DTYPE = re.compile(r"[fi][248]|[iub]1|[SU][1-9]\d{0,6}")
_ODD = (  # parts of the names of the functions that make them
    ("qtensor", "a quantized tensor; call dequantize() on it and save it again"),
    ("sparse", "a sparse tensor; call to_dense() on it and save it again"),
    ("nested", "a nested tensor; call unbind() on it and save its parts"),
    ("meta", "a tensor without numbers, of the device meta; load the weights before they are saved"),
    ("wrapper", "a tensor of a class of its own; save plain tensors"),
)
_RECONSTRUCTED = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_TENSORS = {"torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer", "torch.Tensor"}
_TABLES = {"collections.OrderedDict", "collections.defaultdict", "collections.Counter", "builtins.dict"}
_LISTS = {"torch.Size", *(f"{b}.{kind}" for b in ("builtins", "__builtin__") for kind in ("list", "set", "frozenset"))}
