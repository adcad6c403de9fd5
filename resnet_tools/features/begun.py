"""An output that is not finished -> the engine that began it, which the job keeps when it is continued."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from resnet_tools.compute.engines import EXTRAS, find_engine, is_installed
from resnet_tools.errors import FeatureError, Note, ResnetToolsError
from resnet_tools.features.extract import mark_of, read_noted, shard_of
from resnet_tools.features.opened import open_features
from resnet_tools.features.options import ExtractOptions
from resnet_tools.features.store import job_file


def kept_engine(options: ExtractOptions, asked: str, device: str, precision: str) -> str:
    """`asked`; for `auto`, if it would choose another, the engine of the unfinished job that is continued.

    device, precision: as `find_engine` takes them. If they are others than the job's, the job will be refused for that.
    Raises: FeatureError if that engine is not installed.
    """
    if asked != "auto" or not options.resume:
        return asked
    begun = _begun(options)
    engine = begun.get("engine")
    if not isinstance(engine, str):  # nobody knows; the job is refused, or its finished shards are made again
        return asked
    same_precision = begun.get("precision", precision) == precision
    on_cpu = device in ("auto", "cpu") and begun.get("device", "cpu") == "cpu"
    possible = engine == "torch" or (engine in EXTRAS and on_cpu)
    if not (same_precision and possible) or engine == find_engine(asked, device, precision):
        return asked
    if not is_installed(engine):
        raise FeatureError(
            f"{options.output}: is unfinished, and {engine}, which began it, is not installed. Install it (pip install "
            f"'resnet_tools[{EXTRAS[engine]}]') to continue, or give --no-resume to start over"
        )
    warnings.warn(f"{options.output}: is continued with {engine}, which began it", Note, stacklevel=2)
    return engine


def _begun(options: ExtractOptions) -> Mapping[str, Any]:
    """What is noted of the unfinished job: of the shard that was being made, or of the one before; empty if nothing."""
    if options.shard_size is None:
        return read_noted(job_file(options.output)) or {}
    number = next(n for n in count() if not os.path.exists(mark_of(shard_of(options.output, n))))
    noted = read_noted(job_file(shard_of(options.output, number)))
    return noted or (_finished(shard_of(options.output, number - 1)) if number else {})


def _finished(shard: Path) -> Mapping[str, Any]:
    """What is noted of a finished shard; a mark of an older version has no engine, but most files of features do."""
    noted = read_noted(mark_of(shard)) or {}
    if "engine" not in noted:
        with suppress(ResnetToolsError):
            return open_features(shard).provenance
    return noted
