"""Layers of torch.nn: with the values that torch draws, or without any where weights are assigned next.

A layer without values is of the same class and has the same attributes. Drawing values for weights that come from a
file would take longer than reading that file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar, cast

from torch import nn

L = TypeVar("L", nn.Conv2d, nn.BatchNorm2d, nn.Linear)

_without_values: ContextVar[bool] = ContextVar("without_values", default=False)


@contextmanager
def without_values() -> Iterator[None]:
    """The tensors of layers that are made inside are of the device "meta": they have a shape and no memory."""
    token = _without_values.set(True)
    try:
        yield
    finally:
        _without_values.reset(token)


def layer(kind: type[L], *sizes: Any, **options: Any) -> L:
    if not _without_values.get():
        return kind(*sizes, **options)
    made = _UNDRAWN[kind](*sizes, **options, device="meta")
    made.__class__ = kind  # tools such as torch.fx take only torch's own classes for layers
    return cast(L, made)


class _Undrawn:
    def reset_parameters(self) -> None:
        """Instead of drawing values."""


_UNDRAWN: dict[type, type[Any]] = {
    kind: type(kind.__name__, (_Undrawn, kind), {}) for kind in (nn.Conv2d, nn.BatchNorm2d, nn.Linear)
}
