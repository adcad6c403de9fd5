"""Module tree -> its outline: stem, residual blocks, head.

Nested nn.Sequential are opened, so it does not matter how deep a file nests them, and modules without an effect on
the output are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from resnet_tools.errors import RecognitionError
from resnet_tools.nets.architecture import ConvShape
from resnet_tools.torch7.modules import Module

CONV, BN, RELU, ADD = "SpatialConvolution", "SpatialBatchNormalization", "ReLU", "CAddTable"
MAX_POOL, AVERAGE_POOL, LINEAR = "SpatialMaxPooling", "SpatialAveragePooling", "Linear"
FLATTEN = ("View", "Reshape")
WITHOUT_EFFECT = ("Copy", "Identity", "Contiguous", "Dropout")  # at evaluation
OUTPUT_FUNCTIONS = ("SoftMax", "LogSoftMax")  # behind the classifier; we return its raw outputs


@dataclass
class Block:
    """A residual block in the tree: [shared] ConcatTable{branch, shortcut} CAddTable [tail]."""

    module: Module
    shared: list[Module]
    branch: list[Module]
    shortcut: list[Module]
    tail: list[Module]

    @property
    def convolutions(self) -> list[Module]:
        return [m for m in self.branch if m.kind == CONV]


@dataclass
class Net:
    root: Module
    stem: list[Module] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    head: list[Module] = field(default_factory=list)


def outline(tree: Module) -> Net:
    """Stem, blocks and head of a net, in order of execution.

    Raises: RecognitionError if there are no residual blocks, or something other than a classifier behind them.
    """
    net = Net(tree)
    for item in _in_order(tree):
        if isinstance(item, Block):
            if net.head:
                raise misfit(item.module, "nothing more after the last stage")
            net.blocks.append(item)
        else:
            (net.head if net.blocks else net.stem).append(item)
    if not net.blocks:
        first = next((m for m in net.stem if m.kind != CONV), tree)
        raise misfit(
            first, "a residual net with blocks of nn.ConcatTable and nn.CAddTable, but there is no block in it"
        )
    if net.head and net.head[-1].kind in OUTPUT_FUNCTIONS:
        net.head.pop()
    return net


def _in_order(module: Module) -> Iterator[Module | Block]:
    """The modules in order of execution, nested nn.Sequential opened, blocks kept whole."""
    if any(child.kind == "ConcatTable" for child in module.children) and module.kind == "Sequential":
        yield _block(module)
    elif module.kind == "Sequential":
        for child in module.children:
            yield from _in_order(child)
    elif module.kind not in WITHOUT_EFFECT:
        yield module


def _block(module: Module) -> Block:
    steps = [c for c in module.children if c.kind not in WITHOUT_EFFECT]
    at = next(i for i, step in enumerate(steps) if step.kind == "ConcatTable")
    table = steps[at]
    if len(table.children) != 2:
        raise misfit(table, f"two children (the branch and the shortcut); it has {len(table.children)}")
    if at + 1 >= len(steps) or steps[at + 1].kind != ADD:
        raise misfit(steps[at + 1] if at + 1 < len(steps) else table, "an nn.CAddTable behind the nn.ConcatTable")
    branch, shortcut = (_flat(child) for child in table.children)
    if sum(m.kind == CONV for m in branch) < sum(m.kind == CONV for m in shortcut):
        branch, shortcut = shortcut, branch
    return Block(module, steps[:at], branch, shortcut, steps[at + 2 :])


def _flat(module: Module) -> list[Module]:
    if module.kind == "Sequential":
        return [step for child in module.children for step in _flat(child)]
    return [] if module.kind in WITHOUT_EFFECT else [module]


def misfit(module: Module, expected: str) -> RecognitionError:
    """The error that says which module is not what it should be."""
    return RecognitionError(f"{module.where} is {module.class_name}; expected {expected}")


def conv_shape(conv: Module) -> ConvShape:
    """What a convolution does, by its weight; a weight (out, in * kH * kW) as of nn.SpatialConvolutionMM serves too.

    Raises: RecognitionError if it is not square, or its fields contradict its weight.
    """
    weight = conv.tensors.get("weight")
    if weight is None or weight.ndim not in (2, 4):
        raise misfit(conv, "a convolution with a weight of four dimensions")
    groups = max(1, conv.number("groups", 1))
    kernel = conv.number("kW", weight.shape[3] if weight.ndim == 4 else 1)
    outputs = weight.shape[0]
    inputs = weight[0].size // max(1, kernel * kernel) * groups
    stride = conv.number("dW", 1)
    if not is_square(conv) or weight.size * groups != outputs * inputs * kernel * kernel:
        size = "x".join(map(str, weight.shape))
        raise misfit(conv, f"a square convolution whose fields agree with its weight of size {size}")
    return ConvShape(inputs, outputs, kernel, stride, groups)


def padding(module: Module) -> int:
    """`padW`; files of 2014 call it `padding`."""
    return module.number("padW", module.number("padding", 0))


def is_square(module: Module) -> bool:
    """Whether kernel, stride and padding are the same in both directions; a missing H is the W."""
    pairs = (("kH", "kW"), ("dH", "dW"), ("padH", "padW"))
    return all(module.number(h, module.number(w, 0)) == module.number(w, module.number(h, 0)) for h, w in pairs)
