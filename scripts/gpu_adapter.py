"""What scripts/gpu and tests/gpu use of the package, in one place: what the package renames is renamed here alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resnet_tools.checkpoints.checkpoint import Checkpoint, load_checkpoint
from resnet_tools.compute.cpus import usable_cpus, workers_for
from resnet_tools.compute.device import configure, find_device, find_precision
from resnet_tools.compute.inference import Loading, classify, logits_of, prepare
from resnet_tools.data.samples import Samples
from resnet_tools.data.transforms import IMAGENET
from resnet_tools.errors import ResnetToolsError
from resnet_tools.features.extract import Extraction
from resnet_tools.features.layers import FeatureKind, features_of
from resnet_tools.nets.catalog import named_architecture
from resnet_tools.nets.resnet import ResNet, build_resnet
from resnet_tools.training.batches import epoch_batches
from resnet_tools.training.compute_config import ComputeConfig
from resnet_tools.training.counts import BatchCounts
from resnet_tools.training.loading import BatchLoader
from resnet_tools.training.recipe import make_recipe
from resnet_tools.training.step import TrainStep
from resnet_tools.training.transforms import training_transform

Step = Callable[[Tensor, Tensor], Any]


class Training:
    """A net in training on a device; call it with (N, 3, H, W) and (N,) for one step, which gives its counts."""

    def __init__(
        self,
        model: ResNet,
        device: torch.device,
        precision: str | None = None,
        *,
        name: str = "original",
        cudnn: str = "fastest",
        compiled: bool = False,
        checkpointed: bool = False,
        **changes: Any,
    ) -> None:
        """precision: None for what a GPU computes fastest. changes: of the recipe `name`."""
        chosen = find_precision(precision, device, automatic=precision is None)  # type: ignore[arg-type]
        configure(device, cudnn, allow_tf32=chosen not in ("single", "double"))  # type: ignore[arg-type]
        config = ComputeConfig(
            device,
            chosen,
            compile=compiled,
            checkpoint_activations=checkpointed,
            deterministic=cudnn == "deterministic",
        )
        dataset = "imagenet" if model.architecture.stem == "imagenet" else "cifar10"
        self.precision = chosen
        self._train_step = TrainStep(model, make_recipe(name, dataset, **changes), config)

    def __call__(self, images: Tensor, targets: Tensor) -> BatchCounts:
        """The counts may still be computed."""
        self._train_step.train_mode()
        counts = self._train_step.backward(images, targets, len(images), last=True)
        self._train_step.update()
        return counts

    @property
    def weights(self) -> Tensor:
        """Of the net that would be saved, in one row."""
        return torch.cat(
            [values.detach().flatten().double().cpu() for values in self._train_step.evaluated_model.parameters()]
        )


def device_named(name: str) -> torch.device:
    """Exits with what is wrong if this machine has no such device."""
    try:
        return find_device(name)
    except ResnetToolsError as error:
        raise SystemExit(str(error)) from None


def new_net(name: str, seed: int = 0) -> ResNet:
    torch.manual_seed(seed)
    return build_resnet(named_architecture(name))


def inference_net(model: ResNet, device: torch.device, precision: str = "single") -> ResNet:
    return prepare(model, device, precision)


def checkpoint_of(path: Path | None = None) -> Checkpoint:
    """The net of a file, or the one of the package."""
    return load_checkpoint() if path is None else load_checkpoint(path)


def bare_logits(model: ResNet, images: Tensor) -> Tensor:
    return logits_of(model, images)


def bare_features(model: ResNet, images: Tensor) -> Tensor:
    return features_of(model, images, FeatureKind())


def extract_all(
    paths: Sequence[str],
    model: ResNet,
    batch_size: int,
    workers: int,
    output: Path,
    progress: Callable[[int, list[str]], None],
) -> None:
    """progress: called with the number of images of each batch that is done."""
    loading = Loading(IMAGENET, batch_size, workers=workers)
    job = Extraction(model, FeatureKind(), loading, {"model": "measured"}, resume=False)
    job.run(list(paths), output, None, progress)


def classify_all(paths: Sequence[str], model: ResNet, batch_size: int, workers: int) -> Iterator[object]:
    """What is found for each image."""
    return classify(paths, model, Loading(IMAGENET, batch_size, workers=workers))


def training_batches(
    paths: Sequence[str], batch_size: int, workers: int, device: torch.device, *, augmentation: str = "light"
) -> Iterator[tuple[Tensor, Tensor]]:
    """An epoch of JPEGs as a training loads them."""
    samples = Samples(list(paths), [k % 1000 for k in range(len(paths))], [str(k) for k in range(1000)])
    as_bytes = device.type == "cuda"
    transform = training_transform(augmentation, "imagenet", IMAGENET, as_bytes=as_bytes)  # type: ignore[arg-type]
    loader = BatchLoader(samples, transform, 0, workers=workers, device=device)
    for batch in loader.epoch(1, epoch_batches(len(paths), batch_size, 0, 1)):
        if batch.images is not None:
            yield batch.images, batch.targets


def workers_here() -> int:
    return workers_for(usable_cpus())
