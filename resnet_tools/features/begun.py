"""An output that is not finished -> the engine that began it, which the job keeps when it is continued."""

from __future__ import annotations

import warnings

from resnet_tools.compute.engines import EXTRAS, find_engine, is_installed
from resnet_tools.errors import FeatureError, Note
from resnet_tools.features.extract import mark_of, read_noted, shard_of
from resnet_tools.features.options import ExtractOptions
from resnet_tools.features.store import OLDEST_ENGINE, job_file


def kept_engine(options: ExtractOptions, asked: str, device: str, precision: str) -> str:
    """`asked`; for `auto`, if it would choose another, the engine of the unfinished job that is continued.

    device, precision: as `find_engine` takes them. If they are others than the job's, the job will be refused for that.
    Raises: FeatureError if that engine is not installed.
    """
    if asked != "auto" or not options.resume:
        return asked
    first = options.output if options.shard_size is None else shard_of(options.output, 0)
    begun = read_noted(job_file(first)) or read_noted(mark_of(first))
    if begun is None:
        return asked
    engine = begun.get("engine", OLDEST_ENGINE)  # a job without one is of a version that had only that
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
    return str(engine)
