"""An evaluation -> its error rates, how they were measured, and the published ones, as plain values for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from math import isfinite
from typing import Any

from resnet_tools import __version__
from resnet_tools.compute.inference import Loading
from resnet_tools.evaluation.evaluate import Evaluation
from resnet_tools.evaluation.report.tables import class_errors, macro_means, weighted_means
from resnet_tools.metrics import TOP_K
from resnet_tools.nets.architecture import Architecture
from resnet_tools.nets.catalog import describe, published_errors


def summary(
    evaluation: Evaluation, architecture: Architecture | None, loading: Loading, conditions: Mapping[str, Any]
) -> dict[str, Any]:
    """Errors in percent of the images that could be read. `published`: those of the same architecture, or None.
    `macro` and `weighted`: see `tables.MeanScores`.

    conditions: how else it was measured; these come first.
    """
    counts, samples, per_class = evaluation.counts, evaluation.samples, class_errors(evaluation)
    return {
        **conditions,
        "images": counts.images,
        "classes": len(samples.class_names),
        "top1_error": counts.top1_error,
        "top5_error": counts.top5_error,
        "top5_k": min(TOP_K, len(samples.class_names)),
        "accuracy": 100 * (counts.images - counts.top1_wrong) / counts.images,
        "macro": asdict(macro_means(per_class)),
        "weighted": asdict(weighted_means(per_class)),
        "loss": counts.loss if isfinite(counts.loss) else None,
        "published": None if architecture is None else _published(evaluation, architecture, loading),
        "unreadable": [{"path": samples.name(k), "reason": reason} for k, reason in sorted(evaluation.errors.items())],
        "architecture": "an ONNX graph" if architecture is None else describe(architecture),
        "preprocessing": loading.preprocessing.to_dict(),
        "ten_crop": loading.ten_crop,
        "average": evaluation.average if loading.ten_crop else None,
        "exif_orientation": loading.preprocessing.exif_orientation,
        "batch_size": loading.batch_size,
        "version": __version__,
    }


def _published(evaluation: Evaluation, architecture: Architecture, loading: Loading) -> dict[str, float] | None:
    sizes = loading.preprocessing
    errors = published_errors(
        architecture,
        len(evaluation.samples),
        resize_px=sizes.resize_px,
        crop_px=sizes.crop_px,
        ten_crop=loading.ten_crop,
    )
    as_published = evaluation.average == "outputs"  # so were the published errors of ten crops
    return {"top1_error": errors[0], "top5_error": errors[1]} if errors and as_published else None
