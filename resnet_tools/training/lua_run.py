"""What the original's main.lua saved of a run, `latest.t7` and `optimState_E.t7` -> what ours continues from.

latest.t7: {epoch, modelFile, optimFile}. optimState: the table of optim.sgd; its `dfdx` is the momentum of all
parameters in one vector, in the order of Torch7's model:parameters(): module by module, weight before bias.
Source: checkpoints.lua of facebook/fb.resnet.torch, sgd.lua of torch/optim.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resnet_tools.errors import TrainingError
from resnet_tools.torch7.lua import LuaTable
from resnet_tools.torch7.modules import module_tree
from resnet_tools.torch7.recognise import recognise_and_bind
from resnet_tools.torch7.t7 import read_t7
from resnet_tools.training.run_files import LUA_LATEST


@dataclass(frozen=True)
class LuaRun:
    """Where the original's run stands: the last finished epoch and its files."""

    epoch: int
    model_file: Path
    optim_file: Path


def read_latest(folder: Path) -> LuaRun:
    """What `latest.t7` names. Raises: T7Error, TrainingError if it is not such a table or a file is missing."""
    path = folder / LUA_LATEST
    table = read_t7(path)
    epoch = table.get("epoch") if isinstance(table, LuaTable) else None
    names = [table.get(key) for key in ("modelFile", "optimFile")] if isinstance(table, LuaTable) else []
    if type(epoch) is not int or epoch < 0 or not all(isinstance(name, bytes) for name in names):
        raise TrainingError(f"{path}: expected a table with epoch, modelFile and optimFile, as main.lua writes it")
    return LuaRun(epoch, *files_beside(path, *(name.decode("utf-8", "surrogateescape") for name in names)))


def files_beside(latest: Path, model_name: str, optim_name: str) -> tuple[Path, Path]:
    """The files that a latest.t7, or our latest.pt, names: always in its own folder, so that a run can be moved.

    Raises: TrainingError naming a file that is missing.
    """
    model_file, optim_file = (latest.parent / Path(name).name for name in (model_name, optim_name))
    for file in (model_file, optim_file):
        if not os.path.isfile(file):  # the name may be no name at all
            raise TrainingError(f"{latest}: names {file.name}, which is not in {latest.parent}; copy it there")
    return model_file, optim_file


def lua_momentum(optim_file: Path, model_file: Path) -> dict[str, Tensor]:
    """The momentum by parameter name. `model_file` is the .t7 net that the state belongs to: it gives the order.

    Empty if the state has no momentum. Raises: T7Error, TrainingError if the vector does not fit the net.
    """
    state = read_t7(optim_file)
    if not isinstance(state, LuaTable):
        raise TrainingError(f"{optim_file}: holds a {type(state).__name__}; expected the table of optim.sgd")
    dfdx = state.get("dfdx")
    if dfdx is None:
        return {}
    if not isinstance(dfdx, np.ndarray) or dfdx.ndim != 1 or dfdx.dtype.kind != "f":
        raise TrainingError(f"{optim_file}: its dfdx is not a vector of floating-point numbers")
    tree = module_tree(read_t7(model_file))
    _, bound = recognise_and_bind(tree)
    keys = {id(module): key for key, (module, _) in bound.items()}
    momentum, start = {}, 0
    for module in tree.walk():
        for name in ("weight", "bias"):
            tensor: np.ndarray[Any, Any] | None = module.tensors.get(name)
            if tensor is None:
                continue
            part = dfdx[start : start + tensor.size]
            start += tensor.size
            if id(module) in keys and part.size == tensor.size:
                momentum[f"{keys[id(module)]}.{name}"] = torch.from_numpy(part.reshape(tensor.shape).copy())
    if start != dfdx.size:
        raise TrainingError(f"{optim_file}: its dfdx has {dfdx.size} numbers; {model_file} has {start} parameters")
    return momentum
