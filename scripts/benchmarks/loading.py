"""Rows of the help, of loading and of converting files."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scripts.benchmarks.files import t7_file
from scripts.benchmarks.measure import RESNET, Row, importing, peak_of, printed_numbers, process, quick, resnet, row

if TYPE_CHECKING:
    from torch import Tensor

    from resnet_tools.nets.architecture import Architecture


def help_rows(_: Path) -> Iterator[Row]:
    yield row("resnet --help : import click", resnet("--help"), importing("click"), 1.3, 15)
    yield row("resnet classify --help : import click", resnet("classify", "--help"), importing("click"), 1.5, 15)
    yield row("resnet --help : import torch", resnet("--help"), importing("torch"), 0.05, 3)


def t7_rows(folder: Path) -> Iterator[Row]:
    from resnet_tools import load_checkpoint, read_t7, save_model

    for name in ("resnet-18",) if quick.get() else ("resnet-50", "published-resnet-200"):
        path = t7_file(folder, name)
        label = f"{name} ({path.stat().st_size / 1e6:.0f} MB)"
        read_all = partial(np.fromfile, path, np.uint8)
        yield row(f"parse {label} : np.fromfile", partial(read_t7, path), read_all, 0.5, 15)
        yield row(
            f"parse and load the weights of {label} : np.fromfile", partial(load_weights, path), read_all, 1.3, 15
        )
        load = lambda path=path: load_checkpoint(path).model  # noqa: E731
        yield row(f"the same of {label}, and build the net : np.fromfile", load, read_all, 1.3, 15)
        checkpoint = load_checkpoint(path)
        peer = partial(assigned, path, checkpoint.architecture, checkpoint.model.state_dict())
        yield row(f"{label} to checkpoint.model : torchfile, then a net with assigned weights", load, peer, 0.8, 15)
        save_model(checkpoint, folder / f"{name}.safetensors")
        peer = partial(assigned, folder / f"{name}.safetensors", checkpoint.architecture, None)
        yield row(f"{label} to checkpoint.model : the same from a .safetensors", load, peer, 2.0, 15)
        [peak], weights = printed_numbers("peak_of_loading", path), checkpoint.model.state_dict().values()
        ratio = peak / sum(tensor.nbytes for tensor in weights)
        yield Row(f"peak memory of loading {label} : weights", ratio, 1.2, f"{peak / 1e6:,.0f} MB")


def assigned(path: Path, architecture: Architecture, state: Mapping[str, Tensor] | None) -> object:
    """What torchfile and torch need at least, if the weights need not be looked for in what the file holds.

    Without `state` the weights are those of a .safetensors.
    """
    import safetensors.torch
    import torch
    import torchfile

    from resnet_tools.nets.resnet import ResNet

    content = torchfile.load(str(path)) if state is not None else safetensors.torch.load_file(path)
    state = content if state is None else state
    with torch.device("meta"):
        model = ResNet(architecture)
    model.load_state_dict(state, assign=True)
    return content, model


def load_weights(path: Path) -> object:
    from resnet_tools import read_t7
    from resnet_tools.torch7.modules import module_tree
    from resnet_tools.torch7.recognise import recognise_and_bind
    from resnet_tools.torch7.weights import state_dict

    architecture, bound = recognise_and_bind(module_tree(read_t7(path)))
    return state_dict(bound, architecture)


def convert_rows(folder: Path) -> Iterator[Row]:
    """A file of the size of the published ones, all of it weights: with gradients half of it need not be read."""
    source = t7_file(folder, "resnet-18" if quick.get() else "published-resnet-200")
    size = source.stat().st_size
    copied, imported = process("cp", source, folder / "copy.t7"), importing("torch")
    for ending, time_target, memory_target in ((".safetensors", 1.5, 1.3), (".onnx", 2.5, 1.5)):
        command = ("convert", source, folder / f"converted{ending}", "--force")
        label = f".t7 to {ending} ({size / 1e6:.0f} MB)"
        name = f"convert {label} : cp and import torch"
        yield row(name, resnet(*command), lambda: (copied(), imported()), time_target)
        peaks = [peak_of(RESNET, *command), peak_of(sys.executable, "-c", "import torch")]
        detail = f"{peaks[0] / 1e6:,.0f} MB, of which importing torch {peaks[1] / 1e6:,.0f} MB"
        ratio = (peaks[0] - peaks[1]) / size
        yield Row(f"peak memory of converting {label}, beyond importing torch : the file", ratio, memory_target, detail)
