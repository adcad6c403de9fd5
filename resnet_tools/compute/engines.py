"""`--engine`: which library runs the net. Nothing here imports torch unless a GPU may be there."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Literal

from resnet_tools.compute.cpus import usable_cpus
from resnet_tools.errors import ResnetToolsError

Engine = Literal["torch", "onnxruntime"]
ENGINES = ("auto", "torch", "onnxruntime")
NEEDED = "--engine onnxruntime needs onnxruntime: pip install 'resnet_tools[fast]'"
SMALL_NET_PARAMETERS = 1_000_000  # below, threads wait for each other and slow the decoding
GPU_FILES = ("nvidiactl", "nvidia0", "kfd", "dxg", "nvhost-ctrl-gpu")  # in /dev: NVIDIA's, AMD's, WSL's, Jetson's


def find_engine(asked: str, device: str, precision: str = "single") -> Engine:
    """`auto` is onnxruntime on a CPU in single precision, where it is installed, and torch elsewhere.

    device: as `find_device` takes it. Raises: ResnetToolsError if onnxruntime is asked for and cannot do it.
    """
    if asked == "torch":
        return "torch"
    there = importlib.util.find_spec("onnxruntime") is not None
    if asked == "auto":
        return "onnxruntime" if there and precision == "single" and _is_cpu(device) else "torch"
    if not there:
        raise ResnetToolsError(NEEDED)
    if precision != "single":
        raise ResnetToolsError(f"--engine onnxruntime computes in single precision; leave out --precision {precision}")
    if device not in ("auto", "cpu"):
        raise ResnetToolsError(f"--engine onnxruntime computes on the CPU; leave out --device {device}")
    return "onnxruntime"


def _is_cpu(device: str) -> bool:
    if device != "auto" or not _may_have_gpu():
        return device in ("auto", "cpu")
    from resnet_tools.compute.device import find_device

    return find_device(device).type == "cpu"


def _may_have_gpu(devices: Path = Path("/dev")) -> bool:
    """False only if it is certain that there is none that torch could use."""
    return not sys.platform.startswith("linux") or any((devices / name).exists() for name in GPU_FILES)


def engine_threads() -> int:
    """For the net: what OMP_NUM_THREADS says, as torch does, else the cores that this process may use."""
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return max(1, int(given)) if given.isascii() and given.isdecimal() else usable_cpus()
