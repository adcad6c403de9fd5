"""Print the median seconds of a step, the first ones left out."""

import statistics
import time
from collections.abc import Callable

import torch

images, targets = torch.randn(16, 3, 224, 224), torch.arange(16)


def print_median(step: Callable[[], object], steps: int) -> None:
    times = []
    for _ in range(steps + 2):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    print(statistics.median(times[2:]))
