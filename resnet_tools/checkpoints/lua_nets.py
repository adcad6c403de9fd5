"""A Lua value -> the net in it, chosen, and reported, if there are several; numbers beyond float32 are refused."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnet_tools.errors import CheckpointError
from resnet_tools.torch7.lua import LuaObject, LuaTable
from resnet_tools.torch7.template import Bound

MAX_TABLES = 10_000


def net_of_tables(value: Any, wanted: str | None = None) -> tuple[Any, list[str]]:
    """The net at `wanted`, or the one to prefer, and what is told of the choice; the value itself if it has no choice.

    Raises: CheckpointError if there is no net at `wanted`.
    """
    nets = _nets(value)
    if wanted is None and len(nets) < 2:
        return value, []
    from resnet_tools.checkpoints.net_weights import Place, choose

    place, notes = choose([Place(name, "") for name in nets], wanted)
    return nets[place.name], notes


def _nets(value: Any) -> dict[str, LuaObject]:
    """The nets in nested tables and objects by the keys that lead to them, the outer ones first."""
    found: dict[str, LuaObject] = {}
    waiting: deque[tuple[str, Any]] = deque([("", value)])
    seen: set[int] = set()
    while waiting and len(seen) < MAX_TABLES:
        name, item = waiting.popleft()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, LuaObject) and isinstance(item.get("modules"), LuaTable):
            found[name] = item
            continue
        table = item.fields if isinstance(item, LuaObject) else item  # an object such as a trainer has it in a field
        if isinstance(table, LuaTable):
            waiting.extend((f"{name}.{_key(key)}".lstrip("."), inner) for key, inner in table.items())
    return found


def _key(key: Any) -> str:
    return key.decode(errors="backslashreplace") if isinstance(key, bytes) else str(key)


def check_doubles(weights: Mapping[str, NDArray[Any]], bound: Bound) -> None:
    """Raises: CheckpointError if a finite number of the file has become infinite as float32."""
    for key, array in weights.items():
        module, name = key.rpartition(".")[::2]
        source = bound[module][0].tensors.get(name) if module in bound else None
        if source is None or source.dtype.itemsize <= 4:
            continue
        if np.isinf(array).any() and np.isfinite(source).all():
            largest = float(np.abs(source).max())
            raise CheckpointError(f"{key} holds {largest:g}, which is beyond float32, in which nets compute")
