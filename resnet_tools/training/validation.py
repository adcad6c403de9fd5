"""A net and the validation samples -> error counts batch by batch, with the original's lines; on any processes."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from resnet_tools.compute.inference import Batch, Loading, logits_of, own_batches
from resnet_tools.data.samples import Samples
from resnet_tools.errors import ImageError
from resnet_tools.history import lines
from resnet_tools.metrics import ErrorCounts, error_counts
from resnet_tools.nets.resnet import ResNet
from resnet_tools.training.step import Machine


def validate(
    model: ResNet,
    samples: Samples,
    loading: Loading,
    machine: Machine,
    epoch: int,
    *,
    skipped: dict[str, str] | None = None,
) -> Iterator[tuple[str, ErrorCounts]]:
    """The original's line after each batch of this process, with the counts so far; at last "" and those of everything.

    Every image counts once, whatever the number of processes.
    skipped: where to note images that cannot be read, which then do not count.
    Raises: ImageError for such an image without `skipped`.
    Source: Trainer:test in train.lua of facebook/fb.resnet.torch.
    """
    model.eval()
    processes, batches = machine.processes, -(-len(samples) // loading.batch_size)
    done: list[tuple[int, ErrorCounts]] = []
    so_far, started = ErrorCounts(), time.monotonic()
    for start, batch in own_batches(samples.images, loading, processes):
        number, data_seconds = start // loading.batch_size, time.monotonic() - started
        read = _readable(samples, start, batch, skipped)
        counts = _counts(model, batch.images, torch.tensor([samples.targets[k] for k in read]), machine)
        done.append((number, counts))
        so_far += counts
        seconds, started = time.monotonic() - started, time.monotonic()
        yield lines.test_line(epoch, number + 1, batches, seconds, data_seconds, counts, so_far), so_far
    everything = sorted((pair for part in processes.gather(done) for pair in part), key=lambda pair: pair[0])
    yield "", sum((counts for _, counts in everything), ErrorCounts())


def _readable(samples: Samples, start: int, batch: Batch, skipped: dict[str, str] | None) -> list[int]:
    """The positions of the images of a batch that could be read."""
    read = []
    for k, error in enumerate(batch.errors, start):
        if error is None:
            read.append(k)
        elif skipped is None:
            raise ImageError(f"{error}. Remove it from the validation set, or give --on-error skip")
        else:
            skipped[samples.name(k)] = str(error)
    return read


def _counts(model: ResNet, images: Tensor | None, targets: Tensor, machine: Machine) -> ErrorCounts:
    if images is None:
        return ErrorCounts()
    with machine.autocast():
        logits = logits_of(model, images)  # (N, K), of ten crops their mean
    return error_counts(logits, targets, float(cross_entropy(logits, targets)))
