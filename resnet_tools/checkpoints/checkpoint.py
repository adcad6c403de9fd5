"""Path -> model, class names and preprocessing, for every format, recognised by its content and never by its name.

- `.t7`: Lua Torch; holds no preprocessing. If its tables hold several nets, one is chosen; see `net_weights`.
- `.pt`: ours, one dict of tensors and plain values: {"format": "resnet_tools", "version", "architecture", "classes",
  "preprocessing", "state_dict"}.
- `.safetensors`: the weights, with the same description as JSON in the metadata under "resnet_tools"; without it, a
  state dict as in a `.pth`.
- `.pth`: the weights of a residual net as torchvision names them, in whatever tables and under whatever prefix a
  trainer keeps them (`net_weights`), with what the file says about them (`foreign`); also a TorchScript archive.

Class names that a file does not hold are read from `NAME.classes.txt` beside it, one per line.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resnet_tools.checkpoints.lua_nets import check_doubles, net_of_tables
from resnet_tools.checkpoints.model_files import DEMO, classes_beside, model_path
from resnet_tools.checkpoints.placeholders import name_of
from resnet_tools.checkpoints.weights import (
    Array,
    ModelField,
    Weights,
    held_by,
    not_finite,
    read_safetensors_arrays,
    weights_in,
)
from resnet_tools.data.transforms import CIFAR10, CIFAR100, IMAGENET, Preprocessing
from resnet_tools.errors import CheckpointError, ModuleError, RecognitionError, ResnetToolsError
from resnet_tools.nets.architecture import Architecture
from resnet_tools.reading import collector_paused
from resnet_tools.text import counted
from resnet_tools.torch7.modules import classes_in, module_tree, other_classes_in
from resnet_tools.torch7.recognise import crop_px, recognise_and_bind
from resnet_tools.torch7.sniff import HEAD_BYTES, content_kind, looks_like_t7
from resnet_tools.torch7.t7 import read_t7
from resnet_tools.torch7.weights import weights_of

# What reads and writes files of PyTorch imports torch, which takes seconds, so it is imported where it is needed.
if TYPE_CHECKING:
    import torch

    from resnet_tools.nets.resnet import ResNet

FORMAT, VERSION = "resnet_tools", 1
NOT_A_RESNET = (RecognitionError, ModuleError)
MAX_CLASS_NAME = 10_000  # characters; ImageNet's longest has 121


@dataclass(frozen=True)
class Checkpoint:
    """A net with what it needs to be used.

    `model`: on the CPU in eval mode, (N, 3, H, W) float32 -> (N, K) logits; `model.forward_features` gives (N, D). It
    is built when it is first asked for.
    `class_names`: K names in the order of the outputs, or None. `format`: t7, pt, safetensors or pth.
    Without a classifier K is 0 and the model gives features (N, D); `no_classifier` may say why there is none.
    """

    model: ResNet
    architecture: Architecture
    class_names: list[str] | None
    preprocessing: Preprocessing
    format: str
    no_classifier: str | None = None

    @property
    def arrays(self) -> dict[str, Array]:
        """The weights by name, as arrays; those of `model` once that has been asked for. Needs no torch before."""
        return weights_in(held_by(self))

    @property
    def num_classes(self) -> int:
        return self.architecture.num_classes

    @property
    def classes(self) -> list[str] | None:
        """The same as `class_names`."""
        return self.class_names


Checkpoint.model = ModelField()  # type: ignore[assignment]


def load_checkpoint(
    path: str | os.PathLike[str] = DEMO, *, weights: str | None = None, device: str | torch.device = "cpu"
) -> Checkpoint:
    """The net in a file, with its class names and preprocessing.

    path: a `.t7`, our `.pt`, a `.safetensors`, a torchvision `.pth`, another trainer's PyTorch file, or the folder of a
    training, which stands for its best net; the content decides and not the name. `demo` is the net of the package.
    weights: where in the file the net lies, if it holds several: `state_dict_ema`, `encoder_q`, `last`.
    device: where the net is to be: `cpu`, `cuda`, `cuda:1`, `mps`, or `auto`. No code in a file is run.
    Warns in one line of what was chosen, stripped or left out, and of weights that are not finite.
    Raises: T7Error, ModuleError, RecognitionError or CheckpointError, whose messages begin with the path;
    ResnetToolsError if there is no such device.

    >>> from resnet_tools import load_checkpoint, preprocess
    >>> checkpoint = load_checkpoint("demo")
    >>> image = preprocess("resnet_tools/assets/images/bag.png", checkpoint.preprocessing)
    >>> logits = checkpoint.model(image[None])
    >>> tuple(logits.shape), checkpoint.class_names[int(logits.argmax())]
    ((1, 10), 'bag')
    """
    found = model_path(path)
    try:
        with collector_paused():
            checkpoint = _LOADERS[_format_of(found)](found, weights)
    except ResnetToolsError as error:
        text = str(error)
        advice = f". `resnet inspect {found}` shows what it holds" if isinstance(error, NOT_A_RESNET) else ""
        raise type(error)((text if text.startswith(str(found)) else f"{found}: {text}") + advice) from error.__cause__
    if checkpoint.class_names is None:
        names = classes_beside(found, checkpoint.num_classes)
        checkpoint = replace(checkpoint, model=held_by(checkpoint), class_names=names)  # type: ignore[arg-type]
    damaged = not_finite(checkpoint.arrays)
    if damaged is not None:
        _warn(found, f"{damaged} holds NaN or infinite numbers, so the outputs of the net may be NaN or infinite too")
    if str(device) != "cpu":
        from resnet_tools.compute.device import find_device

        checkpoint.model.to(find_device(str(device)))
    return checkpoint


load_model = load_checkpoint


def _format_of(path: Path) -> str:
    """As `tensor_files.format_of`, which is asked of what torch reads and of all else."""
    try:
        head, size = b"", 0
        if path.is_file():  # a pipe would be waited for
            with path.open("rb") as file:
                head, size = file.read(HEAD_BYTES), path.stat().st_size
        kind = content_kind(head, size)
        if kind == "safetensors" or (kind is None and looks_like_t7(head)):
            return kind or "t7"
    except (OSError, ValueError):  # it says more of these
        pass
    from resnet_tools.checkpoints.tensor_files import format_of

    return format_of(path)


def default_preprocessing(architecture: Architecture) -> Preprocessing:
    """What a net without a description was trained with, judged by its stem, its channels and its number of classes."""
    usual = CIFAR100 if architecture.num_classes == 100 else CIFAR10
    return (IMAGENET if architecture.stem == "imagenet" else usual).for_channels(architecture.in_channels)


def _load_t7(path: Path, weights: str | None) -> Checkpoint:
    value = read_t7(path)
    net, notes = net_of_tables(value, weights)
    tree = module_tree(net)
    architecture, bound = recognise_and_bind(tree)
    arrays = weights_of(bound, architecture)
    check_doubles(arrays, bound)
    net_weights = Weights(architecture, arrays)
    class_names = classes_in(value, architecture.num_classes)
    others = other_classes_in(value, architecture.num_classes) if architecture.num_classes else None
    notes = [*notes, others] if others else notes
    preprocessing = _at_crop(default_preprocessing(architecture), crop_px(tree, architecture))
    _warn(path, *notes)
    return Checkpoint(net_weights, architecture, class_names, preprocessing, "t7")  # type: ignore[arg-type]


def _at_crop(usual: Preprocessing, crop_px: int | None) -> Preprocessing:
    """The same for crops of another size, with as much of the image around them."""
    if crop_px is None or crop_px == usual.crop_px:
        return usual
    return replace(usual, crop_px=crop_px, resize_px=round(crop_px * usual.resize_px / usual.crop_px))


def _load_pt(path: Path, weights: str | None) -> Checkpoint:
    from resnet_tools.checkpoints.tensor_files import named_tensors
    from resnet_tools.checkpoints.torch_files import FROZEN, read_torch

    file = read_torch(path)
    content = file.content
    if isinstance(content, Mapping) and content.get("format") == FORMAT:
        return _described(content, content.get("state_dict"), "pt")
    if isinstance(content, Mapping) and "modelFile" in content:
        name = str(content["modelFile"])
        raise CheckpointError(f"it holds the state of a training and no net; the net is in {name!r:.80} beside it")
    if file.torchscript and next(named_tensors(content), None) is None:
        raise CheckpointError(FROZEN)
    notes = ["a TorchScript archive: its weights are read and its code is not run"] if file.torchscript else []
    return _foreign(path, content, "pth", weights, notes)


def _load_safetensors(path: Path, weights: str | None) -> Checkpoint:
    state: Any
    plain = read_safetensors_arrays(path)
    if plain is not None and FORMAT in plain[1]:
        state, metadata = plain
    else:
        from resnet_tools.checkpoints.tensor_files import read_safetensors

        state, metadata = read_safetensors(path)
    if FORMAT not in metadata:
        return _foreign(path, state, "safetensors", weights, [])
    try:
        description = json.loads(metadata[FORMAT])
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"the metadata {FORMAT!r} is not JSON ({error})") from error
    return _described(description, state, "safetensors")


_LOADERS = {"t7": _load_t7, "pt": _load_pt, "safetensors": _load_safetensors}


def _described(description: Any, state: Any, file_format: str) -> Checkpoint:
    """A checkpoint of ours: the description is checked, then the weights against it."""
    if not isinstance(description, Mapping):
        raise CheckpointError(f"the description is {name_of(description)}; expected a table")
    if description.get("version") is True or description.get("version") != VERSION:
        found = description.get("version")
        raise CheckpointError(f"it has version {found!r:.40} of our format; this program reads version {VERSION}")
    architecture = Architecture.from_dict(description.get("architecture"))
    class_names = _checked_classes(description.get("classes"), architecture.num_classes)
    try:
        preprocessing = Preprocessing.from_dict(description.get("preprocessing", {}))
    except ValueError as error:
        raise CheckpointError(f"its preprocessing is invalid: {error}") from error
    if preprocessing.channels != architecture.in_channels:
        found, expected = preprocessing.channels, architecture.in_channels
        raise CheckpointError(
            f"its preprocessing gives images of {counted(found, 'channel')}; the net takes {expected}"
        )
    model = Weights(architecture, _arrays(state))
    return Checkpoint(model, architecture, class_names, preprocessing, file_format)  # type: ignore[arg-type]


def _arrays(state: Any) -> dict[str, Array]:
    """Weights that may still lie in their file, as arrays."""
    if isinstance(state, dict) and state and all(isinstance(array, np.ndarray) for array in state.values()):
        return state
    from resnet_tools.checkpoints.tensor_files import checked_state, float_state

    return {key: tensor.numpy() for key, tensor in float_state(checked_state(state)).items()}


def _foreign(path: Path, content: Any, file_format: str, weights: str | None, notes: list[str]) -> Checkpoint:
    """The net in what another program saved."""
    from resnet_tools.checkpoints.foreign import description_of
    from resnet_tools.checkpoints.heads import find_head, left_out
    from resnet_tools.checkpoints.net_weights import find_net
    from resnet_tools.checkpoints.stored import check_numbers
    from resnet_tools.checkpoints.tensor_files import checked_state, float_state, named_tensors, pickled_module
    from resnet_tools.nets.state_dict import architecture_of, load_resnet

    named = list(named_tensors(content))
    if not any(tensor.dtype.is_floating_point and not tensor.odd for _, tensor in named):
        for keys, tensor in named:
            check_numbers(".".join(keys), tensor)
        if (module := pickled_module(content)) is not None:
            raise CheckpointError(module)
        checked_state(content)
    found = find_net(named, weights)
    net = architecture_of(found.body)
    head = find_head(found, net.feature_length)
    notes = [*notes, *found.notes, *head.notes, *left_out(found, head)]
    state = checked_state(found.body | head.classifier)
    architecture = architecture_of(state)
    said = description_of(content, path, architecture, default_preprocessing(architecture))
    model = load_resnet(architecture, float_state(state))
    _warn(path, *notes, *said.notes)
    return Checkpoint(model, architecture, said.class_names, said.preprocessing, file_format, head.problem)


def _warn(path: Path, *notes: str) -> None:
    if notes:
        warnings.warn(f"{path}: {'; '.join(notes)}", stacklevel=4)


def _checked_classes(class_names: Any, count: int) -> list[str] | None:
    if class_names is None:
        return None
    named = isinstance(class_names, list) and all(isinstance(c, str) and len(c) <= MAX_CLASS_NAME for c in class_names)
    if not named or len(class_names) != count:
        raise CheckpointError(f"its class names are not {count} strings, one for each output of the net")
    return list(class_names)
