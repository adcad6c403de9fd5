"""Architecture and weights -> the Lua modules that the training program saves: the inverse of reading them.

The tree is that of models/resnet.lua and models/preresnet.lua: an nn.Sequential for each stage and block, branch and
shortcut in an nn.ConcatTable, then nn.CAddTable. Each module has the fields that checkpoints.lua leaves after deepCopy,
float() and clearState(): buffers are empty, all weights view one storage and all gradients, which are zero, a second,
as after getParameters(). What cudnn noted about the last batch it saw is that of a batch of the training program's.

Where the published files differ, this follows them: the shortcuts of resnet-18 and 34 without batch norm are bare
convolutions with a bias, which is zero and can be trained, and resnet-200 has an nn.Copy before its last batch norm.
Sources: models/, checkpoints.lua and train.lua of facebook/fb.resnet.torch; the constructors in torch/nn;
SpatialConvolution.lua, Pooling.lua, Pointwise.lua, find.lua and convert.lua of soumith/cudnn.torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from typing import Any, ClassVar, Literal, cast

import numpy as np

from resnet_tools.errors import ModuleError
from resnet_tools.nets.architecture import POOL_WINDOW_PX, Architecture, BlockShape, ConvShape, Stem, block_shapes
from resnet_tools.torch7.lua import LuaObject, LuaTable, T7Storage, T7Tensor
from resnet_tools.torch7.outline import AVERAGE_POOL, BN, CONV, LINEAR, MAX_POOL, RELU
from resnet_tools.torch7.template import Expected, expected_block, expected_head, expected_stem

Array = np.ndarray[Any, Any]
Package = Literal["cudnn", "nn"]

TYPE = "torch.FloatTensor"
SIDE_PX: dict[Stem, int] = {"imagenet": 224, "cifar": 32}  # of the images that the training program feeds
BATCH = 32  # its default -batchSize
VERSIONS = {"nn.SpatialBatchNormalization": 2}  # of all others 1; in version 1 it holds running_std
CONV_DESCRIPTOR = {"upscaleA": [1, 1], "mode": "CUDNN_CROSS_CORRELATION", "dataType": "CUDNN_DATA_FLOAT"}
AVERAGE_MODE = "CUDNN_POOLING_AVERAGE_COUNT_INCLUDE_PADDING"


def lua_modules(
    architecture: Architecture,
    state: Mapping[str, Array],
    *,
    package: Package = "cudnn",
    batch: int = BATCH,
    crop_px: int | None = None,
) -> LuaObject:
    """The Lua object that the training program would have saved for this net, for `save_t7`.

    state: the float32 arrays of `ResNet(architecture).state_dict()`. package: `nn` for what cudnn.convert makes of it.
    crop_px: the side of the images that the net is for, which the window of its last pooling has to fit in Lua; without
    it that of the training program. `recognise.crop_px` reads it back.
    Raises: ModuleError if nn has no such modules.
    """
    if package == "nn" and architecture.groups > 1:
        raise ModuleError(
            f"nn.SpatialConvolution has no groups, and this net has {architecture.groups}; write cudnn.* (without --nn)"
        )
    return _Exporter(architecture, state, package, batch, crop_px or SIDE_PX[architecture.stem]).net()


class _Exporter:
    """Follows the net from its input: `channels` and `side_px` describe the input of the next module."""

    def __init__(
        self, architecture: Architecture, state: Mapping[str, Array], package: Package, batch: int, side_px: int
    ) -> None:
        self.architecture, self.state, self.package, self.batch = architecture, state, package, batch
        self.channels, self.side_px = architecture.in_channels, side_px
        self.parameters: list[tuple[LuaObject, str, Array]] = []  # in the order of getParameters()

    def net(self) -> LuaObject:
        net = self.modules(expected_stem(self.architecture))
        del net[0].fields["gradInput"]  # models/resnet.lua: model:get(1).gradInput = nil
        for _, blocks in groupby(block_shapes(self.architecture), key=lambda shape: shape.stage):
            net.append(_container("nn.Sequential", [self.block(shape) for shape in blocks]))
        if self.architecture.order == "pre-activation-raw-shortcut":
            net.append(_module("nn.Copy"))
        root = _container("nn.Sequential", net + self.modules(expected_head(self.architecture)))
        self.flatten()
        return root

    def block(self, shape: BlockShape) -> LuaObject:
        shared, branch, shortcut, tail = expected_block(shape)
        before = self.modules(shared)
        channels, side_px = self.channels, self.side_px
        both = [_container("nn.Sequential", self.modules(branch))]
        self.channels, self.side_px = channels, side_px
        both.append(self.shortcut(shortcut, shape))
        table = _container("nn.ConcatTable", both, output={})
        add = _module("nn.CAddTable", inplace=True, gradInput={})
        return _container("nn.Sequential", [*before, table, add, *self.modules(tail)])

    def shortcut(self, expected: list[Expected], shape: BlockShape) -> LuaObject:
        modules = self.modules(expected)
        if not modules:
            return _module("nn.Identity")
        if self.channels != shape.outputs and shape.shortcut == "zero-padded":
            raise ModuleError(
                f"the shortcut of stage {shape.stage} goes from {shape.inputs} to {shape.outputs} channels; "
                "shortcuts of type A double them in Lua, so this net has no form there"
            )
        bare = len(modules) == 1 and shape.order == "post-activation" and shape.shortcut == "conv"
        if bare and not self.architecture.conv_bias:  # as in the published files: no batch norm makes it superfluous
            self.parameters.append((modules[0], "bias", np.zeros(shape.outputs, np.float32)))
        return modules[0] if bare else _container("nn.Sequential", modules)

    def modules(self, expected: Iterable[Expected]) -> list[LuaObject]:
        return [self.builders[wanted.kind](self, wanted) for wanted in expected]

    def convolution(self, wanted: Expected) -> LuaObject:
        conv = cast(ConvShape, wanted.conv)
        padding, groups, size = (conv.kernel - 1) // 2, conv.groups, self.size
        self.channels, self.side_px = conv.outputs, (self.side_px + 2 * padding - conv.kernel) // conv.stride + 1
        pads, strides = [padding, padding], [conv.stride, conv.stride]
        images, output = _slice(size, groups), _slice(self.size, groups)
        filters = self.state[f"{wanted.key}.weight"].shape
        item = _module(
            f"{self.package}.SpatialConvolution",
            nInputPlane=conv.inputs,
            nOutputPlane=conv.outputs,
            **_window(conv.kernel, conv.stride, padding),
            groups=groups,
            pad=pads,
            stride=strides,
            iSize=_longs(size),
            input_offset=math.prod(images[1:]),
            output_offset=math.prod(output[1:]),
            weight_offset=conv.inputs // groups * conv.outputs // groups * conv.kernel**2,
            input_slice=_empty(),
            output_slice=_empty(),
            autotunerHash="-dimA{} -filtA{} {} -padA{} -convStrideA{} CUDNN_DATA_FLOAT".format(
                *(",".join(map(str, numbers)) for numbers in (images, filters, output, pads, strides))
            ),
            iteration=0,
            convDescData={**CONV_DESCRIPTOR, "arrayLength": 2, "padA": list(pads), "filterStrideA": list(strides)},
        )
        self.add_parameters(item, wanted.key)
        return item

    def batch_norm(self, wanted: Expected) -> LuaObject:
        statistics = {name: _tensor(self.state[f"{wanted.key}.{name}"]) for name in ("running_mean", "running_var")}
        item = _module(
            "nn.SpatialBatchNormalization",
            eps=self.architecture.bn_eps,
            momentum=self.architecture.bn_momentum,
            affine=True,
            save_mean=_empty(),
            save_std=_empty(),
            **statistics,
        )
        if shared_key := self.share_gradient_key(wanted.key):
            item.fields["__shareGradInputKey"] = shared_key
        self.add_parameters(item, wanted.key)
        return item

    def share_gradient_key(self, key: str) -> str | None:
        """Batch norms whose gradInput -shareGradInput must not share with all others (preresnet.lua)."""
        if self.architecture.order != "pre-activation":
            return None
        return "last" if key == "norm" else "preact" if key.endswith(".0.bn1") else None

    def relu(self, wanted: Expected) -> LuaObject:
        own = {"threshold": 0, "val": 0} if self.package == "nn" else {}
        mode = "CUDNN_ACTIVATION_RELU"
        return _module(f"{self.package}.ReLU", inplace=True, mode=mode, nElem=math.prod(self.size), **own)

    def max_pool(self, wanted: Expected) -> LuaObject:
        side_px, self.side_px = self.side_px, (self.side_px - 1) // 2 + 1
        input_px = {"iheight": side_px, "iwidth": side_px}
        return _module("nn.SpatialMaxPooling", **_window(3, 2, 1), ceil_mode=False, indices=_empty(), **input_px)

    def average_pool(self, wanted: Expected) -> LuaObject:
        if wanted.zero_pad_stride:
            self.side_px = (self.side_px - 1) // wanted.zero_pad_stride + 1
            window = _window(1, wanted.zero_pad_stride, 0)
            return _module("nn.SpatialAveragePooling", **window, ceil_mode=False, count_include_pad=True, divide=True)
        if self.architecture.pooling == "sum":
            return self.sum_pool()
        own = {"divide": True, "count_include_pad": False} if self.package == "nn" else {"count_include_pad": True}
        window = _window(self.side_px, 1, 0)
        size = _longs(self.size)
        return _module(
            f"{self.package}.SpatialAveragePooling", **window, ceil_mode=False, mode=AVERAGE_MODE, iSize=size, **own
        )

    def sum_pool(self) -> LuaObject:
        """The class of 2015, which has none of the later fields and sums."""
        window_px = POOL_WINDOW_PX[self.architecture.stem]
        if self.side_px != window_px:
            last = f"{self.side_px} x {self.side_px}"
            raise ModuleError(f"it sums over {window_px} x {window_px} positions, and its last stage has {last}")
        return _module("nn.SpatialAveragePooling", kW=window_px, kH=window_px, dW=1, dH=1)

    def concat(self, wanted: Expected) -> LuaObject:
        """Appends as many zero channels as there are: type A doubles them."""
        self.channels *= 2
        zeros = _module("nn.MulConstant", constant_scalar=0, inplace=False)
        return _container("nn.Concat", [_module("nn.Identity"), zeros], dimension=2, outputSize=_longs(self.size))

    def view(self, wanted: Expected) -> LuaObject:
        return _module("nn.View", size=_longs([self.channels]), numElements=self.channels, numInputDims=3)

    def linear(self, wanted: Expected) -> LuaObject:
        item = _module("nn.Linear", addBuffer=_empty())
        self.add_parameters(item, wanted.key)
        return item

    builders: ClassVar[dict[str, Callable[[_Exporter, Expected], LuaObject]]] = {
        CONV: convolution,
        BN: batch_norm,
        RELU: relu,
        MAX_POOL: max_pool,
        AVERAGE_POOL: average_pool,
        "Concat": concat,
        "View": view,
        LINEAR: linear,
    }

    @property
    def size(self) -> list[int]:
        return [self.batch, self.channels, self.side_px, self.side_px]

    def add_parameters(self, item: LuaObject, key: str) -> None:
        for name in ("weight", "bias"):
            if f"{key}.{name}" in self.state:
                self.parameters.append((item, name, self.state[f"{key}.{name}"]))

    def flatten(self) -> None:
        """Make every weight a view into one storage, and every gradient into a second."""
        count = sum(array.size for _, _, array in self.parameters)
        weights, gradients = _storage(np.empty(count, np.float32)), _storage(np.zeros(count, np.float32))
        offset = 0
        for item, name, array in self.parameters:
            item.fields[name] = view = _view(weights, offset, array.shape)
            view[...] = array
            item.fields[f"grad{name.title()}"] = _view(gradients, offset, array.shape)
            offset += array.size


def _module(class_name: str, **fields: object) -> LuaObject:
    """A module with the fields that all modules have, and others that replace them; lists and dicts become tables."""
    usual: dict[str, object] = {"_type": TYPE, "train": True, "output": _empty(), "gradInput": _empty()}
    return LuaObject(class_name, VERSIONS.get(class_name, 1), LuaTable((usual | fields).items()))


def _container(class_name: str, children: list[LuaObject], **fields: object) -> LuaObject:
    return _module(class_name, modules=LuaTable(enumerate(children, 1)), **fields)


def _window(kernel: int, stride: int, padding: int) -> dict[str, int]:
    return {"kW": kernel, "kH": kernel, "dW": stride, "dH": stride, "padW": padding, "padH": padding}


def _slice(size: list[int], groups: int) -> list[int]:
    """The part of a grouped convolution that cudnn computes at once."""
    return [size[0], size[1] // groups, *size[2:]]


def _empty() -> T7Tensor:
    """A new tensor without elements: a shared object would be shared in Lua too."""
    tensor: T7Tensor = np.ndarray.__new__(T7Tensor, (0,), np.float32)
    tensor.torch_type, tensor.storage_offset = TYPE, 0
    return tensor


def _tensor(array: Array) -> T7Tensor:
    """A copy of an array as a tensor with a storage of its own."""
    return _view(_storage(array.flatten()), 0, array.shape)


def _view(storage: T7Storage, offset: int, shape: tuple[int, ...]) -> T7Tensor:
    tensor: T7Tensor = np.ndarray.__new__(T7Tensor, shape, storage.dtype, storage, offset * storage.itemsize)
    tensor.torch_type, tensor.storage, tensor.storage_offset = TYPE, storage, offset
    return tensor


def _storage(array: Array, torch_type: str = "torch.FloatStorage") -> T7Storage:
    storage: T7Storage = array.view(T7Storage)
    storage.torch_type = torch_type
    return storage


def _longs(numbers: Iterable[int]) -> T7Storage:
    return _storage(np.array(list(numbers), np.int64), "torch.LongStorage")
