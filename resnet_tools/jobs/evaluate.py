"""A net and labelled images -> its errors, and what it made of each image."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from resnet_tools.checkpoints.runnable import Net, Runnable, ready_net, require_classifier
from resnet_tools.compute.device import kept_settings
from resnet_tools.compute.processes import ALONE, Processes
from resnet_tools.data.custom import samples_of
from resnet_tools.data.labelled import Outputs, labelled_samples, numbered_samples
from resnet_tools.data.samples import Samples
from resnet_tools.data.splits import stored_split
from resnet_tools.errors import DataError
from resnet_tools.evaluation.evaluate import UNREAD, Evaluation
from resnet_tools.evaluation.evaluate import evaluate as evaluated
from resnet_tools.evaluation.explanations import mistake_maps
from resnet_tools.evaluation.options import EvaluateOptions
from resnet_tools.evaluation.report.files import report_folder, write_report
from resnet_tools.evaluation.report.summary import summary
from resnet_tools.evaluation.report.tables import ClassErrors, Mistake, class_errors, confusion_matrix, mistakes
from resnet_tools.jobs.nets import ClassNames, GivenNet, engine_for, given_names, given_net, name_of_net
from resnet_tools.jobs.running import Progress, Running, counting, require_one_of
from resnet_tools.nets.resnet import ResNet
from resnet_tools.text import counted

FilePath = str | os.PathLike[str]


@dataclass(frozen=True, eq=False, repr=False)
class EvaluationResult:
    """What `evaluate` gives, for N images and K classes. Errors are in percent of the images that could be read.

    `summary`: error rates and how they were measured, as in `summary.json` of a report. `report`: its page, if one was
    written. `evaluation`: the figures of each image, which the tables below are made of.
    """

    summary: dict[str, Any]
    evaluation: Evaluation
    report: Path | None = None

    @property
    def top1_error(self) -> float:
        """Percent of the images whose best class is not the true one."""
        return float(self.summary["top1_error"])

    @property
    def top5_error(self) -> float:
        """Percent of the images whose true class is not among the five best."""
        return float(self.summary["top5_error"])

    @property
    def class_names(self) -> list[str]:
        """Of the K outputs."""
        return list(self.evaluation.samples.class_names)

    @cached_property
    def names(self) -> list[str]:
        """(N) paths of the images, or `image K`."""
        return [self.evaluation.samples.name(k) for k in range(len(self.evaluation.samples))]

    @cached_property
    def errors(self) -> dict[str, str]:
        """Name -> why the image could not be read."""
        found = sorted(self.evaluation.errors.items())
        return {self.names[k]: reason.removeprefix(f"{self.names[k]}: ") for k, reason in found}

    @cached_property
    def targets(self) -> NDArray[np.int64]:
        """(N,) the true classes, as positions in the net's output."""
        return np.asarray(self.evaluation.samples.targets, np.int64)

    @property
    def predictions(self) -> NDArray[np.int64]:
        """(N, min(5, K)) the best classes of each image, the best first; -1 for an image that could not be read."""
        return self.evaluation.best

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """(N, min(5, K)) of the predictions, 0 to 1; -1 for an image that could not be read."""
        return self.evaluation.best_probabilities

    @cached_property
    def confusion_matrix(self) -> NDArray[np.int64]:
        """(K, K): how many images of the row's class were predicted to be of the column's class."""
        return confusion_matrix(self.evaluation)

    @cached_property
    def per_class(self) -> list[ClassErrors]:
        """The K classes: images, errors, accuracy, precision, recall and F1 in percent, most frequent confusion."""
        return class_errors(self.evaluation)

    @cached_property
    def mistakes(self) -> list[Mistake]:
        """The images whose best class is not the true one, the most confident first."""
        return mistakes(self.evaluation)

    def __repr__(self) -> str:
        unread = f", {len(self.errors)} could not be read" if self.errors else ""
        errors = f"top1 error {self.top1_error:.3f} %, top5 {self.top5_error:.3f} %"
        return f"<{errors}, {counted(self.summary['images'], 'image')}{unread}>"

    def to_dict(self) -> dict[str, Any]:
        """The summary, plain JSON values as `resnet evaluate --json` prints them."""
        return dict(self.summary)

    def rows(self) -> list[dict[str, Any]]:
        """One row for each image, for `pandas.DataFrame`: name, truth, prediction, probability (of the prediction),
        truth_probability, correct, error. What an image that could not be read has none of is None."""
        found, names = self.evaluation, self.class_names
        columns: Any = (self.names, self.targets, found.predictions, found.probabilities, found.truth_probabilities)
        rows = []
        for k, (name, truth, *values) in enumerate(zip(*(list(column) for column in columns), strict=True)):
            row: dict[str, Any] = {"name": name, "truth": names[truth]}
            if found.ranks[k] == UNREAD:
                nothing = dict.fromkeys(("prediction", "probability", "truth_probability", "correct"))
                rows.append(row | nothing | {"error": self.errors[name]})
                continue
            best, probability, truth_probability = int(values[0]), float(values[1]), float(values[2])
            row |= {"prediction": names[best], "probability": probability, "truth_probability": truth_probability}
            rows.append(row | {"correct": best == int(truth), "error": None})
        return rows


def evaluate(
    checkpoint: GivenNet,
    data: Any,
    *,
    split: str | None = None,
    labels: FilePath | None = None,
    synsets: FilePath | None = None,
    class_names: ClassNames | None = None,
    average: Literal["outputs", "softmax"] = "outputs",
    on_error: Literal["skip", "fail"] = "skip",
    report: FilePath | None = None,
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
) -> EvaluationResult:
    """The error of a net on labelled images, and all that `resnet evaluate --report` shows.

    checkpoint and the arguments from `weights` on: as for `classify`.
    data: a folder with one folder of images for each class, itself or in `val/`, or a folder of images with `labels`, a
    file that gives their classes. Or a data set such as torchvision's, without a transform: `__len__`, `__getitem__(k)`
    -> (image, class) and `classes`, their names. Classes are matched to the net's by name.
    split: the part of the folder, by default `val`. synsets: a file that tells what the numbers in `labels` mean.
    class_names: names of the net's outputs, or a file of them. average: what is averaged over ten crops.
    on_error: `skip` leaves out an image that cannot be read and tells it in `errors`, `fail` stops.
    report: a folder for pages, tables and pictures, in place of an earlier report.

    Returns: error rates in percent, and as arrays the confusion matrix, predictions and probabilities.
    Raises: DataError if data and net do not fit, nothing can be read, or the report cannot be written; ImageError with
    on_error="fail"; CheckpointError and other ResnetToolsErrors.

    >>> from resnet_tools import evaluate, train
    >>> run = train("digits", retrain="demo", reset_classifier=True, n_epochs=1, report=False)
    >>> result = evaluate("run", "digits")
    >>> int(result.confusion_matrix.sum()), result.confusion_matrix.shape, len(result.rows())
    (20, (10, 10), 20)
    """
    require_one_of("average", average, ("outputs", "softmax"))
    require_one_of("on_error", on_error, ("skip", "fail"))
    running = Running(batch_size, device, engine, precision, resize_px, crop_px, ten_crop, exif_orientation, workers)
    place = data if is_path(data) else type(data).__name__
    options = EvaluateOptions(
        (name_of_net(checkpoint),), Path(place), split, _path(labels), _path(synsets), None, average, on_error,
        _path(report), False, False, True, weights,
    )  # fmt: skip
    with kept_settings(), nullcontext() if options.report is None else report_folder(options.report):
        return _evaluated(checkpoint, data, options, running, class_names, progress)


def _evaluated(
    checkpoint: GivenNet,
    data: Any,
    options: EvaluateOptions,
    running: Running,
    class_names: ClassNames | None,
    progress: Progress | None,
) -> EvaluationResult:
    [name], device, engine = options.models, running.found_device(), engine_for(checkpoint, running.engine)
    net = given_net(checkpoint, options.weights)
    require_classifier(net, name)
    names = given_names(class_names, net.num_classes) or net.class_names
    samples = _samples(data, options, net, names, name if is_path(checkpoint) else None)
    return evaluate_on(
        net,
        samples,
        options,
        running,
        ready=lambda net: ready_net(net, engine, device, running.precision),
        report=options.report,
        progress=counting(progress, len(samples)),
    )


def evaluate_on(
    net: Runnable,
    samples: Samples,
    options: EvaluateOptions,
    running: Running,
    *,
    ready: Callable[[Runnable], Net],
    report: Path | None,
    progress: Callable[[int, list[str]], None],
    processes: Processes = ALONE,
) -> EvaluationResult:
    """The evaluation of the first model of the options, in this process or as one of several.

    ready: makes the net ready on its device. report: the folder for its report, which is there.
    """
    loading = running.loading(net.preprocessing)
    evaluation = evaluated(
        ready(net),
        samples,
        loading,
        average=options.average,
        on_error=options.on_error,
        processes=processes,
        progress=progress,
    )
    conditions = options.conditions(options.models[0], running.precision)
    facts = summary(evaluation, net.architecture, loading, conditions)
    maps_of = None
    if report is not None and isinstance(net.model, ResNet):
        maps_of = partial(mistake_maps, samples=samples, model=net.model.eval(), preprocessing=loading.preprocessing)
    page = None if report is None else write_report(report, evaluation, facts, maps_of)
    return EvaluationResult(facts, evaluation, page)


def samples_for(options: EvaluateOptions, net: Runnable, names: list[str] | None, model: str | None) -> Samples:
    """The images with their targets for this net: the same label may be another output in another net.

    names: of the net's outputs. model: the path of the net, beside which the split of its training may lie.
    """
    return labelled_samples(
        options.data,
        Outputs(net.num_classes, names),
        split=options.split,
        labels=options.labels,
        synsets=options.synsets,
        stored=stored_split(options.data, Path(model)) if model is not None else None,
    )


def _samples(data: Any, options: EvaluateOptions, net: Runnable, names: list[str] | None, model: str | None) -> Samples:
    if is_path(data):
        if not options.data.is_dir():
            raise DataError(f"{options.data}: there is no such folder; give one with a folder of images for each class")
        return samples_for(options, net, names, model)
    if options.split is not None or options.labels is not None or options.synsets is not None:
        raise DataError("split, labels and synsets belong to a folder of images; a data set says its classes itself")
    where = type(data).__name__
    own = getattr(data, "classes", None)
    if own is None:  # its classes are the net's outputs
        outputs = names or [f"class {k}" for k in range(1, net.num_classes + 1)]
        return samples_of(data, outputs, where)
    return numbered_samples(samples_of(data, None, where), Outputs(net.num_classes, names), where)


def is_path(value: Any) -> bool:
    return isinstance(value, (str, os.PathLike))


def _path(value: FilePath | None) -> Path | None:
    return None if value is None else Path(value)
