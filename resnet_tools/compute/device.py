"""Names from the command line -> devices and precisions, and torch's settings for them."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from resnet_tools.compute.cpus import CPU_WORKERS, usable_cpus, workers_for
from resnet_tools.compute.job import place_of
from resnet_tools.errors import ResnetToolsError, TrainingError
from resnet_tools.text import counted

Precision = Literal["single", "tf32", "double", "half", "bf16"]
Cudnn = Literal["fastest", "default", "deterministic"]
OUT_OF_MEMORY = (  # what torch and the libraries below it say
    "out of memory",  # CUDA's, MPS's, NCCL's
    "allocate memory",  # the CPU's
    "not enough memory",
    "STATUS_ALLOC_FAILED",  # cuDNN's, cuBLAS's, cuSOLVER's
    "ALLOCATION_FAILED",
    "valid cuDNN algorithm",  # no algorithm whose workspace fits
)
CUBLAS_WORKSPACE = ":4096:8"  # with which cuBLAS gives equal sums; read when it is first used
HALF_CAPABILITY = (7, 0)  # the first GPUs with tensor cores


def find_device(name: str) -> torch.device:
    """`auto` (the first GPU, else the CPU), `cpu`, `cuda`, `cuda:1` or just `1`, `mps`.

    Raises: ResnetToolsError if the name is no device or the machine has none of that kind.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(f"cuda:{name}" if name.isascii() and name.isdecimal() else name)
    except RuntimeError:
        raise ResnetToolsError(f"device {name!r} is unknown; expected auto, cpu, cuda, cuda:1 or mps") from None
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if device.type not in there or (device.index or 0) >= there[device.type]:
        found = ", ".join(kind if count == 1 else f"{count} x {kind}" for kind, count in there.items() if count)
        raise ResnetToolsError(f"device {name!r} is not there; this machine has {found}. Use --device auto or cpu")
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def device_text(device: torch.device) -> str:
    """What people call it: `CPU, 2 threads`, or the name of the GPU."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    threads = torch.get_num_threads()
    return "Apple GPU" if device.type == "mps" else f"CPU, {counted(threads, 'thread')}"


def gpu_count() -> int:
    """How many CUDA GPUs this process sees."""
    return torch.cuda.device_count()


def release_cached_memory() -> None:
    """Return the memory that torch caches to the GPU."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def find_precision(asked: Precision | None, device: torch.device, *, automatic: bool) -> Precision:
    """The precision of a training: `asked`, or else single; on a GPU, if `automatic`, the fastest that trains as well.

    That is bf16, or half on GPUs without it. Raises: TrainingError if the device cannot compute in what is asked for.
    """
    if asked == "double" and device.type == "mps":
        raise TrainingError("--precision double: this GPU has none; give --device cpu")
    if asked is not None or not automatic or device.type != "cuda":
        return asked or "single"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16"
    return "half" if torch.cuda.get_device_capability(device) >= HALF_CAPABILITY else "single"


def configure(device: torch.device, cudnn: Cudnn, *, allow_tf32: bool) -> None:
    """cuDNN as the original's -cudnn: `fastest` tries algorithms out, `deterministic` gives equal runs.

    deterministic: torch warns of each operation that has no deterministic version, and uses the other.
    """
    if device.type == "cpu":
        keep_freed_memory()
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = cudnn == "fastest"
        torch.backends.cudnn.deterministic = cudnn == "deterministic"
        set_tf32(allow_tf32)
        if cudnn == "deterministic":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)
            torch.use_deterministic_algorithms(True, warn_only=True)
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextmanager
def kept_settings() -> Iterator[None]:
    """Whatever the block sets in torch for all of the process is as before when it ends: threads, cuDNN, TF32."""
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    threads, tf32 = torch.get_num_threads(), (cudnn.allow_tf32, products.allow_tf32)
    algorithms = cudnn.benchmark, cudnn.deterministic
    exact, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        cudnn.allow_tf32, products.allow_tf32 = tf32
        cudnn.benchmark, cudnn.deterministic = algorithms
        torch.use_deterministic_algorithms(exact, warn_only=warns)
        memory.fill_uninitialized_memory = filled


def set_tf32(allowed: bool) -> None:
    """Whether GPUs may compute float32 with a mantissa of 10 bits; torch's default differs between operations."""
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error of torch, NumPy or a GPU library means that some device has too little memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


def default_workers(device: torch.device) -> int:
    """Data-loading workers of this process: a GPU is fed by all cores of its share; a CPU computes with them itself."""
    if device.type != "cuda":
        return CPU_WORKERS
    place = place_of(os.environ)
    return workers_for(usable_cpus(), place.local_count if place else 1)


def keep_freed_memory() -> None:
    """Make glibc keep large blocks for the next layer instead of returning each to the system.

    Otherwise every large activation is mapped anew: a million page faults and half the time of a batch of 32 in
    ResNet-50. Without effect where there is no glibc. Numbers: M_TRIM_THRESHOLD = -1, M_MMAP_THRESHOLD = -3 (malloc.h).
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-3, 1 << 30)
        mallopt(-1, (1 << 31) - 1)
