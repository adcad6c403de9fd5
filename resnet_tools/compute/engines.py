"""`--engine`: which library runs the net. Nothing here imports torch unless a GPU may be there."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Literal, cast

from resnet_tools.compute.cpus import usable_cpus
from resnet_tools.errors import ResnetToolsError

Engine = Literal["torch", "onnxruntime", "openvino"]
ENGINES = ("auto", "torch", "onnxruntime", "openvino")
EXTRAS = {"onnxruntime": "fast", "openvino": "openvino"}  # with which the engines are installed that run on CPUs
PRECISIONS = {"onnxruntime": ("single",), "openvino": ("single", "bf16")}
SMALL_NET_PARAMETERS = 1_000_000  # below, threads wait for each other and slow the decoding
GPU_FILES = ("nvidiactl", "nvidia0", "kfd", "dxg", "nvhost-ctrl-gpu")  # in /dev: NVIDIA's, AMD's, WSL's, Jetson's


def find_engine(asked: str, device: str, precision: str = "single") -> Engine:
    """`auto` is onnxruntime on a CPU in single precision, where it is installed, and torch elsewhere.

    device: as `find_device` takes it. Raises: ResnetToolsError if an engine is asked for and cannot do it.
    """
    if asked == "auto":
        suits = precision in PRECISIONS["onnxruntime"] and is_installed("onnxruntime") and _is_cpu(device)
        return "onnxruntime" if suits else "torch"
    if asked not in EXTRAS:
        return "torch"
    if not is_installed(asked):
        raise ResnetToolsError(f"--engine {asked} needs {asked}: pip install 'resnet_tools[{EXTRAS[asked]}]'")
    if precision not in PRECISIONS[asked]:
        able = " or ".join(PRECISIONS[asked])
        raise ResnetToolsError(f"--engine {asked} computes in {able} precision; leave out --precision {precision}")
    if device != "auto" and not _names_cpu(device):
        raise ResnetToolsError(f"--engine {asked} computes on the CPU; leave out --device {device}")
    return cast(Engine, asked)


def is_installed(engine: str) -> bool:
    """Whether it is there, without importing it."""
    return engine == "torch" or importlib.util.find_spec(engine) is not None


def device_for(engine: str, asked: str) -> str:
    """The name of the device on which an engine computes: some know only the CPU."""
    return "cpu" if engine in EXTRAS else asked


def _is_cpu(device: str) -> bool:
    if device != "auto" or not _may_have_gpu():
        return device == "auto" or _names_cpu(device)
    from resnet_tools.compute.device import find_device

    return find_device(device).type == "cpu"


def _names_cpu(device: str) -> bool:
    return device.partition(":")[0] == "cpu"  # torch has it as cpu:0 too


def _may_have_gpu(devices: Path = Path("/dev")) -> bool:
    """False only if it is certain that there is none that torch could use."""
    return not sys.platform.startswith("linux") or any((devices / name).exists() for name in GPU_FILES)


def engine_threads() -> int:
    """For the net: what OMP_NUM_THREADS says, as torch does, else the cores that this process may use."""
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return max(1, int(given)) if given.isascii() and given.isdecimal() else usable_cpus()
