"""Residual nets as Lua objects, put together as models/resnet.lua and models/preresnet.lua put them together.

Independent of `torch7.template`: this follows the Lua code, function for function.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from resnet_tools.nets.architecture import Architecture
from resnet_tools.torch7.lua import LuaObject, LuaTable


class LuaNet:
    """Builds one net; `random` draws its weights and `widths` of batch norms may be forged by subclasses."""

    def __init__(self, architecture: Architecture, seed: int = 0, package: str = "cudnn") -> None:
        self.a = architecture
        self.random = np.random.default_rng(seed)
        self.package = package
        self.channels = architecture.stem_width

    def build(self) -> LuaObject:
        a = self.a
        net = []
        if a.stem == "imagenet":
            net.append(self.conv(a.in_channels, a.stem_width, 7, 2, 3))
        else:
            net.append(self.conv(a.in_channels, a.stem_width, 3, 1, 1))
        if a.stem_batch_norm:
            net += [self.bn(a.stem_width), self.relu()]
        if a.stem == "imagenet":
            net.append(module("nn.SpatialMaxPooling", kW=3, kH=3, dW=2, dH=2, padW=1, padH=1))
        for stage in range(len(a.stages)):
            net.append(self.layer(stage))
        if a.order.startswith("pre"):
            net += [self.bn(self.channels), self.relu()]
        window = 7 if a.stem == "imagenet" else 8
        divide = {} if a.pooling == "sum" else {"divide": True}
        net += [
            module("nn.SpatialAveragePooling", kW=window, kH=window, dW=1, dH=1, **divide),
            module("nn.View", numElements=self.channels),
            module("nn.Linear", weight=self.tensor(a.num_classes, self.channels), bias=self.tensor(a.num_classes)),
        ]
        return sequential(net)

    def layer(self, stage: int) -> LuaObject:
        return sequential(
            [
                self.block(stage, 2 if stage > 0 and index == 0 else 1, index == 0, stage == 0)
                for index in range(self.a.stages[stage])
            ]
        )

    def block(self, stage: int, stride: int, first: bool, first_stage: bool) -> LuaObject:
        a, before = self.a, self.channels
        inner, self.channels = a.inner_widths[stage], a.widths[stage]
        if a.block == "basic":
            convs = [(before, inner, 3, stride, 1, a.groups), (inner, self.channels, 3, 1, 1, a.groups)]
        else:
            convs = [
                (before, inner, 1, 1, 0, 1),
                (inner, inner, 3, stride, 1, a.groups),
                (inner, self.channels, 1, 1, 0, 1),
            ]
        block, branch = [], []
        if a.order.startswith("pre"):
            lead = [self.bn(before), self.relu()]
            if a.order == "pre-activation-raw-shortcut" or not first:
                branch += lead  # the default of preresnet.lua
            elif not (first_stage and a.stem_batch_norm):
                block += lead  # both_preact
            for number, conv in enumerate(convs):
                branch += [] if number == 0 else [self.bn(conv[0]), self.relu()]
                branch.append(self.conv(*conv))
            tail = []
        else:
            for number, conv in enumerate(convs):
                last = number == len(convs) - 1
                branch.append(self.conv(*conv))
                branch += [] if last and a.order == "bn-after-addition" else [self.bn(conv[1])]
                branch += [] if last else [self.relu()]
            tail = [self.bn(self.channels)] if a.order == "bn-after-addition" else []
            tail.append(self.relu())
        both = container("nn.ConcatTable", [sequential(branch), self.shortcut(before, self.channels, stride)])
        return sequential([*block, both, module("nn.CAddTable", inplace=True), *tail])

    def shortcut(self, before: int, after: int, stride: int) -> LuaObject:
        if self.a.shortcut_type == "C" or (self.a.shortcut_type == "B" and before != after):
            conv = self.conv(before, after, 1, stride, 0)
            return sequential([conv, self.bn(after)] if self.a.shortcut_batch_norm else [conv])
        if before != after:
            concat = container("nn.Concat", [module("nn.Identity"), module("nn.MulConstant", constant_scalar=0)])
            pool = module("nn.SpatialAveragePooling", kW=1, kH=1, dW=stride, dH=stride, divide=True)
            return sequential([pool, concat])
        return module("nn.Identity")

    def conv(self, inputs: int, outputs: int, kernel: int, stride: int, padding: int, groups: int = 1) -> LuaObject:
        fields = {"nInputPlane": inputs, "nOutputPlane": outputs, "kW": kernel, "kH": kernel}
        fields |= {"dW": stride, "dH": stride, "padW": padding, "padH": padding, "groups": groups}
        fields["weight"] = self.tensor(outputs, inputs // groups, kernel, kernel)
        if self.a.conv_bias:
            fields["bias"] = self.tensor(outputs)
        return module(f"{self.package}.SpatialConvolution", **fields)

    def bn(self, width: int) -> LuaObject:
        tensors = {name: self.tensor(width) for name in ("weight", "bias", "running_mean")}
        variance = np.abs(self.tensor(width)) + 0.5
        eps, momentum = self.a.bn_eps, self.a.bn_momentum
        return module("nn.SpatialBatchNormalization", eps=eps, momentum=momentum, running_var=variance, **tensors)

    def relu(self) -> LuaObject:
        return module(f"{self.package}.ReLU", inplace=True)

    def tensor(self, *shape: int) -> np.ndarray:
        return self.random.standard_normal(shape, dtype=np.float32) * 0.1


def module(class_name: str, **fields: object) -> LuaObject:
    return LuaObject(class_name, 1, LuaTable((name.encode(), value) for name, value in fields.items()))


def container(class_name: str, children: Sequence[LuaObject]) -> LuaObject:
    return module(class_name, modules=LuaTable(enumerate(children, 1)))


def sequential(children: Sequence[LuaObject]) -> LuaObject:
    return container("nn.Sequential", children)


def child_of(net: LuaObject, *path: int) -> LuaObject:
    """The module at a path such as 5, 1, 1, as `net:get(5):get(1):get(1)`."""
    for number in path:
        net = net["modules"][number]
    return net


def lua_net(architecture: Architecture, seed: int = 0) -> LuaObject:
    """A net of this architecture with random weights, as the Lua program would hold it."""
    return LuaNet(architecture, seed).build()
