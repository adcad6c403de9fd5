"""What the user names -> the file of a model; and the class names that lie beside it."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path

from resnet_tools.checkpoints.run_folder import net_of_run
from resnet_tools.data.labels import read_labels
from resnet_tools.errors import CheckpointError, Note
from resnet_tools.nets.catalog import download_advice
from resnet_tools.text import counted

DEMO = "demo"
DEMO_PATH = Path(__file__).parents[1] / "assets" / "fashion-resnet-18.t7"


def model_path(path: str | os.PathLike[str]) -> Path:
    """The file itself; of the folder of a run its best net, which a warning names; `demo` names the net of the package
    unless there is a file of that name.

    Raises: CheckpointError if nothing is there, or a folder that holds no run.
    """
    name = os.fsdecode(path)
    if not os.path.exists(name):
        if name == DEMO:
            return DEMO_PATH
        address = re.match(r"[a-z0-9+]+:/", name)
        problem = "this is an address; download the file" if address else "cannot be read: No such file or directory"
        raise CheckpointError(f"{name}: {problem}. {download_advice(name)}")
    if not os.path.isdir(name):
        return Path(name)
    found = net_of_run(Path(name))
    warnings.warn(f"{name}: the net of this run is {found.name}", Note, stacklevel=2)
    return found


def names_beside(path: Path) -> Path:
    """The file of class names for a format that holds none."""
    return path.with_name(f"{path.stem}.classes.txt")


def classes_beside(path: Path, count: int) -> list[str] | None:
    """The class names in that file; warns and gives None if they are not as many as the outputs."""
    beside = names_beside(path)
    if not beside.is_file():
        return None
    class_names = read_labels(beside)
    if len(class_names) != count:
        warnings.warn(
            f"{beside} is ignored: it has {counted(len(class_names), 'line')}; "
            f"expected one for each of the {count} outputs",
            stacklevel=3,
        )
        return None
    return class_names
