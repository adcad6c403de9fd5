"""Every field of the modules that are recognised, and what it does to the module's output at evaluation.

The table lists every field that a class uses: it is read (by `outline`, `template` or `weights`), has no effect, or
may have one value only, and the module is refused if it has another. A field that is not listed, such as a name or a
learning rate that a program added to a module, has no effect either. But a function in place of one of the methods
that `forward` calls is refused, as no code in a file is run here.

Source: updateOutput, evaluate and read of torch/nn at 8726825 and of soumith/cudnn.torch at 008c49d.
"""

from __future__ import annotations

from dataclasses import dataclass

from resnet_tools.errors import RecognitionError
from resnet_tools.torch7.lua import LuaFunction
from resnet_tools.torch7.modules import Module


@dataclass(frozen=True)
class Only:
    """The values that a field may have; None stands for a missing field. `why` says what another value would do."""

    values: tuple[object, ...]
    why: str


READ, NO_EFFECT = "read", "no effect"
Effect = str | Only

_METHODS = ("updateOutput", "forward", "evaluate", "__call__")
_MODULE: dict[str, Effect] = {  # of nn.Module, so of all classes below
    "output": NO_EFFECT,  # a buffer
    "gradInput": NO_EFFECT,
    "_type": NO_EFFECT,
    "train": NO_EFFECT,  # evaluate() makes it false
    "shared": NO_EFFECT,
}
_PARAMETERS: dict[str, Effect] = {"weight": READ, "bias": READ, "gradWeight": NO_EFFECT, "gradBias": NO_EFFECT}
_CONTAINER: dict[str, Effect] = {"modules": READ}
_STEPS: dict[str, Effect] = dict.fromkeys(("kW", "kH", "dW", "dH", "padW", "padH"), READ)
_CONVOLUTION: dict[str, Effect] = {
    **_PARAMETERS,
    **_STEPS,
    "nInputPlane": READ,
    "nOutputPlane": READ,
    "dilationW": Only((None, 1), "a dilated convolution is another class"),
    "dilationH": Only((None, 1), "a dilated convolution is another class"),
    **dict.fromkeys(("finput", "fgradInput", "_input", "_gradOutput"), NO_EFFECT),  # buffers
}
_NN_CONVOLUTION: dict[str, Effect] = {
    **_CONVOLUTION,
    "padding": READ,  # of 2014: takes the place of padW and padH
    "groups": Only((None, 1), "it has no groups"),  # left over from cudnn
}
_CUDNN_CONVOLUTION: dict[str, Effect] = {
    **_CONVOLUTION,
    "groups": READ,
    "padding": NO_EFFECT,
    **dict.fromkeys(("fmode", "bdmode", "bwmode", "fastest_mode"), NO_EFFECT),  # which algorithm computes the same
    **dict.fromkeys(("pad", "stride", "convDescData", "iSize", "autotunerHash", "iteration"), NO_EFFECT),  # made anew
    **dict.fromkeys(("input_offset", "output_offset", "weight_offset", "input_slice", "output_slice"), NO_EFFECT),
}
_BATCH_NORM: dict[str, Effect] = {
    **_PARAMETERS,
    "running_mean": READ,
    "running_var": READ,
    "running_std": READ,  # in class version 1
    "eps": READ,
    "momentum": READ,  # for training
    "affine": NO_EFFECT,  # without it there is no weight and no bias
    "nDim": NO_EFFECT,
    **dict.fromkeys(("save_mean", "save_std", "buffer", "buffer2", "centered", "std", "normalized"), NO_EFFECT),
    **dict.fromkeys(("_input", "_gradOutput", "iSize", "mode", "__shareGradInputKey"), NO_EFFECT),
}
_POOLING: dict[str, Effect] = {**_STEPS, "ceil_mode": READ, "iSize": NO_EFFECT, "mode": NO_EFFECT}
_MAX_POOLING: dict[str, Effect] = {**_POOLING, **dict.fromkeys(("indices", "iheight", "iwidth"), NO_EFFECT)}
_AVERAGE_POOLING: dict[str, Effect] = {**_POOLING, "count_include_pad": NO_EFFECT}  # as nothing is padded
_RELU: dict[str, Effect] = {
    "threshold": Only((None, 0), "it is not max(0, x)"),
    "val": Only((None, 0), "it is not max(0, x)"),
    "inplace": NO_EFFECT,
}
_SOFTMAX: dict[str, Effect] = dict.fromkeys(("algorithm", "mode", "iSize"), NO_EFFECT)  # we return what goes into it

_OWN: dict[str, dict[str, Effect]] = {
    "nn.Sequential": _CONTAINER,
    "nn.ConcatTable": _CONTAINER,
    "nn.Concat": {**_CONTAINER, "dimension": READ, "outputSize": NO_EFFECT},
    "nn.CAddTable": {"inplace": NO_EFFECT},
    "nn.Identity": {},
    "nn.Contiguous": {},
    "nn.Copy": {
        "output": READ,  # its type is the one copied to
        "dontCast": NO_EFFECT,
        "updateOutput": NO_EFFECT,  # its own, where the types are the same: it passes its input on
        "updateGradInput": NO_EFFECT,
    },
    "nn.Dropout": {
        "p": READ,
        "v2": READ,  # without it the module scales by 1 - p: `outline`
        "stochastic_inference": Only((None, False), "it draws at random at evaluation too"),
        "inplace": NO_EFFECT,
        "noise": NO_EFFECT,
    },
    "nn.MulConstant": {
        "constant_scalar": READ,
        "inplace": Only((None, False), "it overwrites what its neighbour in the nn.Concat passes on"),
    },
    "nn.SpatialConvolution": _NN_CONVOLUTION,
    "nn.SpatialConvolutionMM": _NN_CONVOLUTION,
    "cudnn.SpatialConvolution": _CUDNN_CONVOLUTION,
    "nn.SpatialBatchNormalization": _BATCH_NORM,
    "nn.BatchNormalization": _BATCH_NORM,
    "cudnn.SpatialBatchNormalization": _BATCH_NORM,
    "cudnn.BatchNormalization": _BATCH_NORM,
    "nn.ReLU": _RELU,
    "cudnn.ReLU": {
        **_RELU,
        "mode": Only((None, b"CUDNN_ACTIVATION_RELU"), "it is another activation function"),
        "ceiling": NO_EFFECT,  # read in another mode
        "nElem": NO_EFFECT,
    },
    "nn.SpatialMaxPooling": _MAX_POOLING,
    "cudnn.SpatialMaxPooling": _MAX_POOLING,
    "nn.SpatialAveragePooling": {**_AVERAGE_POOLING, "divide": READ},
    "cudnn.SpatialAveragePooling": {**_AVERAGE_POOLING, "divide": Only((None, True), "cudnn cannot sum")},
    "nn.View": {"size": READ, "numElements": READ, "numInputDims": NO_EFFECT},  # one row per image in any case
    "nn.Reshape": {
        "size": READ,
        "nelement": READ,
        "batchMode": Only((None, True), "it takes a batch for one image"),
        **dict.fromkeys(("batchsize", "_input", "_gradOutput"), NO_EFFECT),
    },
    "nn.Linear": {**_PARAMETERS, "addBuffer": NO_EFFECT},
    "nn.SoftMax": _SOFTMAX,
    "cudnn.SoftMax": _SOFTMAX,
    "nn.LogSoftMax": _SOFTMAX,
    "cudnn.LogSoftMax": _SOFTMAX,
}

FIELDS = {class_name: {**_MODULE, **own} for class_name, own in _OWN.items()}
_RESTRICTED = {
    class_name: [(name, effect) for name, effect in effects.items() if isinstance(effect, Only)]
    for class_name, effects in FIELDS.items()
}


def check_fields(module: Module) -> None:
    """Refuse a module of a class in the table if a field makes it compute something else; other classes pass.

    Raises: RecognitionError naming the module, the field and the values that it may have.
    """
    known = FIELDS.get(module.class_name)
    if known is None:
        return
    for name, effect in _RESTRICTED[module.class_name]:
        if not _is_one_of(module.item.get(name), effect.values):
            found, allowed = module.fields.get(name, "of another type"), effect.values[-1]
            expected = allowed.decode() if isinstance(allowed, bytes) else allowed
            raise RecognitionError(
                f"{module.where} ({module.class_name}): {name} is {_lua(found)}, so {effect.why}; "
                f"expected {_lua(expected)} or no such field"
            )
    for name in _METHODS:
        if isinstance(module.item.get(name), LuaFunction) and known.get(name) != NO_EFFECT:
            raise RecognitionError(
                f"{module.where} ({module.class_name}): {name} is a function of its own, which is not run; "
                "expected the method of the class"
            )


def _is_one_of(value: object, allowed: tuple[object, ...]) -> bool:
    """Numbers and booleans differ in Lua, as they do not in Python."""
    value = value.encode() if isinstance(value, str) else value  # of a net that was not read from a file
    if value is not None and not isinstance(value, (bool, int, float, bytes)):
        return False
    return any(isinstance(value, bool) == isinstance(one, bool) and value == one for one in allowed)


def _lua(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value!s:.60}"
