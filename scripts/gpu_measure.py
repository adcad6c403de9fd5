"""One measurement of scripts/gpu in a process of its own: python -m scripts.gpu_measure NAME ...

Each row is a line of JSON at the end of the file that $RESNET_TOOLS_ROWS names, as soon as it is there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch

from resnet_tools.compute.cpus import usable_cpus
from resnet_tools.compute.loader_processes import free_shared_memory
from scripts import gpu_profile
from scripts.gpu_adapter import device_named
from scripts.gpu_peers import PEERS
from scripts.gpu_rates import (
    TINY,
    Bench,
    Row,
    graph_rates,
    inference_rates,
    jpeg_training_rate,
    make_jpegs,
    our_rate,
    our_training,
    peer_rate,
    sizes_for,
    timm_features,
)

Measure = Callable[[Bench, str], Iterator[Row]]  # a name of MEASURES -> rows


def describe(bench: Bench, _: str) -> Iterator[Row]:
    about: Row = {"python": platform.python_version(), "device": str(bench.device)}
    about |= {name: version(name) for name in ("torch", "torchvision", "numpy", "pillow") if _installed(name)}
    about |= {"cores": usable_cpus(), "shared_memory_gb": round(free_shared_memory() / 1e9, 1)}
    about |= {"cuda": torch.version.cuda, "gpus": torch.cuda.device_count(), "batch": bench.sizes.batch_size}
    if bench.device.type == "cuda":
        about["gpu"] = torch.cuda.get_device_name(bench.device)
        about["gpu_memory_gb"] = round(torch.cuda.get_device_properties(bench.device).total_memory / 1e9)
        about["cudnn"] = torch.backends.cudnn.version()
        about["bf16"] = torch.cuda.is_bf16_supported(including_emulation=False)
    yield about


def _installed(name: str) -> bool:
    return find_spec({"pillow": "PIL"}.get(name, name)) is not None


def profile(bench: Bench, _: str) -> Iterator[Row]:
    step, (images, targets) = our_training(bench), bench.batch()
    for _number in range(bench.sizes.warm_up):
        step(images, targets)
    bench.synchronize()
    steps = 2 if bench.sizes == TINY else gpu_profile.STEPS
    yield gpu_profile.profile_steps(lambda: step(images, targets), bench.device, steps)


MEASURES: dict[str, Measure] = {
    "machine": describe,
    "photos": make_jpegs,
    "our step, eager": our_rate,
    "our step, eager, with mixup, CutMix and EMA": partial(our_rate, mixup=0.2, cutmix=1.0, ema=0.9998),
    "our step, compiled": partial(our_rate, compiled=True),
    **dict.fromkeys(PEERS, peer_rate),
    "our training from JPEGs": jpeg_training_rate,
    **{f"inference, {name}": partial(inference_rates, precision=name) for name in ("single", "tf32", "half", "bf16")},
    "features of JPEGs by timm and its loader, bf16": timm_features,
    "graphs": graph_rates,
    "profile": profile,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.gpu_measure", description=__doc__)
    parser.add_argument("name", choices=MEASURES)
    parser.add_argument("--device", required=True)
    parser.add_argument("--folder", required=True, type=Path, help="where the JPEGs are")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    device = device_named(options.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    bench = Bench(device, TINY if options.tiny else sizes_for(device), options.folder)
    with Path(os.environ["RESNET_TOOLS_ROWS"]).open("a") as rows:
        for row in MEASURES[options.name](bench, options.name):
            print(json.dumps(row), file=rows, flush=True)


if __name__ == "__main__":  # the processes that load images import this module too
    main()
