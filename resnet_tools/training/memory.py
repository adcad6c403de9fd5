"""Training in less memory, and the batch size that fits when memory runs out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from resnet_tools.compute.device import release_cached_memory
from resnet_tools.errors import DeviceMemoryError
from resnet_tools.nets.blocks import ResidualBlock
from resnet_tools.nets.resnet import ResNet
from resnet_tools.training.optimizer import batch_norms


def checkpoint_activations(model: ResNet) -> None:
    """Change the blocks, in place, to store only their inputs for the backward pass and recompute the rest.

    The result is the same; a step takes about a third longer. Replaces the original's -shareGradInput and -optnet.
    Source: Chen et al. 2016 (arXiv:1604.06174).
    """
    for block in model.modules():
        if isinstance(block, ResidualBlock):
            block.forward = partial(_checkpointed, block, block.forward)


def _checkpointed(block: ResidualBlock, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return forward(x)
    contexts = partial(_contexts, block)
    result: Tensor = checkpoint(forward, x, use_reentrant=False, context_fn=contexts, preserve_rng_state=False)
    return result


def _contexts(
    block: ResidualBlock,
) -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
    return contextlib.nullcontext(), _statistics_kept(block)


@contextmanager
def _statistics_kept(block: ResidualBlock) -> Iterator[None]:
    """The second forward pass must not update the running statistics again: with momentum 0 they stay, and another
    counter counts."""
    training = [norm for norm in batch_norms(block) if norm.training]
    earlier = [(norm, norm.momentum, cast(Tensor, norm.num_batches_tracked)) for norm in training]
    for norm, _, batches in earlier:
        norm.momentum, norm.num_batches_tracked = 0.0, torch.empty_like(batches)
    try:
        yield
    finally:
        for norm, momentum, batches in earlier:
            norm.momentum, norm.num_batches_tracked = momentum, batches


def largest_that_fits(try_batch: Callable[[int], object], images: int) -> int:
    """The largest half, quarter, ... of `images` with which `try_batch` does not run out of memory; 0 if none."""
    while images > 1:
        images //= 2
        release_cached_memory()
        try:
            try_batch(images)
        except DeviceMemoryError:
            continue
        return images
    return 0


def memory_advice(images: int, fits: int | None, processes: int, accumulate: int) -> str:
    """What to tell the user when a batch of `images` does not fit and one of `fits` does (0: none; None: not tried)."""
    where = "a process" if processes > 1 else "the device"
    text = f"a batch of {images} images does not fit into the memory of {where}"
    if fits is None and images > 1:
        return (
            f"{text}. Give half of --batch-size and --accumulate {2 * accumulate} for steps over as many images, or "
            "try --checkpoint-activations, --precision bf16 or a smaller --crop-size"
        )
    if not fits:
        return (
            f"{text}, nor does a single image; try a smaller --crop-size, --checkpoint-activations or --precision bf16"
        )
    batches = -(-images // fits) * accumulate
    return (
        f"{text}; {fits} would. Give --batch-size {fits * processes} --accumulate {batches} for steps over as many "
        "images, or try --checkpoint-activations, --precision bf16 or a smaller --crop-size"
    )
