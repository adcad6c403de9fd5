"""A run -> what a person looks at: views of its training images, its curves, and the report of its best net.

augmented.png  the first training images as the net sees them, drawn at the start
training.png   errors and losses by epoch
report/        the report of `resnet evaluate` on the validation images
confusion.png  the confusion matrix in it
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from resnet_tools.checkpoints.checkpoint import load_checkpoint
from resnet_tools.checkpoints.runnable import prepare_net
from resnet_tools.evaluation.evaluate import evaluate
from resnet_tools.evaluation.explanations import mistake_maps
from resnet_tools.evaluation.report.files import begin_report, write_report
from resnet_tools.evaluation.report.summary import summary
from resnet_tools.history.history import Epoch
from resnet_tools.history.plotting import draw_training
from resnet_tools.training.run import RunData
from resnet_tools.training.run_files import BEST
from resnet_tools.training.run_state import RunState
from resnet_tools.training.views import training_views
from resnet_tools.writing import written_whole

VIEWS, CURVES, CONFUSION, REPORT = "augmented.png", "training.png", "confusion.png", "report"


def draw_views(data: RunData, state: RunState, folder: Path) -> list[Path]:
    """Raises: ImageError, OSError."""
    views = training_views(data.train, data.transform, data.loading.preprocessing, state.seed, state.epoch + 1)
    with written_whole(folder / VIEWS) as partial:
        views.save(partial)
    return [folder / VIEWS]


def draw_curves(history: Sequence[Epoch], folder: Path) -> list[Path]:
    """Raises: ResnetToolsError."""
    draw_training(history, folder / CURVES)
    return [folder / CURVES]


def report_best_net(
    data: RunData, folder: Path, where: str, device: torch.device, progress: Callable[[int, list[str]], None]
) -> list[Path]:
    """The report of the best net on the validation images, which `where` names. progress: as for `evaluate`.

    Raises: ResnetToolsError, OSError.
    """
    report, best = folder / REPORT, folder / BEST
    begin_report(report)
    checkpoint = load_checkpoint(best)
    net = prepare_net(checkpoint.model, device)
    evaluation = evaluate(net, data.val, data.loading, on_error="skip", progress=progress)
    conditions = {"model": str(best), "data": where, "split": "val", "labels": None, "precision": "single"}
    maps_of = functools.partial(
        mistake_maps, samples=data.val, model=checkpoint.model, preprocessing=data.loading.preprocessing
    )
    facts = summary(evaluation, checkpoint.architecture, data.loading, conditions)
    page = write_report(report, evaluation, facts, maps_of)
    with written_whole(folder / CONFUSION) as partial:
        shutil.copyfile(report / CONFUSION, partial)
    return [folder / CONFUSION, page]
