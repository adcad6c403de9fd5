"""The options of an extraction and a net -> the job, and what made its features."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from resnet_tools import __version__
from resnet_tools.checkpoints.runnable import Net, Runnable, engine_of, ready_net
from resnet_tools.compute.inference import Loading
from resnet_tools.data.fetched import stdin_bytes
from resnet_tools.data.files import STDIN
from resnet_tools.data.image import MAX_FILE_BYTES
from resnet_tools.features.extract import Extraction
from resnet_tools.features.layers import FeatureKind, may_fold
from resnet_tools.features.options import ExtractOptions
from resnet_tools.reading import Digest, hashed

NO_FILE = "a net in Python"


def set_up_extraction(
    options: ExtractOptions,
    model_file: Path | None,
    checkpoint: Runnable,
    loading: Loading,
    device: torch.device,
    precision: str,
    paths: Sequence[str],
    engine: str = "auto",
) -> Extraction:
    """The job, with the net made ready by its engine on its device. model_file: None of a net that is in no file.

    Raises: DeviceMemoryError; ImageError if stdin gives no image.
    """
    kind = FeatureKind(options.layer, options.pool, options.l2_normalize, options.dtype)
    provenance = provenance_of(model_file, checkpoint.model, kind, loading, precision, device.type)
    if STDIN in paths:  # it may hold another image each time, and its name does not tell
        provenance["stdin_sha256"] = hashlib.sha256(stdin_bytes(MAX_FILE_BYTES)).hexdigest()
    net = ready_net(checkpoint, engine, device, precision, layer=options.layer, fold=may_fold(options.layer))
    provenance["engine"] = engine_of(net)
    return Extraction(net, kind, loading, provenance, options.on_error, options.resume)


def provenance_of(
    model_path: Path | None, net: Net, kind: FeatureKind, loading: Loading, precision: str, device: str
) -> dict[str, Any]:
    """What made the features, as plain values: the model's file and hash, the layer, the preprocessing, the version.

    model_path: None of a net that is in no file; the hash is then that of its weights.
    device: cpu or cuda, which round differently.
    """
    digest = _of_weights(net) if model_path is None else hashed(model_path, hashlib.sha256())
    return {
        "model": NO_FILE if model_path is None else os.fspath(model_path),
        "model_sha256": digest.hexdigest(),
        "architecture": None if net.architecture is None else net.architecture.to_dict(),
        **asdict(kind),
        "preprocessing": loading.preprocessing.to_dict(),
        "ten_crop": loading.ten_crop,
        "exif_orientation": loading.preprocessing.exif_orientation,
        "precision": precision,
        "device": device,
        "batch_size": loading.batch_size,
        "version": __version__,
    }


def _of_weights(net: Net) -> Digest:
    """The hash of the names and values of all weights."""
    digest = hashlib.sha256()
    if isinstance(net, torch.nn.Module):
        for name, tensor in net.state_dict().items():
            digest.update(name.encode() + b"\0")
            digest.update(tensor.detach().cpu().float().contiguous().numpy())
    return digest
