"""Tensors by name, as any trainer keeps them -> the weights of one residual net under the names of `nets.resnet`.

No trainer is known by name. Wherever a key ends with `layer1.0.conv1.weight`, what stands before it is where a net
lies: tables around it (`state_dict`), and a prefix (`module.`, `model.backbone.`). A net is the tensors below that
place, and its classifier the one nn.Linear there or beside it that takes as many numbers as the net has features.
`nn.Sequential(*resnet.children())` names the same modules 0, 1, 4 ... 7 and 9, and transformers has names of its own.

`Found.notes` reports what was chosen, stripped or left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from resnet_tools.checkpoints.stored import StoredTensor, check_numbers
from resnet_tools.errors import CheckpointError
from resnet_tools.text import listed

Named = Sequence[tuple[tuple[str, ...], StoredTensor]]

BODY = re.compile(r"(conv1|bn1|layer\d+\.\d+|norm)\.")
MARK = "layer1.0.conv1.weight"
SEQUENTIAL_MARK = "4.0.conv1.weight"
SHORTCUT = re.compile(r"^(layer\d+\.\d+\.)(shortcut|skip|projection)\.(?=\d+\.)")
SEQUENTIAL = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4", "9": "fc"}
INSIDE = re.compile(r"(?:^|\.)(?:conv1|bn1|layer\d+|fc)\.")
WRAPPER = re.compile(r"\.(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|module)\.")
TRANSFORMERS = re.compile(
    r"(?:embedder\.embedder|encoder\.stages\.(\d{1,4})\.layers\.(\d{1,4})\.(?:layer\.(\d)|shortcut))"
    r"\.(convolution|normalization)\."
)
AVERAGED = re.compile(r"(^|[._])(ema|teacher|momentum|target|k|last|avg|averaged?|swa|shadow|old|prev)([._]|$)")
BEST = re.compile(r"(^|[._])best([._]|$)")
OPTIMIZERS = re.compile(r"(^|\.)(optim\w*|scaler|\w*scheduler)\.")


@dataclass(frozen=True)
class Place:
    """Where a net lies: `name` is all that stands before its keys, without the last dot; `prefix` of it, the key's."""

    name: str
    prefix: str
    sequential: bool = False

    @property
    def start(self) -> str:
        return f"{self.name}." if self.name else ""

    @property
    def table(self) -> str:
        """What stands before the keys of the table that the net is in."""
        return self.start.removesuffix(self.prefix)

    @property
    def shown(self) -> str:
        return self.name or "."


@dataclass(frozen=True)
class Found:
    """The weights of one net under our names, and the tensors beside them by whole names."""

    place: Place
    body: dict[str, StoredTensor]
    others: dict[str, StoredTensor]
    notes: list[str] = field(default_factory=list)


def find_net(named: Named, wanted: str | None = None) -> Found:
    """The net among the tensors of a file, with the head still among `others`.

    wanted: where it lies, as messages and `places` name it, or a part of that: `state_dict_ema`, `encoder_q`.
    Raises: CheckpointError if there is no net, or none there.
    """
    named, renamed = _under_our_names(named)
    tensors = {".".join(keys): tensor for keys, tensor in named}
    places = _places(named)
    if not places:
        raise CheckpointError(_no_net(tensors))
    place, notes = choose(places, wanted)
    notes += renamed
    other_places = [other for other in places if other != place and not place.start.startswith(other.start)]
    elsewhere = tuple(other.start for other in other_places)
    inside, others = {}, {}
    for name, tensor in tensors.items():
        counter = name.endswith("num_batches_tracked") and tensor.shape != ()  # as NumPy may have made it
        if name.startswith(elsewhere) or OPTIMIZERS.search(name) or counter:
            continue
        key = _unnumbered(name.removeprefix(place.start)) if place.sequential else name.removeprefix(place.start)
        if name.startswith(place.start) and BODY.match(key):
            inside[SHORTCUT.sub(r"\1downsample.", key)] = tensor
        elif name.startswith(place.start):
            others[place.start + key] = tensor
        elif _related(name, place, places):
            others[name] = tensor
    if place.prefix not in ("", "module."):
        notes.append(f"the prefix {place.prefix!r} is stripped from its keys")
    _check_kind(inside)
    for name, tensor in inside.items():
        check_numbers(name, tensor)
    return Found(place, inside, others, notes)


def choose(places: Sequence[Place], wanted: str | None) -> tuple[Place, list[str]]:
    """The place to take, and what is told of the choice. Raises: CheckpointError if nothing is at `wanted`."""
    fitting = list(places)
    if wanted is not None:
        key = wanted.strip(".")
        fitting = [p for p in places if p.name == key] or [p for p in places if key and f".{key}." in f".{p.name}."]
    if not fitting:
        there = ", ".join(place.shown for place in places) or "no place in it"
        raise CheckpointError(f"--weights {wanted}: no residual net is there; there is one at {there}")
    place = min(fitting, key=lambda place: (_averaged(place), place.name.count(".")))
    if len(fitting) < 2:
        return place, []
    rest = ", ".join(other.shown for other in places if other != place)
    return place, [f"the weights at {place.shown} are used; --weights chooses others: {rest}"]


def _under_our_names(named: Named) -> tuple[Named, list[str]]:
    """The same tensors under torchvision's names, and what is told of those that had others."""
    notes, found = dict[str, None](), []
    for keys, tensor in named:
        key, inside = keys[-1], INSIDE.search(keys[-1])
        if TRANSFORMERS.search(key):
            notes["its parameters have the names of transformers' ResNet"] = None
            key = TRANSFORMERS.sub(_name_of_transformers, key)
        elif inside and (wrapper := WRAPPER.search(key, inside.end() - 1)):
            notes[f"{wrapper[1]!r} is taken out of its keys"] = None
            key = key[: inside.end() - 1] + WRAPPER.sub(".", key[inside.end() - 1 :])
        found.append(((*keys[:-1], key), tensor))
    return found, list(notes)


def _name_of_transformers(found: re.Match[str]) -> str:
    """`encoder.stages.0.layers.1.layer.2.normalization` is `layer1.1.bn3`."""
    stage, block, conv, part = found.groups()
    layer = "conv" if part == "convolution" else "bn"
    if stage is None:
        return f"{layer}1."
    start = f"layer{int(stage) + 1}.{block}."
    return start + (f"{layer}{int(conv) + 1}." if conv is not None else f"downsample.{int(layer == 'bn')}.")


VARIANTS = (  # parts of the keys of nets that are residual nets of another kind
    (re.compile(r"conv1\.\d+\."), "its stem is of several convolutions (a ResNet-C, -D or -T)"),
    (re.compile(r"\.(se|se_module|fc1|fc2)\."), "its blocks have squeeze-and-excitation (an SE-ResNet)"),
    (re.compile(r"\.(eca|cbam|gc|attn|ca|sa)\."), "its blocks have attention"),
    (re.compile(r"downsample\.2\."), "its shortcuts pool before the convolution (a ResNet-D)"),
    (re.compile(r"conv2_offset|\.conv_offset"), "it has deformable convolutions"),
    (re.compile(r"\.IN\."), "it has instance normalisation (IBN)"),
    (re.compile(r"\.(conv4|bn4)\."), "its blocks have four convolutions"),
)


def unknown_parameter(key: str) -> str:
    """The message for a key that our nets do not have, with the kind of net that has it."""
    reason = next((f": {what}" for pattern, what in VARIANTS if pattern.search(f".{key}")), "")
    return f"the key {key} is unknown; this net has no such parameter{reason}"


def _check_kind(body: Mapping[str, StoredTensor]) -> None:
    """Raises: CheckpointError naming a key of another kind of residual net."""
    for key in body:
        if any(pattern.search(f".{key}") for pattern, _ in VARIANTS):
            raise CheckpointError(unknown_parameter(key))


def _places(named: Named) -> list[Place]:
    found: dict[str, Place] = {}
    for mark in (MARK, SEQUENTIAL_MARK):
        for keys, tensor in named:
            name, last = ".".join(keys), keys[-1]
            if not f".{name}".endswith(f".{mark}") or len(tensor.shape) != 4 or OPTIMIZERS.search(name):
                continue
            place = name.removesuffix(mark).removesuffix(".")
            prefix = last.removesuffix(mark) if last.endswith(mark) else ""
            found.setdefault(place, Place(place, prefix, mark == SEQUENTIAL_MARK))
    return list(found.values())


def _averaged(place: Place) -> int:
    """The trained weights go before a mean of them, the best before the others."""
    return len(AVERAGED.findall(place.name)) - len(BEST.findall(place.name))


def _related(name: str, place: Place, places: Sequence[Place]) -> bool:
    """Whether a tensor beside the net can be its own: no other net lies nearer to it."""
    around = max((o.start.count(".") for o in places if o != place and place.start.startswith(o.start)), default=-1)
    nearest = max(_shared(name, other.start) for other in places)
    return _shared(name, place.start) >= max(nearest, around + 1)


def _shared(first: str, second: str) -> int:
    """How many leading parts two names share."""
    count = 0
    for one, two in zip(first.split("."), second.split("."), strict=False):
        if one != two:
            break
        count += 1
    return count


def _unnumbered(key: str) -> str:
    first, _, rest = key.partition(".")
    return f"{SEQUENTIAL.get(first, first)}.{rest}"


def _no_net(tensors: Mapping[str, StoredTensor]) -> str:
    """The nearest key that is there is named, and none is called missing that stands there under a prefix."""
    keys = f"; its keys are {listed(tensors)}" if tensors else ""
    stems = [name for name in tensors if f".{name}".endswith(".conv1.weight")]
    missing = MARK if stems else "conv1.weight"
    return f"it is not a residual net: the key {missing} is missing, with any prefix{keys}"
