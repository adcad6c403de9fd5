"""Lua values in Python: what `read_t7` returns.

=============================  ===============================================================
Lua                            Python
=============================  ===============================================================
nil, boolean                   None, bool
number                         int when integral, within 2**53 and not -0.0; else float
string                         bytes, as they stand in the file
table                          LuaTable
object of a torch class        LuaObject, tds containers too
tensor, storage                T7Tensor, T7Storage: read-only views into the mapped file
function                       LuaFunction: opaque, never run
=============================  ===============================================================

Tables, objects, tensors, storages and functions have identity: two references in the file are one Python object.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping
from typing import Any, NoReturn

import numpy as np
import torchfile


class LuaTable(dict[Any, Any]):
    """A Lua table: always a dict, in the order of the file, never converted to a list.

    `t["name"]` finds the key b"name" as `t[b"name"]` does. The keys True and 1 differ, as do False and 0; the
    numbers 1 and 1.0 are one key. Tables, objects and arrays are keys by identity. Tables compare and hash by
    identity, and their repr does not descend, so a table may contain itself.
    """

    __slots__ = ()

    def __init__(self, items: Iterable[tuple[Any, Any]] = ()) -> None:
        super().__init__()
        for key, value in items:
            self[key] = value

    def to_list(self) -> list[Any]:
        """The values of the keys 1, 2, ... n. ValueError when the table has any other key or a hole."""
        values = [self[index] for index in range(1, len(self) + 1) if index in self]
        if len(values) != len(self):
            missing = next(index for index in range(1, len(self) + 1) if index not in self)
            raise ValueError(f"the table is not a list: it has {len(self)} keys, but not the key {missing}")
        return values

    def __getitem__(self, key: Any) -> Any:
        try:
            return super().__getitem__(_stored(key))
        except KeyError:
            raise KeyError(key) from None

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(_stored(key), value)

    def __delitem__(self, key: Any) -> None:
        super().__delitem__(_stored(key))

    def __contains__(self, key: Any) -> bool:
        return super().__contains__(_stored(key))

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get(key.encode() if type(key) is str else _stored(key), default)

    def pop(self, key: Any, *default: Any) -> Any:
        return super().pop(_stored(key), *default)

    def __iter__(self) -> Iterator[Any]:
        for key in super().__iter__():
            yield key.key if type(key) is _IdentityKey else key

    def copy(self) -> LuaTable:
        return LuaTable(self.items())

    # The rest of the mapping on top of the methods above; dict's own would show the stored keys.
    keys = MutableMapping.keys  # type: ignore[assignment]
    items = MutableMapping.items  # type: ignore[assignment]
    popitem = MutableMapping.popitem
    setdefault = MutableMapping.setdefault
    update = MutableMapping.update
    __or__ = __ror__ = __ior__ = __reversed__ = None  # type: ignore[assignment]

    __hash__ = object.__hash__  # type: ignore[assignment]
    __eq__ = object.__eq__
    __ne__ = object.__ne__

    def __repr__(self) -> str:
        return f"<LuaTable of {len(self)}>"


class _IdentityKey:
    """Stands in for a key that Python would confuse (True with 1) or cannot hash (an array)."""

    __slots__ = ("key",)

    def __init__(self, key: Any) -> None:
        self.key = key

    def __hash__(self) -> int:
        return id(self.key)

    def __eq__(self, other: object) -> bool:
        return type(other) is _IdentityKey and other.key is self.key


def _stored(key: Any) -> Any:
    """The key under which a LuaTable keeps `key`."""
    if isinstance(key, str):
        return key.encode()
    if isinstance(key, bool | np.ndarray):
        return _IdentityKey(key)
    return key


class LuaObject(torchfile.TorchObject):  # type: ignore[misc]
    """An object of a torch class: `class_name`, class `version` (0 in files older than versions) and `fields`.

    `obj["weight"]` and `obj.get("weight")` read fields; attributes never do, so a field called `version` hides
    nothing. `gpu_assignments` is the list that `nn.DataParallelTable` writes before its fields.
    """

    def __init__(self, class_name: str, version: int = 0, fields: LuaTable | None = None) -> None:
        super().__init__(class_name, LuaTable() if fields is None else fields, version)
        self.gpu_assignments: LuaTable | None = None

    @property
    def class_name(self) -> str:
        name: str = self._typename
        return name

    @property
    def version(self) -> int:
        version: int = self._version_number
        return version

    @property
    def fields(self) -> LuaTable:
        fields: LuaTable = self._obj
        return fields

    @fields.setter
    def fields(self, fields: LuaTable) -> None:
        self._obj = fields

    def get(self, name: Any, default: Any = None) -> Any:
        return self._obj.get(name, default)

    def __getitem__(self, name: Any) -> Any:
        if name not in self.fields:
            raise KeyError(f"{self.class_name} has no field {name!r}")
        return self.fields[name]

    def __contains__(self, name: Any) -> bool:
        return name in self.fields

    def __getattr__(self, name: str) -> NoReturn:
        # TorchObject would look in its fields, without end while they are not set, and answer None.
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}; fields are read as object[{name!r}]")

    __dir__ = object.__dir__
    __iter__ = None

    def __repr__(self) -> str:
        return f"<LuaObject {self.class_name} of {len(self.fields)}>"


class LuaFunction:
    """A function as the file holds it: LuaJIT or Lua bytecode, and the table of its upvalues. It is never run.

    `tag` is the record's type: 8 lists upvalues as {name=, value=} (or {id=, ...}), the older 7 and 6 as values.
    """

    def __init__(self, tag: int, dumped: bytes, upvalues: LuaTable | None = None) -> None:
        self.tag = tag
        self.dumped = dumped
        self.upvalues = upvalues

    def __repr__(self) -> str:
        return f"<LuaFunction of {len(self.dumped)} bytes>"


class T7Storage(np.ndarray[Any, Any]):
    """A 1-D array over the file. `torch_type` is e.g. "torch.FloatStorage"; None on anything derived from it."""

    torch_type: str | None = None

    __hash__ = object.__hash__  # type: ignore[assignment]


class T7Tensor(np.ndarray[Any, Any]):
    """An array with the shape and strides of a torch tensor, looking into its storage.

    `torch_type` is e.g. "torch.CudaTensor", `storage` the T7Storage that tensors may share (None if the file has
    none) and `storage_offset` the tensor's first element in it, from 0. They describe the tensor of the file; slices,
    copies and results of arithmetic have None. A tensor without dimensions has the shape (0,).
    """

    torch_type: str | None = None
    storage: T7Storage | None = None
    storage_offset: int | None = None

    __hash__ = object.__hash__  # type: ignore[assignment]
