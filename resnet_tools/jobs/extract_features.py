"""Images in any form and a net -> one row of features for each image, in memory or in a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from resnet_tools.compute.device import kept_settings
from resnet_tools.errors import FeatureError, ImageError
from resnet_tools.features.extract import Extraction
from resnet_tools.features.files import check_format, write_features
from resnet_tools.features.layers import DEFAULT_LAYER, layer_shapes
from resnet_tools.features.opened import open_features
from resnet_tools.features.options import ExtractOptions
from resnet_tools.features.setup import set_up_extraction
from resnet_tools.jobs.defaults import EXTRACTION_BATCH_SIZE
from resnet_tools.jobs.images import GivenImages, given_images
from resnet_tools.jobs.nets import GivenNet, engine_for, file_of, given_net, name_of_net
from resnet_tools.jobs.running import (
    Progress,
    Running,
    counting,
    require_one_of,
    require_whole,
)
from resnet_tools.text import counted

EARLIER = "has no features; an earlier call, whose file was kept, left it out"


@dataclass(frozen=True, eq=False)
class ExtractedFeatures:
    """What `extract_features` gives. Row k of `features` belongs to `names[k]`, the path of the image or `image K`.

    `errors`: name -> why an image has no features. `provenance`: what made them, as plain values: the net and its
    hash, layer, preprocessing, precision, version. `files`: what was written with `output`, the index of shards last.
    """

    names: list[str]
    errors: dict[str, str]
    provenance: dict[str, Any]
    files: list[Path]
    rows_in_memory: NDArray[Any] | None = None

    @cached_property
    def features(self) -> NDArray[Any]:
        """(N, D), or (N, C, h, w) with pool="none"; of a file (N, C h w), read when they are first asked for."""
        if self.rows_in_memory is not None:
            return self.rows_in_memory
        opened = open_features(self.files[-1])
        rows: NDArray[Any] = np.empty((len(opened), opened.width), np.float32)
        for first, block in opened.blocks():
            rows[first : first + len(block)] = block
        return rows

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        left_out = f", {counted(len(self.errors), 'image')} left out" if self.errors else ""
        return f"<features of {counted(len(self.names), 'image')}{left_out}, layer {self.provenance.get('layer')}>"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: names, features, errors, provenance."""
        rows = self.features.tolist()
        return {"names": self.names, "features": rows, "errors": self.errors, "provenance": self.provenance}

    def rows(self) -> list[dict[str, Any]]:
        """One row for each image, for `pandas.DataFrame`: name, f0, f1, ..."""
        flat = self.features.reshape(len(self.names), -1)
        return [
            {"name": name, **{f"f{k}": value for k, value in enumerate(row)}}
            for name, row in zip(self.names, flat.tolist(), strict=True)
        ]


def extract_features(
    images: Any,
    checkpoint: GivenNet = "demo",
    *,
    layer: str = DEFAULT_LAYER,
    pool: Literal["avg", "none"] = "avg",
    l2_normalize: bool = False,
    dtype: Literal["float32", "float16"] = "float32",
    output: str | os.PathLike[str] | None = None,
    shard_size: int | None = None,
    on_error: Literal["skip", "fail", "zero"] = "skip",
    resume: bool = True,
    weights: str | None = None,
    batch_size: int | None = None,
    device: str | int | torch.device = "auto",
    engine: str = "auto",
    precision: str = "single",
    ten_crop: bool = False,
    resize_px: int | None = None,
    crop_px: int | None = None,
    exif_orientation: bool | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> ExtractedFeatures:
    """One row of features for each image, as `resnet extract-features` computes them.

    images, checkpoint and the arguments from `weights` on: as for `classify` (batch_size: by default 32, 64 on a GPU).
    layer: the module whose output is taken, by default the classifier's input, (N, D). pool: `avg` averages each
    channel over all positions, `none` keeps the map. l2_normalize: scale each row to length 1. dtype: of the rows.
    output: write a file (.pt .npy .npz .safetensors .parquet .csv .h5 .t7), or with `shard_size` numbered ones and an
    index. If all images are files, a call that was interrupted continues when it is repeated, unless `resume` is False.
    on_error: `skip` leaves out an image that cannot be read or gives NaN, `zero` writes zeros, `fail` stops.

    Returns: `features`, `names`, `errors`, `provenance`; with `output` the rows are read from there when asked for.
    Raises: ImageError if a single image cannot be read, or with on_error="fail"; FeatureError if a file cannot be
    written, belongs to another job, or nothing is to be written; CheckpointError and other ResnetToolsErrors.

    >>> from resnet_tools import extract_features
    >>> found = extract_features("resnet_tools/assets/images", l2_normalize=True)
    >>> found.features.shape, found.names[1]
    ((10, 64), 'resnet_tools/assets/images/bag.png')
    """
    require_one_of("pool", pool, ("avg", "none"))
    require_one_of("dtype", dtype, ("float32", "float16"))
    require_one_of("on_error", on_error, ("skip", "fail", "zero"))
    require_whole("shard_size", shard_size, 1)
    target = None if output is None else Path(output)
    running = Running(batch_size, device, engine, precision, resize_px, crop_px, ten_crop, exif_orientation, workers)
    options = ExtractOptions(
        name_of_net(checkpoint), target or Path(), shard_size, layer, False, pool, l2_normalize, dtype, on_error,
        resume, True, weights,
    )  # fmt: skip
    with kept_settings():
        job, given = _job(images, checkpoint, options, running)
        count = counting(progress, len(given.names))
        if target is not None and given.paths is not None:
            return _in_files(job, given.paths, target, shard_size, count)
        return _in_memory(job, given, target, shard_size, count)


def _job(
    images: Any, checkpoint: GivenNet, options: ExtractOptions, running: Running
) -> tuple[Extraction, GivenImages]:
    net = given_net(checkpoint, options.weights)
    loading = running.loading(net.preprocessing, EXTRACTION_BATCH_SIZE)
    given = given_images(images, exif=loading.preprocessing.exif_orientation)
    layers = layer_shapes(net.model, loading.preprocessing.crop_px)
    if options.layer not in layers:
        raise FeatureError(f"layer {options.layer!r:.80} is not in {options.model}; it has {', '.join(layers)}")
    file, device, engine = file_of(checkpoint), running.found_device(), engine_for(checkpoint, running.engine)
    job = set_up_extraction(options, file, net, loading, device, running.precision, given.names, engine)
    return job, given


def _in_files(job: Extraction, paths: list[str], output: Path, shard_size: int | None, count: Any) -> ExtractedFeatures:
    files = job.run(paths, output, shard_size, count)
    names = open_features(files[-1]).names
    missing = {path: EARLIER for path in paths} if len(names) < len(paths) else {}
    for name in names:
        missing.pop(name, None)
    reasons = {name: reason.removeprefix(f"{name}: ") for name, reason in job.reasons.items()}
    return ExtractedFeatures(names, missing | reasons, job.provenance, files)


def _in_memory(
    job: Extraction, given: GivenImages, output: Path | None, shard_size: int | None, count: Any
) -> ExtractedFeatures:
    if output is not None:
        check_format(output, given.names)
    made = job.in_memory(given.sources, count)
    if given.single and made.errors:
        raise ImageError(made.errors[0][1])
    errors = {name: reason.removeprefix(f"{name}: ") for name, reason in made.errors}
    files: Sequence[Path] = []
    if output is not None:
        if shard_size is not None:
            raise FeatureError("shard_size needs images that are files, and some are in memory; leave it out")
        if len(made.errors) == len(given.names):
            raise FeatureError(f"none of the {len(given.names)} images could be used; {output} was not written")
        write_features(made, output)
        files = [output]
    return ExtractedFeatures(made.paths, errors, job.provenance, list(files), made.rows)
