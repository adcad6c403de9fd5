"""A new classifier on a net that stays as it is: the features of each image are computed once.

Training images are seen as those of validation are: with a mirrored and cropped view beside each, errors were 12.0,
50.7, 3.3 and 15.4 % where they are 8.7, 52.7, 2.5 and 15.1 % on the data sets of `scripts/recipes`. The features are
kept in the run's folder as those of `resnet extract-features` are, so that an interrupted run continues with the image
where it stopped. The classifier is then fitted in seconds (`linear_classifier`).

Shapes: N images, D features, K classes.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import uuid
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from resnet_tools import __version__
from resnet_tools.checkpoints.checkpoint import Checkpoint
from resnet_tools.checkpoints.saving import save_model
from resnet_tools.compute.inference import Loading, loaded_batches, prepare
from resnet_tools.data.samples import Samples
from resnet_tools.errors import CheckpointError, ImageError, TrainingError
from resnet_tools.features.layers import FeatureKind, features_of
from resnet_tools.features.store import FeatureStore
from resnet_tools.history.history import HISTORY, Epoch, write_history
from resnet_tools.metrics import ErrorCounts, counts_of_ranks, ranks_of
from resnet_tools.nets.resnet import ResNet
from resnet_tools.training.linear_classifier import LinearClassifier, fit_linear_classifier
from resnet_tools.training.recipe import Recipe
from resnet_tools.training.run_files import BEST
from resnet_tools.training.start import digest_of

FLOAT32 = np.dtype("float32")
Progress = Callable[[int, list[str]], None]  # images done, reasons for those that could not be read


@dataclass(frozen=True)
class ClassifierRun:
    """`checkpoint.model` has a classifier of the right size, whose weights do not matter; `net`: the name of its file.

    seed: draws the images on which the penalty is chosen. skip_unreadable: leave out images that cannot be read.
    """

    checkpoint: Checkpoint
    net: str
    train: Samples
    val: Samples
    loading: Loading
    device: torch.device
    folder: Path
    seed: int = 0
    skip_unreadable: bool = False

    def run(self, progress: Progress) -> tuple[Checkpoint, LinearClassifier, ErrorCounts, ErrorCounts]:
        """The checkpoint with its new classifier, and its counts on the training images and on those of validation.

        Raises: ImageError, TrainingError, FeatureError if the folder cannot be written.
        """
        model = prepare(copy.deepcopy(self.checkpoint.model), self.device)
        rows, kept = self._features(model, self.train, progress)
        val_rows, val_kept = self._features(model, self.val, progress)
        if not len(rows) or not len(val_rows):
            raise TrainingError("none of the training images, or of those for validation, could be read")
        targets, val_targets = (np.asarray(samples.targets, np.int64) for samples in (self.train, self.val))
        outputs = self.checkpoint.architecture.num_classes
        found = fit_linear_classifier(rows, targets[kept], outputs, seed=self.seed)
        train = _counts(found, rows, targets[kept])
        return self._with(found), found, train, _counts(found, val_rows, val_targets[val_kept])

    def _with(self, found: LinearClassifier) -> Checkpoint:
        """Load it into the checkpoint's net."""
        self.checkpoint.model.fc.load_state_dict({"weight": found.weight, "bias": found.bias})
        return self.checkpoint

    def _features(
        self, model: ResNet, samples: Samples, progress: Progress
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """A row for each image that can be read, (n, D), and the positions of these images, (n,)."""
        size = self.loading.batch_size
        cut = [np.arange(start, min(start + size, len(samples))) for start in range(0, len(samples), size)]
        loading = replace(self.loading, ten_crop=False)
        with FeatureStore(self.folder / self._job_name(samples), FLOAT32) as store:
            store.begin({}, resume=True)
            done = store.open()
            progress(sum(len(cut[number]) for number in done), [])
            waiting = [number for number in range(len(cut)) if number not in done]
            images = [samples.images[k] for number in waiting for k in cut[number].tolist()]
            for number, batch in zip(waiting, loaded_batches(images, loading, self.device), strict=True):
                errors = {k: str(error) for k, error in enumerate(batch.errors) if error is not None}
                if errors and not self.skip_unreadable:
                    raise ImageError(f"{next(iter(errors.values()))}. Remove or replace it, or give --on-error skip")
                rows = np.zeros((0, self.checkpoint.architecture.feature_length), np.float32)
                if batch.images is not None:
                    rows = features_of(model, batch.images, FeatureKind()).numpy()
                if not np.isfinite(rows).all():
                    raise TrainingError(f"{self.net}: gives NaN or infinite features; its weights cannot be used")
                store.add(number, rows, errors)
                progress(len(cut[number]), list(errors.values()))
            store.flush()
            done = store.done()
            kept = [position for n in sorted(done) for k, position in enumerate(cut[n]) if k not in done[n].errors]
            return np.array(store.collect(done)[0]), np.asarray(kept, np.int64)

    def _job_name(self, samples: Samples) -> str:
        """The same for what gives the same features, so that nothing else continues with them."""
        job = {
            "weights": _digest(self.checkpoint.model),
            "samples": digest_of(samples),
            "images": [_identity(image) for image in samples.images],
            "preprocessing": self.loading.preprocessing.to_dict(),
            "batch_size": self.loading.batch_size,
            "device": self.device.type,
            "version": __version__,
        }
        return f"features-{hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()[:16]}"

    def remove_features(self) -> None:
        """When the checkpoint is in place."""
        for folder in self.folder.glob(".features-*.unfinished"):
            FeatureStore(folder.with_name(folder.name.removeprefix(".").removesuffix(".unfinished")), FLOAT32).remove()


def _identity(image: Any) -> list[Any]:
    """What changes when an image does: the size and time of a file, or the pixels. Images that a data set in Python
    makes cannot be told from others, so they are never the same."""
    if isinstance(image, str):
        try:
            found = os.stat(image)
        except OSError:
            return [image]
        return [image, found.st_size, found.st_mtime_ns]
    if isinstance(image, np.ndarray):
        return [zlib.crc32(np.ascontiguousarray(image).data.cast("B"))]
    return [uuid.uuid4().hex]


def _digest(model: ResNet) -> str:
    """Of all weights but the classifier's."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if not name.startswith("fc."):
            digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def _counts(found: LinearClassifier, rows: NDArray[np.float32], targets: NDArray[np.int64]) -> ErrorCounts:
    logits, classes = found.logits(torch.from_numpy(rows)), torch.from_numpy(targets)
    loss = float(cross_entropy(logits, classes))
    return counts_of_ranks(ranks_of(logits, classes), logits.shape[1], loss)


def save_classifier(folder: Path, checkpoint: Checkpoint, recipe: Recipe, figures: Epoch) -> Path:
    """Write `model_best.pt`, and `history.csv` with the figures as those of one epoch. Returns: the file of the net.

    recipe: the one with which a training of this net would continue. Raises: TrainingError.
    """
    try:
        write_history([figures], folder / HISTORY)
        save_model(checkpoint, folder / BEST, extra={"recipe": recipe.to_dict(), "epoch": figures.epoch})
    except (CheckpointError, OSError) as error:
        raise TrainingError(f"{error}. The features are kept: make room, and give the same command again") from error
    return folder / BEST


def figures_of(train: ErrorCounts, val: ErrorCounts, seconds: float) -> Epoch:
    """`lr` is not a number: there is no learning rate."""
    speed = train.images / seconds if seconds else 0.0
    return Epoch(
        1,
        float("nan"),
        train.loss,
        train.top1_error,
        train.top5_error,
        val.loss,
        val.top1_error,
        val.top5_error,
        seconds,
        speed,
    )
