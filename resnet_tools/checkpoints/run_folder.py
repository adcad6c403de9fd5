"""The folder of a training run -> the file with its net: the best one, or else the latest.

A run of the original has the same files with the ending .t7. No torch is loaded to tell whether a folder holds a run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from resnet_tools.errors import CheckpointError, ResnetToolsError

LATEST, LUA_LATEST, BEST, LUA_BEST = "latest.pt", "latest.t7", "model_best.pt", "model_best.t7"
NAMED = 200  # characters of a name shown


def holds_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (BEST, LATEST, LUA_BEST, LUA_LATEST))


def no_run_text(folder: str | os.PathLike[str]) -> str:
    return (
        f"{os.fspath(folder)}: cannot be read: Is a directory, and not that of a run, which has {BEST} or {LATEST} in "
        "it; give a file or the --save folder of a training"
    )


def net_of_run(folder: Path) -> Path:
    """The file of the best net, else of the one that latest.pt names.

    Raises: CheckpointError if the folder holds no run, or what its latest.pt names is not there.
    """
    for best, latest, read in ((BEST, LATEST, _read_latest), (LUA_BEST, LUA_LATEST, _read_lua_latest)):
        if (folder / best).is_file():
            return folder / best
        if (folder / latest).is_file():
            return _named_file(folder / latest, read)
    raise CheckpointError(no_run_text(folder))


def _named_file(latest: Path, read: Callable[[Path], Any]) -> Path:
    """Always in the folder of the run, so that the folder can be moved, and no other file is read."""
    try:
        content = read(latest)
    except ResnetToolsError as error:
        raise CheckpointError(f"{latest}: {str(error).removeprefix(f'{latest}: ')}") from error
    name = content.get("modelFile") if isinstance(content, Mapping) else None
    name = os.fsdecode(name) if isinstance(name, bytes) else name
    file = latest.parent / (os.path.basename(name) if isinstance(name, str) else "")
    if not isinstance(name, str) or "\0" in name or not file.is_file():
        found = f"names {name!r:.{NAMED}}" if name is not None else "names no file"
        raise CheckpointError(f"{latest}: {found}, which is not a file in {latest.parent}; give the file of a net")
    return file


def _read_latest(path: Path) -> Any:
    from resnet_tools.checkpoints.torch_files import read_torch

    return read_torch(path).content


def _read_lua_latest(path: Path) -> Any:
    from resnet_tools.torch7.t7 import read_t7

    return read_t7(path)
