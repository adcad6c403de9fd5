"""Batches on their way to a GPU: the next one is copied while the current one is computed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

B = TypeVar("B")


def ahead_on_device(batches: Iterator[B], device: torch.device) -> Iterator[B]:
    """The same batches, dataclasses, with their tensors on `device`; elsewhere than on a GPU, as they are.

    Another thread takes the next batch, and a stream of its own copies it, so neither the GPU nor its caller waits for
    either. Memory for two batches is in use on the GPU.
    """
    if device.type != "cuda":
        yield from batches
        return
    copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def copied() -> tuple[B, torch.cuda.Event] | None:
        batch = next(batches, None)
        if batch is None:
            return None
        with torch.cuda.stream(copies):
            # Only from page-locked memory does a copy overlap with computation.
            tensors = {name: value.pin_memory().to(device, non_blocking=True) for name, value in _tensors(batch)}
            return replace(batch, **tensors), copies.record_event()  # type: ignore[type-var]

    with ThreadPoolExecutor(1, "copy") as pool:
        waiting = pool.submit(copied)
        while (ready := waiting.result()) is not None:
            waiting = pool.submit(copied)
            batch, event = ready
            current = torch.cuda.current_stream(device)
            current.wait_event(event)
            for _, tensor in _tensors(batch):
                # Made on the other stream, the memory would be given away while this one still reads it.
                tensor.record_stream(current)
            yield batch


def _tensors(batch: Any) -> list[tuple[str, Tensor]]:
    values = ((field.name, getattr(batch, field.name)) for field in fields(batch))
    return [(name, value) for name, value in values if isinstance(value, Tensor)]
