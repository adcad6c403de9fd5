"""The module tree as Torch7 prints it."""

from __future__ import annotations

import pytest

from resnet_tools.torch7.modules import module_tree
from resnet_tools.torch7.printing import module_text
from resnet_tools.torch7.t7 import read_t7
from tests.support.golden import DATA, ModelCase, model_cases, other_model_cases
from tests.support.lua_nets import module

PLANES = {"nInputPlane": 3, "nOutputPlane": 8}


def printed(cases: list[ModelCase]) -> list[ModelCase]:
    return [case for case in cases if "print_net" in case.description]


@pytest.mark.parametrize(
    "case", printed(model_cases(DATA / "models") + other_model_cases()), ids=lambda case: case.name
)
def test_the_tree_is_printed_as_the_original_prints_it(case):
    assert module_text(module_tree(read_t7(case.path))) == case.description["print_net"].rstrip("\n")


@pytest.mark.parametrize(
    ("leaf", "text"),
    [
        # The right sides are what the __tostring__ methods at 8726825 make of these fields.
        (module("nn.Dropout", p=0.3), "nn.Dropout(0.300000)"),
        (module("nn.SpatialDropout", p=0.5), "nn.SpatialDropout(0.500000)"),
        (module("nn.ELU", alpha=1, inplace=False), "nn.ELU (alpha:1.000000)"),
        (module("nn.LeakyReLU", negval=0.01), "nn.LeakyReLU(0.01)"),
        (module("nn.RReLU", lower=0.125, upper=0.333), "nn.RReLU (l:0.125000, u:0.333000)"),
        (
            module("nn.SpatialZeroPadding", pad_l=1, pad_r=2, pad_t=3, pad_b=-1),
            "nn.SpatialZeroPadding(l=1, r=2, t=3, b=-1)",
        ),
        (module("nn.SelectTable", index=-1), "nn.SelectTable(-1)"),
        (module("nn.Normalize", p=2), "nn.Normalize(2)"),
        (module("nn.Normalize", p=1.5), "nn.Normalize(1.500000)"),
        (module("nn.Unsqueeze", pos=2), "nn.Unsqueeze(dim 2)"),
        (module("nn.UpSampling", scale_factor=2, mode=b"nearest"), "nn.UpSampling(2x, nearest)"),
        (
            module("nn.SpatialDilatedConvolution", **PLANES, kW=3, kH=3, dW=1, dH=1, dilationW=2, dilationH=2),
            "nn.SpatialDilatedConvolution(3 -> 8, 3x3, 2,2) without bias",
        ),
        (
            module("nn.SpatialFullConvolution", **PLANES, kW=4, kH=4, dW=2, dH=2, padW=1, padH=1, adjW=0, adjH=1),
            "nn.SpatialFullConvolution(3 -> 8, 4x4, 2,2, 1,1, 0,1) without bias",
        ),
        (
            module("cudnn.VolumetricConvolution", **PLANES, kT=1, kW=2, kH=3, dT=1, dW=1, dH=1),
            "cudnn.VolumetricConvolution(3 -> 8, 1x2x3)",
        ),
        (
            module("nn.VolumetricMaxPooling", kT=2, kW=2, kH=2, dT=2, dW=2, dH=2),
            "nn.VolumetricMaxPooling(2x2x2, 2,2,2)",
        ),
        (module("nn.ReLU", threshold=0, val=0), "nn.ReLU"),
        (module("nn.Dropout"), "nn.Dropout"),  # where Lua fails
        (module("nn.Dropout", p=b"x"), "nn.Dropout"),
        (module("my.Layer", p=1), "my.Layer"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_leaves_are_printed_with_their_arguments(leaf, text):
    assert module_text(module_tree(leaf)) == text
