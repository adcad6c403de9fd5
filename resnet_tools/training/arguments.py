"""The options of a run <-> `args.json` in its folder, so that `--resume FOLDER` needs nothing else.

{"format", "version", "options": {name: value}, "absolute": {name: path}}: all options, named as the fields of
`TrainOptions`, as they were given; and where the paths among them led, for whoever resumes from another folder. Like
every file of a run it may come from a stranger: it is read within bounds, gives plain values only, and names no code.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from resnet_tools.errors import ResnetToolsError, TrainingError
from resnet_tools.reading import read_bounded
from resnet_tools.training.options import RESUMED, TrainOptions
from resnet_tools.writing import written_whole

ARGUMENTS = "args.json"
FORMAT, VERSION = "resnet_tools.arguments", 1
PATHS = ("data", "train_list", "val_list", "cache")
OF_ONE_CALL = ("save", "resume", "overwrite", "test_only", "quiet", "device", "n_gpu", "workers", "compile")
OF_THE_START = ("reset_classifier", "epoch_number")  # never None, and refused with --resume
MAX_BYTES, MAX_CHARACTERS = 1 << 20, 1 << 15
Plain = str | int | float | bool


def keep_arguments(options: TrainOptions, folder: Path) -> None:
    """Write `args.json` into the folder of the run; with --resume, what the run was started with stays in it.

    Raises: TrainingError if it cannot be written, or if that of the run to resume is damaged.
    """
    values = {name: os.fspath(value) if isinstance(value, Path) else value for name, value in asdict(options).items()}
    values = {name: value for name, value in values.items() if name not in OF_ONE_CALL}
    if options.resume:
        earlier = stored_arguments(Path(options.resume), set(values) - set(RESUMED))
        values |= {name: value for name, value in earlier.items() if values[name] is None or name in OF_THE_START}
    absolute = {name: os.path.abspath(values[name]) for name in PATHS if values[name]}
    content = {"format": FORMAT, "version": VERSION, "options": values, "absolute": absolute}
    path = folder / ARGUMENTS
    try:
        with written_whole(path) as partial:
            partial.write_text(json.dumps(content, indent=1) + "\n", encoding="ascii")
    except OSError as error:
        raise TrainingError(f"{path}: cannot be written: {error.strerror or error}") from error


def stored_arguments(folder: Path, needed: Collection[str] = RESUMED) -> dict[str, Plain]:
    """The options with which the run in the folder continues; those that were not given are left out.

    `needed`: the names that are looked at. Empty for a run of the original or of an older version, which has no such
    file. Raises: TrainingError naming the file if it is damaged or of another version.
    """
    path = folder / ARGUMENTS
    if not path.is_file():
        return {}
    content = _content(path)
    options, absolute = content.get("options"), content.get("absolute")
    if not isinstance(options, Mapping) or not isinstance(absolute, Mapping):
        raise TrainingError(f"{path}: holds no options; {_way_on(path)}")
    found: dict[str, Plain] = {}
    for name in needed:
        value = options.get(name)
        if name in PATHS:
            value = _path_now(value, absolute.get(name))
        if value is None or value == "":
            continue
        if not isinstance(value, Plain) or (isinstance(value, str) and ("\0" in value or len(value) > MAX_CHARACTERS)):
            raise TrainingError(f"{path}: {name} is {value!r:.40}; expected a number or a text. {_way_on(path)}")
        found[name] = value
    return found


def _content(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(read_bounded(path, MAX_BYTES, "file of options"))
    except ResnetToolsError as error:
        raise TrainingError(f"{error}. {_way_on(path)}") from error
    except (ValueError, RecursionError) as error:  # also what is no UTF-8, and numbers of thousands of digits
        raise TrainingError(f"{path}: is not JSON ({error!s:.100}). {_way_on(path)}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise TrainingError(f"{path}: holds no options of `resnet train`. {_way_on(path)}")
    if type(content.get("version")) is not int or content["version"] != VERSION:
        found = content.get("version")
        raise TrainingError(f"{path}: has version {found!r:.40}; this program reads version {VERSION}. {_way_on(path)}")
    return content


def _path_now(given: Any, absolute: Any) -> Any:
    """The path as it was given if it leads there still; else where it led then, or else from the folder of today."""
    texts = [path for path in (given, absolute, given) if isinstance(path, str) and path and "\0" not in path]
    if len(texts) == 3 and os.path.abspath(texts[0]) != os.path.normpath(texts[1]):
        del texts[0]
    return next((path for path in texts if os.path.exists(path)), texts[0] if texts else given)


def _way_on(path: Path) -> str:
    return f"Remove {path} and give --data and the other options of the run again"


def given_anew(stored: Mapping[str, Plain], given: Mapping[str, Any]) -> list[str]:
    """What was given in place of what is stored: `--on-error skip (was fail)`."""
    changed = []
    for name, value in given.items():
        now = os.fspath(value) if isinstance(value, Path) else value
        before = stored.get(name)
        same = name in PATHS and isinstance(before, str) and os.path.realpath(before) == os.path.realpath(now)
        if now != before and not same:
            changed.append(f"{option_text(name, now)} (was {option_text(name, before, bare=True)})")
    return changed


def option_text(name: str, value: Any, *, bare: bool = False) -> str:
    """An option as it is typed; `bare`: only its value."""
    option = f"--{OPTION_NAMES.get(name, name).replace('_', '-')}"
    if isinstance(value, bool):
        return option if value else option.replace("--", "--no-", 1)
    text = "not given" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return text if bare else f"{option} {text}"


OPTION_NAMES = {"epochs": "n_epochs", "augmentation": "augment"}  # of fields that are called otherwise
