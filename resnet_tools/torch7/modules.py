"""Lua objects -> module tree: nn.* and cudnn.* classes without the fields that only Lua needs.

In: any value that `read_t7` gives. Out: a tree of `Module`, each with its path, class, plain fields and the tensors
that are weights or running statistics; gradients and buffers are left behind unread.

Paths are child numbers from 1, joined by dots, as in `net:get(5):get(1)`: "5.1"; the root is "".
Source: the Lua files of torch/nn, torch/cunn and soumith/cudnn.torch, for fields, defaults and printed forms.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np

from resnet_tools.errors import ModuleError
from resnet_tools.torch7.lua import LuaFunction, LuaObject, LuaTable

Scalar = int | float | bool | str | tuple[int, ...]

TENSORS = ("weight", "bias", "running_mean", "running_var")
PACKAGES = ("nn", "cudnn")
KINDS = {  # classes with another name and the same meaning
    "SpatialConvolutionMM": "SpatialConvolution",
    "BatchNormalization": "SpatialBatchNormalization",
}
MAX_NESTING = 64  # a residual net nests 5 deep
MAX_MODULES = 20_000  # the 1202-layer net has about 9,000
NESTED_NET_KEYS = ("model", "net", "network", "modules")
CLASS_NAME_KEYS = ("classes", "classList", "class_names", "labels")
_NAMES = {
    type(None): "nil",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    bytes: "a string",
    LuaFunction: "a function",
}
TDS_CLASSES = ("tds.Hash", "tds.Vec")


@dataclass(frozen=True)
class Module:
    """One module of a net. `tensors` are its weights and running statistics, views into the file."""

    path: str
    item: LuaObject
    tensors: Mapping[str, np.ndarray[Any, Any]]
    children: tuple[Module, ...] = ()
    replicas: int = 1  # number of GPUs of the nn.DataParallelTable around it
    input_scale: float = 1.0  # what its input is multiplied by before it

    @property
    def class_name(self) -> str:
        return self.item.class_name

    @cached_property
    def kind(self) -> str:
        """The class without its package: SpatialConvolution for nn., cudnn. and nn.SpatialConvolutionMM alike.

        A class of another package keeps its whole name: it may compute anything.
        """
        package, _, name = self.class_name.rpartition(".")
        return KINDS.get(name, name) if package in PACKAGES else self.class_name

    @cached_property
    def fields(self) -> Mapping[str, Scalar]:
        """The fields that are numbers, booleans and strings, and the `size` of a view as a tuple."""
        return dict(_scalars(self.item))

    @property
    def where(self) -> str:
        """Its name in messages."""
        return f"module {self.path}" if self.path else "the root module"

    def number(self, name: str, default: int) -> int:
        """An integer field. Raises: ModuleError if it is something else."""
        value = self.item.get(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not float(value).is_integer():
            raise ModuleError(f"{self.where} ({self.class_name}): {name} is {value!r:.60}; expected a whole number")
        return int(value)

    def walk(self) -> Iterator[Module]:
        """This module and all below it, each parent before its children."""
        yield self
        for child in self.children:
            yield from child.walk()


def module_tree(value: object) -> Module:
    """The net in a Lua value: the value itself, the one inside an nn.DataParallelTable, or the one in a table.

    Raises: ModuleError if there is none, if a module contains itself, or if a weight is not a tensor of numbers.
    """
    return _TreeBuilder().module(_find_net(value), "", ())


def classes_in(value: object, count: int) -> list[str] | None:
    """The `count` class names in a table such as {model = net, classes = {"cat", "dog"}}, or None."""
    return next((names for _, names in _class_lists(value) if len(names) == count), None)


def other_classes_in(value: object, count: int) -> str | None:
    """What is said of class names in such a table that are not `count`."""
    key, names = next(_class_lists(value), ("", []))
    if not names or classes_in(value, count) is not None:
        return None
    return f"{key} in it is ignored: it has {len(names)} names; expected one for each of {count}"


def _class_lists(value: object) -> Iterator[tuple[str, list[str]]]:
    """The lists of strings under the keys that usually hold class names."""
    table = value.fields if isinstance(value, LuaObject) else value
    for key in CLASS_NAME_KEYS:
        names = table.get(key) if isinstance(table, LuaTable) else None
        if isinstance(names, LuaTable) and set(names) == set(range(1, len(names) + 1)):
            listed = names.to_list()
            if all(isinstance(name, bytes) for name in listed):
                yield key, [name.decode(errors="replace") for name in listed]


def _find_net(value: object) -> LuaObject:
    """The net itself, or the shallowest in nested tables and objects; keys that usually hold a net go first."""
    queue: deque[object] = deque([value])
    seen: set[int] = set()
    while queue:
        table = queue.popleft()
        if isinstance(table, LuaObject):
            if isinstance(table.get("modules"), LuaTable):
                return table
            table = table.fields  # a tds container, or an object such as a trainer that has the net in a field
        if not isinstance(table, LuaTable) or id(table) in seen:
            continue
        seen.add(id(table))
        first = [table.get(key) for key in NESTED_NET_KEYS]
        queue.extend(v for v in (*first, *table.values()) if isinstance(v, (LuaObject, LuaTable)))
    if isinstance(value, LuaObject) and value.class_name not in TDS_CLASSES:
        return value  # a net of one module, or none: errors about it name its class
    raise ModuleError(f"there is no network in it: the file holds {_summary(value)}")


def _summary(value: object) -> str:
    if isinstance(value, LuaTable):
        keys = [k.decode(errors="replace") if isinstance(k, bytes) else str(k) for k in islice(value, 6)]
        more = ", ..." if len(value) > len(keys) else ""
        return f"a table with the keys {', '.join(keys)}{more}" if keys else "an empty table"
    if isinstance(value, LuaObject):
        return f"an object of the class {value.class_name}"
    return _NAMES.get(type(value)) or f"a {getattr(value, 'torch_type', None) or type(value).__name__}"


def _table(value: object) -> LuaTable:
    return value if isinstance(value, LuaTable) else LuaTable()


def _children(module: LuaObject, path: str) -> list[LuaObject]:
    modules = module.get("modules")
    if modules is None:
        return []
    where = f"module {path}" if path else "the root module"
    if not isinstance(modules, LuaTable):
        raise ModuleError(f"{where} ({module.class_name}): modules is {_summary(modules)}; expected a list of modules")
    try:
        listed = modules.to_list()
    except ValueError as error:
        raise ModuleError(f"{where} ({module.class_name}): modules is not a list: {error}") from None
    for number, child in enumerate(listed, 1):
        if not isinstance(child, LuaObject):
            raise ModuleError(f"{where} ({module.class_name}): child {number} is {_summary(child)}; expected a module")
    return listed


class _TreeBuilder:
    """Builds the tree and counts its modules, as a few bytes can refer to one module a million times."""

    def __init__(self) -> None:
        self.count = 0
        self.tensors: dict[int, dict[str, np.ndarray[Any, Any]]] = {}

    def module(self, item: LuaObject, path: str, ancestors: tuple[int, ...], replicas: int = 1) -> Module:
        self.count += 1
        where = f"module {path}" if path else "the root module"
        if id(item) in ancestors:
            raise ModuleError(f"{where} ({item.class_name}) contains itself; a network cannot")
        if len(ancestors) >= MAX_NESTING or self.count > MAX_MODULES:
            raise ModuleError(f"{where}: more than {MAX_MODULES} modules or {MAX_NESTING} levels; not a residual net")
        below = (*ancestors, id(item))
        if item.class_name == "nn.DataParallelTable":
            return self.module(_replica(item, where), path, below, _gpus(item))
        children = tuple(
            self.module(child, f"{path}.{number}".lstrip("."), below)
            for number, child in enumerate(_children(item, path), 1)
        )
        if id(item) not in self.tensors:
            self.tensors[id(item)] = _tensors(item, where)
        return Module(path, item, self.tensors[id(item)], children, replicas)


def _replica(table: LuaObject, where: str) -> LuaObject:
    children = _children(table, "")
    if table.get("dimension", 1) != 1:
        raise ModuleError(
            f"{where}: the nn.DataParallelTable splits dimension {table.get('dimension')!r:.20}; expected 1"
        )
    if not children:
        raise ModuleError(f"{where}: the nn.DataParallelTable holds no network; expected one in its field modules[1]")
    return children[0]


def _gpus(table: LuaObject) -> int:
    return max(1, len(_table(table.gpu_assignments) or _table(table.get("gpuAssignments"))))


def _scalars(item: LuaObject) -> Iterator[tuple[str, Scalar]]:
    for key, value in item.fields.items():
        if not isinstance(key, bytes):
            continue
        name = key.decode(errors="backslashreplace")
        if isinstance(value, bytes):
            yield name, value.decode(errors="backslashreplace")
        elif isinstance(value, (bool, int, float)):
            yield name, value
        elif name == "size" and isinstance(value, np.ndarray) and value.size <= 16 and value.dtype.kind == "i":
            yield name, tuple(int(n) for n in value)


def _tensors(item: LuaObject, where: str) -> dict[str, np.ndarray[Any, Any]]:
    found = {}
    for name in (*TENSORS, "running_std"):
        value = item.get(name)
        if value is None:
            continue
        if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
            raise ModuleError(
                f"{where} ({item.class_name}): {name} is {_summary(value)}; expected a tensor of floating-point numbers"
            )
        if value.size > stored_in(value).size:
            raise ModuleError(
                f"{where} ({item.class_name}): {name} has {value.size} elements over fewer stored ones; "
                "expected a weight that is stored in full"
            )
        if value.size:
            found[name] = value
    std = found.pop("running_std", None)
    if std is not None and item.version < 2:
        found["running_var"] = _variance_of_inverse_std(std, item.get("eps", 1e-5))
    return found


def stored_in(tensor: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The storage that a tensor views; an array that is no view of a file is its own."""
    storage = getattr(tensor, "storage", None)
    return tensor if storage is None else storage


def _variance_of_inverse_std(running_std: np.ndarray[Any, Any], eps: object) -> np.ndarray[Any, Any]:
    """Class version 1 of batch norm holds (variance + eps)^-0.5. Source: BN:read in BatchNormalization.lua."""
    with np.errstate(all="ignore"):
        variance = running_std.astype(np.float64) ** -2 - (float(eps) if isinstance(eps, (int, float)) else 1e-5)
    return np.asarray(variance.astype(running_std.dtype))
