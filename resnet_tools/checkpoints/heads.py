"""The tensors beside a residual net -> its classifier, and what is told of the others.

The classifier is the one nn.Linear beside the net that takes as many numbers as the net has features. A head of several
layers, or one that stores its weights in another way, is none: the net then gives features only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from resnet_tools.checkpoints.net_weights import Found, unknown_parameter
from resnet_tools.checkpoints.stored import StoredTensor, check_numbers
from resnet_tools.errors import CheckpointError
from resnet_tools.text import listed

HEADS = ("fc", "head", "classifier", "last_linear", "linear", "logits")  # of several, the first of these is taken
SMALL = 4096  # numbers of a buffer, such as the weights of classes in a loss


@dataclass(frozen=True)
class Head:
    """The classifier as `fc.weight` and `fc.bias`, empty if there is none; `problem`: why what is there is none."""

    classifier: dict[str, StoredTensor] = field(default_factory=dict)
    used: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    problem: str | None = None


def find_head(found: Found, features: int) -> Head:
    """The classifier behind a net that gives so many features.

    Raises: CheckpointError if its nn.Linear takes another number, or is stored in another way than as numbers.
    """
    linears = {
        name.removesuffix(".weight"): tensor
        for name, tensor in found.others.items()
        if name.endswith("weight") and len(tensor.shape) == 2
    }
    groups = _groups(found)
    single = [group for group, layers in groups.items() if _is_one_linear(found, layers, features)]
    between = [layer for layers in groups.values() for layer in layers if _normalises(found, layer, features)]
    if single and not between:
        group = min(single, key=_head_rank)
        [layer] = groups[group]
        outputs = linears[layer].shape[0]
        behind = [other for other, t in linears.items() if other != layer and t.shape[1] == outputs != features]
        if not behind:
            return _head(found, layer)
        between = [layer, *behind]
    heads = [layers for layers in groups.values() if any(_takes(linears, layer, features) for layer in layers)]
    if heads or between:
        several = dict.fromkeys([*between, *(layer for layers in heads for layer in layers)])
        if len(several) == 1 and (other := _other_form(found, groups, features)):
            return _no_classifier(other)
        return _no_classifier(f"its head has several layers: {listed(several)}")
    other = _other_form(found, groups, features)
    if other is not None:
        return _no_classifier(other)
    own = f"{found.place.start}fc"
    if own in linears:
        raise CheckpointError(
            f"{own}.weight has the shape {linears[own].shape}; expected {features} inputs, the net's features"
        )
    return Head()


def _no_classifier(problem: str) -> Head:
    return Head(problem=problem, notes=(f"{problem}; only what stands before it is read",))


def _other_form(found: Found, groups: Mapping[str, Sequence[str]], features: int) -> str | None:
    """Why a layer on the features is no nn.Linear: its tensors have other names or dimensions than its weight.

    Raises: CheckpointError if one of them is not stored as numbers.
    """
    for name, tensor in found.others.items():
        if tensor.odd and features in tensor.shape:
            check_numbers(name, tensor)
    for group in groups:
        inside = {name: t for name, t in found.others.items() if name.startswith(f"{group}.")}
        if group.rpartition(".")[2] in HEADS and any(t.shape[1:2] == (features,) for t in inside.values()):
            sizes = {name: "x".join(map(str, t.shape)) or "scalar" for name, t in inside.items()}
            parts = (f"{name.removeprefix(group)[1:]} {size}" for name, size in sizes.items())
            return f"its head {group} is not a plain nn.Linear; it holds {listed(parts)}"
    return None


def _head(found: Found, layer: str) -> Head:
    used = {f"fc.{part}": f"{layer}.{part}" for part in ("weight", "bias") if f"{layer}.{part}" in found.others}
    classifier = {ours: found.others[name] for ours, name in used.items()}
    notes = () if layer == f"{found.place.start}fc" else (f"{layer} is its classifier",)
    return Head(classifier, frozenset(used.values()), notes)


def left_out(found: Found, head: Head) -> list[str]:
    """What is told of the tensors that are neither net nor classifier.

    Raises: CheckpointError if the net itself has weights that ours has no place for.
    """
    rest = {name: t for name, t in found.others.items() if name not in head.used and not name.endswith("_tracked")}
    own = [
        name
        for name, tensor in rest.items()
        if name.startswith(found.place.start) and len(tensor.shape) > 2 and tensor.elements > SMALL
    ]
    if own:
        raise CheckpointError(unknown_parameter(own[0].removeprefix(found.place.start)))
    rest = {name: tensor for name, tensor in rest.items() if name.startswith(found.place.table)}
    if head.problem or not rest:
        return []
    dense = any(len(tensor.shape) == 4 and tensor.elements > SMALL for tensor in rest.values())
    warning = "; the last stages of nets for segmentation are often dilated, which weights do not show" * dense
    return [f"left out: {listed(rest)}{warning}"]


def _groups(found: Found) -> dict[str, list[str]]:
    """The layers of each module beside the body, in the order of the file: `fc` -> [`fc.0`, `fc.3`]."""
    groups: dict[str, list[str]] = {}
    for name in found.others:
        layer, start = name.rpartition(".")[0], found.place.start
        while not name.startswith(start):
            start = start[: start.rstrip(".").rfind(".") + 1]
        group = start + name.removeprefix(start).partition(".")[0]
        if layer and layer not in groups.setdefault(group, []):
            groups[group].append(layer)
    return groups


def _is_one_linear(found: Found, layers: Sequence[str], features: int) -> bool:
    if len(layers) != 1:
        return False
    parts = {name.rpartition(".")[2]: t for name, t in found.others.items() if name.rpartition(".")[0] == layers[0]}
    weight = parts.get("weight")
    return set(parts) <= {"weight", "bias"} and weight is not None and weight.shape[1:] == (features,)


def _normalises(found: Found, layer: str, features: int) -> bool:
    """A batch norm over the features, between net and classifier."""
    mean = found.others.get(f"{layer}.running_mean")
    return mean is not None and mean.shape == (features,)


def _takes(linears: Mapping[str, StoredTensor], layer: str, features: int) -> bool:
    return layer in linears and linears[layer].shape[1] == features


def _head_rank(group: str) -> int:
    name = group.rpartition(".")[2]
    return HEADS.index(name) if name in HEADS else len(HEADS)
