"""What the classes and functions mean that PyTorch files name: tensors, NumPy's numbers and arrays, plain containers.

They are told by their names and made here; nothing that a file names is looked up or called.

Source: torch/_utils.py (`_rebuild_*`) and torch/_tensor.py of PyTorch; numpy's `ndarray.__reduce__`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from resnet_tools.checkpoints.pickles import Name, Unknown
from resnet_tools.checkpoints.stored import Storage, StoredTensor, row_major, stored_tensor

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
            return tuple(*arguments) if name == "torch.Size" else list(*arguments)
        if name == "_codecs.encode" and arguments and isinstance(arguments[0], str):
            return arguments[0].encode(arguments[1] if arguments[1:] == ("latin1",) else "utf-8")
        return NotImplemented

    def tensor(self, what: str, arguments: tuple[Any, ...]) -> Any:
        if what == "_rebuild_from_type_v2" and len(arguments) > 2 and isinstance(arguments[0], Name):
            return self.build(arguments[0].name, arguments[2]) if isinstance(arguments[2], tuple) else NotImplemented
        if what in ("_rebuild_parameter", "_rebuild_parameter_with_state", "_rebuild_device_tensor_from_numpy"):
            tensor = array_of(self.path, arguments[0])
            return tensor if isinstance(tensor, StoredTensor) else NotImplemented
        if what not in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3") or len(arguments) < 4:
            return NotImplemented
        stored, offset, shape, stride = arguments[:4]
        if not isinstance(stored, tuple) or not isinstance(stored[0], Storage):
            return NotImplemented
        dtype = stored[1]
        if what == "_rebuild_tensor_v3":
            named = getattr(torch, arguments[6].name.rpartition(".")[2], None) if len(arguments) > 6 else None
            dtype = named if isinstance(named, torch.dtype) else dtype
        return stored_tensor(stored[0], dtype, offset, shape, stride)


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
    return np.frombuffer(arguments[1], dtype)[0].item()


def _numpy_dtype(value: Any) -> np.dtype[Any] | None:
    """A dtype of plain numbers in little-endian order, or None."""
    code = value.arguments[0] if isinstance(value, Unknown) and value.arguments else None
    known = isinstance(value, Unknown) and value.class_name == "numpy.dtype" and isinstance(code, str)
    big = known and isinstance(value.state, tuple) and len(value.state) > 1 and value.state[1] == ">"
    if not known or big or code not in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1"):
        return None
    found: np.dtype[Any] = np.dtype(code)
    return found


def array_of(path: Path, value: Any) -> Any:
    """The tensor in an array of NumPy, whose state is (version, shape, dtype, is_fortran, bytes); else the value."""
    if not isinstance(value, Unknown) or value.class_name not in ("numpy.ndarray", *_RECONSTRUCTED):
        return value
    state = value.state
    dtype = _numpy_dtype(state[2]) if isinstance(state, tuple) and len(state) == 5 else None
    if dtype is None or state[3] or not isinstance(state[4], bytes) or not isinstance(state[1], tuple):
        return value
    storage = Storage(path, 0, len(state[4]), state[4])
    return row_major(storage, torch.from_numpy(np.empty(0, dtype)).dtype, state[1])


_RECONSTRUCTED = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_TENSORS = {"torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer", "torch.Tensor"}
_TABLES = {"collections.OrderedDict", "collections.defaultdict", "collections.Counter", "builtins.dict"}
_LISTS = {"torch.Size", "builtins.set", "builtins.frozenset", "builtins.list", "__builtin__.set", "__builtin__.list"}
