"""What there is to say of how a run loads its images: that it waits for them and what helps; that a cache is full.

Each is said once. Nothing is measured but the time that the run measures anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from resnet_tools.data.image import image_head
from resnet_tools.data.samples import Samples
from resnet_tools.errors import Note
from resnet_tools.training.batches import TrainingBatch
from resnet_tools.training.events import Notice

FIRST_BATCHES = 10  # after the very first, in which threads and processes start
MOST = 0.5
LOOKED_AT = 12  # images
LARGE = 4  # times the crop: a copy has a quarter of the pixels, or fewer


class LoadingWatch:
    """cache: the folder of --cache; without one it is offered if most of `samples` are large photographs."""

    def __init__(self, cache: Path | None, samples: Samples, crop_px: int) -> None:
        self.cache, self.samples, self.crop_px = cache, samples, crop_px
        self.batches, self.waited, self.seconds = 0, 0.0, 0.0
        self.is_silent = False

    def notices(self, batch: TrainingBatch, waited: float, seconds: float) -> Iterator[Notice]:
        """waited: the part of `seconds` in which the batch was not there yet."""
        if self.is_silent:
            return
        if self.cache is not None:
            if batch.uncached is not None:
                self.is_silent = True
                yield Notice(f"--cache {self.cache}: {batch.uncached}; the training goes on, but keeps no more copies")
            return
        self.batches += 1
        if self.batches > 1:
            self.waited, self.seconds = self.waited + waited, self.seconds + seconds
        if self.batches > FIRST_BATCHES:
            self.is_silent = True
            size = large_photographs(self.samples, self.crop_px) if self.waited > MOST * self.seconds else None
            if size is not None:
                yield Notice(
                    f"the training waits for photographs to be decoded ({size[0]} x {size[1]} pixels): --cache FOLDER, "
                    "also with --resume, keeps small copies of them for later epochs",
                    Note,
                )


def large_photographs(samples: Samples, crop_px: int) -> tuple[int, int] | None:
    """Width and height of a typical one, if most images are files with far more pixels than a crop."""
    some = [samples.images[k] for k in range(0, len(samples), 1 + len(samples) // LOOKED_AT)]
    heads = [image_head(image) for image in some if isinstance(image, str)]
    large = sorted((head[1], head[0]) for head in heads if head is not None and min(head[:2]) >= LARGE * crop_px)
    return large[len(large) // 2] if 2 * len(large) > len(some) else None
