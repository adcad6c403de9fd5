"""What `step.py` and `step_timm.py` share: the batch, and the median seconds of a step and of its CPU time, printed."""

import statistics
import time
from collections.abc import Callable

import torch

images, targets = torch.randn(16, 3, 224, 224), torch.arange(16)


def print_median(step: Callable[[], object], steps: int) -> None:
    wall, cpu = [], []
    for _ in range(steps + 2):
        start, cpu_start = time.perf_counter(), time.process_time()
        step()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - cpu_start)
    print(statistics.median(wall[2:]), statistics.median(cpu[2:]))  # the first steps take longer
