"""What a file of another trainer, or a `config.json` beside it, says of its net: kind, class names, preprocessing.

Keys are told by what they mean, wherever they stand: `class_to_idx`, `names` or `id2label`; timm's `pretrained_cfg`;
`arch`, also in the arguments of the program that trained it. What our preprocessing cannot express is told.

Source: timm data/config.py and models/_hub.py; transformers' config.json; torchvision references/classification.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from resnet_tools.checkpoints.placeholders import Unordered, name_of, tables_of
from resnet_tools.checkpoints.torch_values import is_array, texts_of
from resnet_tools.data.transforms import Preprocessing
from resnet_tools.errors import CheckpointError
from resnet_tools.nets.architecture import Architecture
from resnet_tools.text import counted

CLASS_KEYS = (
    *("classes", "class_names", "classnames", "class_to_idx", "idx_to_class", "names", "label_names", "labels"),
    *("id2label", "label2id", "idx2label", "label2idx", "class_list", "categories"),
)
SURE_CLASS_KEYS = CLASS_KEYS[:5] + CLASS_KEYS[8:12]  # the others often hold something else
KIND_KEYS = ("architecture", "arch", "model_name", "base_model", "backbone", "model", "name")
NAME_KEYS = KIND_KEYS[:3]  # the others often name something else
CONFIG_KEYS = ("pretrained_cfg", "default_cfg")
CONFIG_FILE = "config.json"
OPTIONS: dict[str, tuple[Any, ...]] = {  # of timm, torchvision and transformers that change a net; the usual values
    "output_stride": (32, "32"),
    "replace_stride_with_dilation": (),
    "aa_layer": (),
    "block_args": (),
    "act_layer": ("relu",),
    "hidden_act": ("relu",),
    "avg_down": (),
    "global_pool": ("avg", "fast", "fastavg"),
    "downsample_in_bottleneck": (),
    "downsample_in_first_stage": (),
}
MAX_CONFIG_BYTES = 16 << 20
MAX_UNIT_MEAN = 2.0  # larger means are those of pixels from 0 to 255
MAX_NAME = 10_000  # characters
MAX_TABLES = 1000
MAX_DEPTH = 4

# Nets that share the names of a residual net's parameters, or nearly, and compute something else.
_OTHER_NETS = re.compile(
    r"resnex?t(aa|blur|rs|v2|est)|(^|[_\-./ ])(se|eca|sk|gc|cbam|bot|lambda|halo|bat|t)[_-]?resnex?t|res2ne|resnest"
    r"|resnex?t[_-]?\d+(_\d+x\d+d)?([_-]?(d|vd|aa|ts|blur|gn|ibn)|[ceste]|[_-]v1[cdes])([_\-. ]|$)"
    r"|preact|pre_resnet|[_-]ibn|dilat|[_-]os(8|16)|frelu|fixup"
)
_DEPTH = re.compile(r"(?:tv_|wide_)?resnex?t[_-]?(\d{2,4})(?:_.*|\..*)?")


@dataclass(frozen=True)
class Description:
    """What is said of a net, None where nothing is; `notes` tell what could not be used."""

    class_names: list[str] | None
    preprocessing: Preprocessing
    notes: list[str]


def description_of(content: Any, path: Path, net: Architecture, default: Preprocessing) -> Description:
    """What a file's tables say, and else the `config.json` beside it, of the net of its weights.

    Raises: CheckpointError if it is said to be a net of another kind.
    """
    beside = _config_beside(path)
    tables = [*_tables(content), *_tables(beside)]
    for table in tables:
        _check_kind(table)
    names, notes = _class_names(tables, net.num_classes)
    notes += _contradictions(tables, net)
    config = next((table[key] for table in tables for key in CONFIG_KEYS if isinstance(table.get(key), Mapping)), None)
    preprocessing, differing = _preprocessing(config or (beside if "input_size" in beside else {}), default)
    return Description(names, preprocessing, notes + differing)


def _tables(content: Any) -> Iterator[Mapping[Any, Any]]:
    """The tables of a file, the outer ones first; those that hold tensors are only met, not searched."""
    waiting, visited = [(content, 0)], 0
    while waiting and visited < MAX_TABLES:
        value, depth = waiting.pop(0)
        for table in tables_of(value):
            visited += 1
            yield table
            if depth < MAX_DEPTH and len(table) < MAX_TABLES:
                waiting += [(inner, depth + 1) for inner in table.values() if any(True for _ in tables_of(inner))]


def _config_beside(path: Path) -> dict[str, Any]:
    beside = path.with_name(CONFIG_FILE)
    try:
        if not beside.is_file() or beside.stat().st_size > MAX_CONFIG_BYTES:
            return {}
        config = json.loads(beside.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    about_net = isinstance(config, dict) and any(key in config for key in (*KIND_KEYS, *CONFIG_KEYS, "architectures"))
    return config if about_net else {}


def _check_kind(table: Mapping[Any, Any]) -> None:
    for key in KIND_KEYS:
        name = table.get(key)
        if isinstance(name, str) and len(name) < MAX_NAME and _OTHER_NETS.search(name.lower()):
            raise CheckpointError(
                f"{key} in it says {name!r:.60}: a net that computes something else than a ResNet of torchvision with "
                "parameters of these names, so it is refused"
            )
    for key, usual in OPTIONS.items():
        value = table.get(key)
        if value and value not in usual and not (isinstance(value, (list, tuple)) and not any(value)):
            raise CheckpointError(f"{key} in it says {value!r:.60}: such a net is not supported, so it is refused")


def _contradictions(tables: list[Mapping[Any, Any]], net: Architecture) -> list[str]:
    """What is told if a name in the file is that of a residual net of another depth; the weights decide."""
    for key, name in ((key, table.get(key)) for key in NAME_KEYS for table in tables):
        depth = _DEPTH.fullmatch(name.lower()) if isinstance(name, str) and len(name) < MAX_NAME else None
        if depth and int(depth[1]) != net.depth:
            return [f"{key} in it says {name!r:.60}, but its weights, which count, are those of a ResNet-{net.depth}"]
    return []


def _class_names(tables: list[Mapping[Any, Any]], outputs: int) -> tuple[list[str] | None, list[str]]:
    """The names of the outputs, or what is wrong with those that are there."""
    notes = []
    for key in CLASS_KEYS if outputs else ():
        for table in tables:
            value = next((table[k] for k in table if isinstance(k, str) and k.lower() == key), None)
            names = _listed_names(value)
            if names is not None and len(names) == outputs:
                return names, []
            if names:
                notes.append(
                    f"{key} in it is ignored: it has {counted(len(names), 'name')}; expected one for each of {outputs}"
                )
            elif names is None and key in SURE_CLASS_KEYS and not isinstance(value, (int, float, type(None))):
                numbered = f"expected {outputs} names with the numbers 0 to {outputs - 1}"
                problem = numbered if isinstance(value, dict) else f"class names cannot be read from {_kind(value)}"
                notes.append(f"{key} in it is ignored: {problem}")
    return None, notes[:1]


def _listed_names(value: Any) -> list[str] | None:
    """Names in order, from a list or array, {name: index} or {index: name}; None if it is none of these."""
    texts = texts_of(value)
    if texts is not None:
        return texts if all(map(_is_name, texts)) else None
    table = next(tables_of(value), None)
    if not table:
        return None
    pairs = [
        (_index(i), name) if _index(i) is not None and _is_name(name) else (_index(name), i)
        for i, name in table.items()
    ]
    if any(index is None or not _is_name(name) for index, name in pairs):
        return None
    by_index = dict(pairs)
    if sorted(by_index) != list(range(len(table))):  # type: ignore[type-var]
        return None
    return [by_index[index] for index in range(len(table))]


def _kind(value: Any) -> str:
    """What stands where class names should: `a list that holds a whole number`."""
    if isinstance(value, Unordered):
        return "a set, which has no order"
    if is_array(value):
        return "an array of NumPy that is not a list of strings"
    odd = next((item for item in value if not _is_name(item)), None) if isinstance(value, (list, tuple)) else None
    return name_of(value) if odd is None else f"{name_of(value)} that holds {name_of(odd)}"


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_NAME


def _index(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 9:
        return int(value)
    return value if type(value) is int else None


def _preprocessing(config: Mapping[Any, Any], default: Preprocessing) -> tuple[Preprocessing, list[str]]:
    """timm's configuration -> ours, and what of it ours cannot express."""
    if not config:
        return default, []
    notes = []
    found = default
    size = config.get("input_size", config.get("img_size"))
    side = size[-1] if isinstance(size, (list, tuple)) and size else size
    if isinstance(size, (list, tuple)) and len(size) > 1 and size[-2] != side:
        notes.append(f"its images were {size[-2]} x {side}, and are cropped to a square here")
    share = config.get("crop_pct", 0.875)
    try:
        if not all(isinstance(number, (int, float)) for number in (share, side) if number is not None):
            raise ValueError(f"input_size is {size!r:.40} and crop_pct {share!r:.40}; expected numbers")
        changes: dict[str, Any] = {}
        if side is not None:
            changes = {"crop_px": side, "resize_px": math.floor(side / share)}
        elif "crop_pct" in config:
            changes = {"resize_px": math.floor(default.crop_px / share)}
        for key in ("mean", "std"):
            if key in config:
                changes[key] = tuple(float(value) for value in config[key])
        if "mean" in changes:
            changes["pixel_max"] = 255.0 if max(changes["mean"]) > MAX_UNIT_MEAN else 1.0
        found = replace(default, **changes).for_channels(default.channels)
    except (ValueError, TypeError, ZeroDivisionError, OverflowError) as error:
        notes.append(f"its preprocessing is ignored because it is not possible here: {error}")
    interpolation = config.get("interpolation", "bicubic")
    if interpolation != "bicubic":
        notes.append(
            f"its images were scaled with {interpolation!r:.20} interpolation, and are scaled with bicubic here"
        )
    if config.get("crop_mode", "center") != "center":
        notes.append(f"its images were cropped by {config['crop_mode']!r:.20}, and are cropped in the center here")
    return found, notes
