"""Module tree -> its outline: stem, residual blocks, head.

Nested nn.Sequential are flattened, however deep, and modules without an effect on the output are left out. Fields that
would make a module compute something else are refused (`fields`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from resnet_tools.errors import RecognitionError
from resnet_tools.nets.architecture import ConvShape
from resnet_tools.torch7.fields import check_fields
from resnet_tools.torch7.modules import Module

CONV, BN, RELU, ADD = "SpatialConvolution", "SpatialBatchNormalization", "ReLU", "CAddTable"
MAX_POOL, AVERAGE_POOL, LINEAR = "SpatialMaxPooling", "SpatialAveragePooling", "Linear"
FLATTEN = ("View", "Reshape")
WITHOUT_EFFECT = ("Copy", "Identity", "Contiguous")
LETS_FACTORS_THROUGH = (RELU, MAX_POOL, AVERAGE_POOL, *FLATTEN)  # f(a x) = a f(x) for a > 0
OUTPUT_FUNCTIONS = ("SoftMax", "LogSoftMax")  # after the classifier; we return its raw outputs


@dataclass
class Block:
    """A residual block in the tree: [shared] ConcatTable{branch, shortcut} CAddTable [tail].

    `module` is the nn.Sequential that it stands in.
    """

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


@dataclass(frozen=True)
class _Step:
    """A module in order of execution, and the nn.Sequential that it stands in."""

    module: Module
    parent: Module

    @property
    def kind(self) -> str:
        return self.module.kind


def outline(tree: Module) -> Net:
    """Stem, blocks and head of a net, in order of execution.

    Raises: RecognitionError if there are no residual blocks, or a module that would change what others compute.
    """
    # Nesting nn.Sequential changes nothing: a net computes the sequence of its steps. The additions divide the
    # sequence; what stands between an addition and the next nn.ConcatTable belongs to the block before or after it.
    for module in tree.walk():
        check_fields(module)
    net, gaps = Net(tree), [list[_Step]()]
    steps = list(_steps(tree, tree))
    at = 0
    while at < len(steps):
        if steps[at].kind == "ConcatTable":
            net.blocks.append(_block(steps[at], steps[at + 1] if at + 1 < len(steps) else None))
            gaps.append([])
            at += 1  # the addition, too
        else:
            gaps[-1].append(steps[at])
        at += 1
    if not net.blocks:
        first = next((step.module for step in steps if step.kind != CONV), tree)
        raise misfit(
            first, "a residual net with blocks of nn.ConcatTable and nn.CAddTable, but there is no block in it"
        )
    _share_out(net, gaps)
    if net.head and net.head[-1].kind in OUTPUT_FUNCTIONS:
        net.head.pop()
    for part in (net.stem, net.head, *(part for b in net.blocks for part in (b.shared, b.branch, b.shortcut, b.tail))):
        part[:] = _without_dropout(part)
    return net


def _steps(module: Module, parent: Module) -> Iterator[_Step]:
    """The modules in order of execution; nested nn.Sequential are flattened, tables kept whole."""
    if module.kind == "Sequential":
        for child in module.children:
            yield from _steps(child, module)
    elif module.kind == "Copy":
        _check_copy(module)
    elif module.kind not in WITHOUT_EFFECT:
        yield _Step(module, parent)


def _block(table: _Step, addition: _Step | None) -> Block:
    """The block of this nn.ConcatTable, without the modules before and after it."""
    if len(table.module.children) != 2:
        found = len(table.module.children)
        raise misfit(table.module, f"two children (the branch and the shortcut); it has {found}")
    if addition is None or addition.kind != ADD:
        raise misfit(addition.module if addition else table.module, "an nn.CAddTable after the nn.ConcatTable")
    branch, shortcut = ([step.module for step in _steps(child, child)] for child in table.module.children)
    if sum(m.kind == CONV for m in branch) < sum(m.kind == CONV for m in shortcut):
        branch, shortcut = shortcut, branch
    return Block(table.parent, [], branch, shortcut, [])


def _share_out(net: Net, gaps: list[list[_Step]]) -> None:
    """Give the steps before the first block to the stem, those between blocks to one of them, the rest to the head."""
    # A module in the nn.Sequential of one block belongs to that block. Loose modules, as in a net whose blocks lie in
    # one row, go by what they compute: a block ends with a ReLU, or with batch norm and ReLU if all do, or at once.
    first, *behind = gaps
    lead = _own_lead(first, net.blocks[0]) or _loose_lead(first)
    net.stem, net.blocks[0].shared = _modules(first[: len(first) - lead]), _modules(first[len(first) - lead :])
    followings: list[Block | None] = [*net.blocks[1:], None]
    leads = [0 if block is None else _own_lead(gap, block) for gap, block in zip(behind, followings, strict=True)]
    loose = [gap[: len(gap) - lead] for gap, lead in zip(behind, leads, strict=True)]
    norms = not lead and all([step.kind for step in steps[:2]] == [BN, RELU] for steps in loose)
    for block, gap, steps, following in zip(net.blocks, behind, loose, followings, strict=True):
        end = max(_own_tail(steps, block), _loose_tail(steps, block, norms, following is None))
        block.tail = _modules(gap[:end])
        if following is None:
            net.head = _modules(gap[end:])
        else:
            following.shared = _modules(gap[end:])


def _modules(steps: Sequence[_Step]) -> list[Module]:
    return [step.module for step in steps]


def _is_alone(block: Block) -> bool:
    """Whether its nn.Sequential holds this block and nothing else."""
    kinds = [child.kind for child in block.module.children]
    return kinds.count("ConcatTable") == 1 and not {CONV, MAX_POOL, AVERAGE_POOL, LINEAR}.intersection(kinds)


def _own_lead(steps: Sequence[_Step], block: Block) -> int:
    """How many of the modules before a block are in its own nn.Sequential."""
    return sum(step.parent is block.module for step in steps) if _is_alone(block) else 0


def _loose_lead(steps: Sequence[_Step]) -> int:
    """A batch norm and a ReLU before the first block belong to it if the stem ends before them."""
    kinds = [step.kind for step in steps]
    stem = 3 if kinds[1:3] == [BN, RELU] else 1
    stem += kinds[stem : stem + 1] == [MAX_POOL]
    return 2 if kinds[stem:] == [BN, RELU] else 0


def _own_tail(steps: Sequence[_Step], block: Block) -> int:
    return sum(step.parent is block.module for step in steps) if _is_alone(block) else 0


def _loose_tail(steps: Sequence[_Step], block: Block, norms: bool, is_last: bool) -> int:
    """How many modules after an addition belong to its block. `norms`: every block ends with batch norm and ReLU."""
    kinds = [step.kind for step in steps]
    if kinds[:1] == [RELU]:
        return 1
    if block.branch and block.branch[-1].kind == BN:  # post-activation: a ReLU should be here
        return int(kinds[:1] not in ([], [AVERAGE_POOL])) if is_last else len(steps)
    return 2 if norms else 0


def _without_dropout(steps: Sequence[Module]) -> list[Module]:
    """The steps without nn.Dropout; the factor of its version 1 is kept at the next module with weights.

    Raises: RecognitionError naming a Dropout whose factor cannot be moved to later weights.
    """
    kept: list[Module] = []
    scale, scaling = 1.0, None
    for step in steps:
        if step.kind == "Dropout":
            factor = _dropout_factor(step)
            scale, scaling = scale * factor, scaling if factor == 1 else step
            continue
        if scaling is not None and step.kind in (CONV, LINEAR):
            step, scale, scaling = replace(step, input_scale=scale), 1.0, None
        elif scaling is not None and step.kind not in LETS_FACTORS_THROUGH:
            break
        kept.append(step)
    if scaling is not None:
        raise RecognitionError(
            f"{scaling.where} ({scaling.class_name}) is of version 1 and scales by {scale:g} at evaluation; "
            "expected a convolution or nn.Linear after it, whose weights can take that factor"
        )
    return kept


def _dropout_factor(dropout: Module) -> float:
    """Its factor at evaluation: 1 - p without the field v2, which was added in 2015."""
    p = dropout.fields.get("p", 0.5)
    if isinstance(p, bool) or not isinstance(p, (int, float)) or not 0 <= p < 1:
        raise RecognitionError(f"{dropout.where} ({dropout.class_name}): p is {p!r:.40}; expected 0 to 1")
    return 1.0 if dropout.fields.get("v2", False) else 1.0 - p


def _check_copy(copy: Module) -> None:
    output = copy.item.get("output")
    if isinstance(output, np.ndarray) and output.dtype not in (np.float32, np.float64):
        raise misfit(copy, f"nn.Copy to float or double; it copies to {output.dtype}")


def misfit(module: Module, expected: str) -> RecognitionError:
    """The error that says which module is not what it should be."""
    return RecognitionError(f"{module.where} is {module.class_name}; expected {expected}")


def conv_shape(conv: Module) -> ConvShape:
    """The shape of a convolution, from its weight, which may be (out, in * kH * kW) as in nn.SpatialConvolutionMM.

    Raises: RecognitionError if it is not square, or its fields contradict its weight.
    """
    weight, bias = conv.tensors.get("weight"), conv.tensors.get("bias")
    if weight is None or weight.ndim not in (2, 4):
        raise misfit(conv, "a convolution with a weight of four dimensions")
    groups = max(1, conv.number("groups", 1))
    kernel = conv.number("kW", weight.shape[3] if weight.ndim == 4 else 1)
    outputs = weight.shape[0]
    inputs = weight[0].size // max(1, kernel * kernel) * groups
    stride = conv.number("dW", 1)
    size = "x".join(map(str, weight.shape))
    planes = conv.number("nInputPlane", inputs), conv.number("nOutputPlane", outputs)
    infers_planes = weight.ndim == 4 and not conv.class_name.startswith("cudnn.")
    fits = weight.size * groups == outputs * inputs * kernel * kernel
    if not is_square(conv) or not fits or not (infers_planes or planes == (inputs, outputs)):
        raise misfit(conv, f"a square convolution whose fields agree with its weight of size {size}")
    if bias is not None and bias.shape != (outputs,):
        found = "x".join(map(str, bias.shape))
        raise misfit(conv, f"a bias of its {outputs} outputs; it has one of size {found}")
    return ConvShape(inputs, outputs, kernel, stride, groups)


def paddings(module: Module) -> tuple[int, int]:
    """Horizontal and vertical, as in updateOutput: a missing one is 0, not a copy of the other."""
    if module.kind == CONV and module.class_name.startswith("nn.") and module.item.get("padding"):
        return module.number("padding", 0), module.number("padding", 0)  # files of 2014
    return module.number("padW", 0), module.number("padH", 0)


def padding(module: Module) -> int:
    return paddings(module)[0]


def is_square(module: Module) -> bool:
    """Whether kernel, stride and padding are the same in both directions."""
    across, down = paddings(module)
    pairs = (("kH", "kW"), ("dH", "dW"))
    return across == down and all(
        module.number(h, module.number(w, 0)) == module.number(w, module.number(h, 0)) for h, w in pairs
    )
