"""Numbers that hold where nothing else is said; nothing is imported here, so that help can name them."""

from __future__ import annotations

CPU_BATCH_SIZE, GPU_BATCH_SIZE = 8, 64
ONE_THREAD_BATCH_SIZE = 16  # of torch; for fewer images it runs most convolutions in a slower way there
EXTRACTION_BATCH_SIZE = 32  # on a CPU: 1.1 times as fast as 8 where the net is small
PRECISIONS = ("single", "tf32", "bf16", "half")
MAX_BATCH_SIZE, MAX_WORKERS = 65536, 256
