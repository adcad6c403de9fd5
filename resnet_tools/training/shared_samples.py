"""Samples in memory that processes share: a million paths reach a new process in no time, and take room once.

Paths are one row of bytes with the part that all begin with left out; pixels and targets are tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resnet_tools.data.samples import Samples

SURROGATES = "surrogatepass"  # file names need not be text


@dataclass(frozen=True)
class SharedPaths:
    """A sequence of N paths. `ends` (N + 1,): where each begins in `rest` and the one before ends."""

    prefix: str
    rest: Tensor
    ends: Tensor

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, k: int) -> str:
        start, end = self.ends[k : k + 2].tolist()
        return self.prefix + self.rest[start:end].numpy().tobytes().decode("utf-8", SURROGATES)

    def __iter__(self) -> Iterator[str]:
        return map(self.__getitem__, range(len(self)))


@dataclass(frozen=True)
class SharedPixels:
    """A sequence of N images (H, W, 3). `values`: (N, H, W, 3)."""

    values: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, k: int) -> NDArray[Any]:
        return self.values[k].numpy()


@dataclass(frozen=True)
class SharedTargets:
    """A sequence of N classes. `values`: (N,)."""

    values: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, k: int) -> int:
        return int(self.values[k])


def shared(samples: Samples) -> Samples:
    """The same samples. Raises: RuntimeError if there is too little shared memory."""
    targets = _shared(torch.tensor(np.asarray(samples.targets, np.int64)))
    return Samples(_shared_images(samples.images), cast(Sequence[int], SharedTargets(targets)), samples.class_names)


def _shared_images(images: Sequence[Any] | NDArray[Any]) -> Any:
    if isinstance(images, np.ndarray):
        return SharedPixels(_shared(torch.tensor(images)))
    if not all(
        isinstance(image, str) for image in images
    ):  # pixels of several sizes, or images of a data set in Python
        return images
    # The first and the last in order have in common what all have.
    first, last = min(images, default=""), max(images, default="")
    prefix = "".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
    parts = [path[len(prefix) :].encode("utf-8", SURROGATES) for path in images]
    ends = torch.zeros(len(parts) + 1, dtype=torch.int64)
    ends[1:] = torch.tensor([len(part) for part in parts], dtype=torch.int64).cumsum(0)
    rest = torch.frombuffer(bytearray(b"".join(parts) or b"\0"), dtype=torch.uint8)
    return SharedPaths(prefix, _shared(rest), _shared(ends))


def _shared(tensor: Tensor) -> Tensor:
    tensor.share_memory_()  # type: ignore[no-untyped-call]
    return tensor
