"""Lua objects -> the bytes of a .t7 file, for tests and benchmarks that need files larger than the golden ones."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from resnet_tools.torch7.lua import LuaObject, LuaTable


def write_flattened(path: Path, net: LuaObject, *, gradients: bool = True) -> None:
    """Write a net as the training program does: all weights are views into one storage, as after getParameters().

    With `gradients` a second storage of the same size holds gradWeight and gradBias, so the file is twice the weights.
    """
    path.write_bytes(_Writer(net, gradients).whole())


class _Writer:
    def __init__(self, net: LuaObject, gradients: bool) -> None:
        self.parts: list[bytes] = []
        self.index = 0
        self.weights = [
            array for item in objects(net) for array in item.fields.values() if isinstance(array, np.ndarray)
        ]
        starts = np.cumsum([0, *(array.size for array in self.weights)])
        self.offset = {id(array): int(start) for array, start in zip(self.weights, starts, strict=False)}
        self.storages: dict[str, int] = {}
        self.gradients = gradients
        self.net = net

    def whole(self) -> bytes:
        self.value(self.net)
        return b"".join(self.parts)

    def value(self, value: object) -> None:
        if isinstance(value, bool):
            self.parts.append(struct.pack("<ii", 5, value))
        elif isinstance(value, (int, float)):
            self.parts.append(struct.pack("<id", 1, value))
        elif isinstance(value, bytes):
            self.parts.append(struct.pack("<ii", 2, len(value)) + value)
        elif isinstance(value, np.ndarray):
            self.tensor(value, "weights")
        elif isinstance(value, LuaObject):
            self.begin(4, value.class_name)
            self.table(list(self.fields(value)))
        elif isinstance(value, LuaTable):
            self.table(list(value.items()))
        else:
            raise TypeError(f"cannot write {value!r}")

    def fields(self, item: LuaObject) -> Iterator[tuple[object, object]]:
        yield from item.fields.items()
        for name in (b"weight", b"bias"):
            if self.gradients and name in item.fields:
                yield b"grad" + name.title(), ("gradients", item.fields[name])

    def table(self, items: list[tuple[object, object]]) -> None:
        self.begin(3)
        self.parts.append(struct.pack("<i", len(items)))
        for key, item in items:
            self.value(key)
            if isinstance(item, tuple):
                self.tensor(item[1], item[0])
            else:
                self.value(item)

    def tensor(self, array: np.ndarray, storage: str) -> None:
        self.begin(4, "torch.CudaTensor")
        strides = [stride // 4 for stride in array.strides]
        self.parts.append(struct.pack("<i", array.ndim))
        self.parts.append(struct.pack(f"<{2 * array.ndim + 1}q", *array.shape, *strides, 1 + self.offset[id(array)]))
        if storage in self.storages:
            self.parts.append(struct.pack("<ii", 4, self.storages[storage]))
            return
        self.begin(4, "torch.CudaStorage")
        self.storages[storage] = self.index
        self.parts.append(struct.pack("<q", sum(weight.size for weight in self.weights)))
        self.parts += [w.tobytes() if storage == "weights" else bytes(w.nbytes) for w in self.weights]

    def begin(self, tag: int, class_name: str | None = None) -> None:
        self.index += 1
        self.parts.append(struct.pack("<ii", tag, self.index))
        for text in () if class_name is None else (b"V 1", class_name.encode()):
            self.parts.append(struct.pack("<i", len(text)) + text)


def objects(net: LuaObject) -> Iterator[LuaObject]:
    """The module and all below it."""
    yield net
    for child in (net.get("modules") or LuaTable()).values():
        yield from objects(child)
