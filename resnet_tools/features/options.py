"""The options of `resnet extract-features`, except those about images and running nets on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class ExtractOptions:
    """The fields are named as the options are; None stands for an option that was not given."""

    model: str
    output: Path
    shard_size: int | None
    layer: str
    list_layers: bool
    pool: Literal["avg", "none"]
    l2_normalize: bool
    dtype: Literal["float32", "float16"]
    on_error: Literal["skip", "fail", "zero"]
    resume: bool
    quiet: bool
    weights: str | None
