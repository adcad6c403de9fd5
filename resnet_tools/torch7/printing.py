"""Module tree -> the text that Torch7's `print(net)` shows.

Source: the `__tostring__` methods in torch/nn, torch/cunn and soumith/cudnn.torch.
"""

from __future__ import annotations

from collections.abc import Callable

from resnet_tools.text import printable
from resnet_tools.torch7.modules import Module


def module_text(module: Module) -> str:
    """The tree as Torch7 prints it, without a newline at the end; names of classes are printable."""
    text = "\n".join(_lines(module))
    return f"DataParallelTable: {module.replicas} x {text}" if module.replicas > 1 else text


def _lines(module: Module) -> list[str]:
    if module.kind == "Sequential":
        return _sequential(module)
    if module.kind in ("Concat", "ConcatTable", "ParallelTable", "DepthConcat", "Parallel"):
        return _parallel(module)
    leaf = _LEAVES.get(module.class_name) or _LEAVES.get(module.kind)
    own = [printable(module.class_name if leaf is None else leaf(module))]
    return own + [f"  ({n}): {line}" for n, child in enumerate(module.children, 1) for line in _lines(child)]


def _sequential(module: Module) -> list[str]:
    steps = "".join(f" -> ({n})" for n in range(1, len(module.children) + 1))
    lines = ["nn.Sequential {", f"  [input{steps} -> output]"]
    for number, child in enumerate(module.children, 1):
        first, *rest = _lines(child)
        lines += [f"  ({number}): {first}", *(f"  {line}" for line in rest)]
    return [*lines, "}"]


def _parallel(module: Module) -> list[str]:
    lines = [f"{printable(module.class_name)} {{", "  input"]
    for number, child in enumerate(module.children, 1):
        last = number == len(module.children)
        first, *rest = _lines(child)
        lines.append(f"  {'   `-> ' if last else '  |`-> '}({number}): {first}")
        lines += [f"  {'       ' if last else '  |    '}{line}" for line in rest]
    return [*lines, "     ... -> output", "}"]


def _convolution(
    axes: str = "WH", *, in_px: bool = False, adjusted: bool = False, dilated: bool = False, shows_bias: bool = True
) -> Callable[[Module], str]:
    """Of nn.SpatialConvolution and its relatives. `axes`: WH for images, TWH for volumes."""

    def text(module: Module) -> str:
        planes = f"{module.number('nInputPlane', 0)} -> {module.number('nOutputPlane', 0)}"
        parts = [planes, _joined(module, "i", axes, 0, "x")] if in_px else [planes]
        parts.append(_joined(module, "k", axes, 1, "x"))
        padded = _differs(module, "pad", axes, 0)
        if padded or _differs(module, "d", axes, 1):
            parts.append(_joined(module, "d", axes, 1))
        parts += [_joined(module, "pad", axes, 0)] if padded else []
        parts += [_joined(module, "adj", axes, 0)] if adjusted and _differs(module, "adj", axes, 0) else []
        parts += [_joined(module, "dilation", axes, 1)] if dilated else []
        bias = " without bias" if shows_bias and "bias" not in module.tensors else ""
        return f"{module.class_name}({', '.join(parts)}){bias}"

    return text


def _pooling(axes: str = "WH", *, dilated: bool = False) -> Callable[[Module], str]:
    def text(module: Module) -> str:
        parts = [_joined(module, "k", axes, 1, "x"), _joined(module, "d", axes, 1)]
        parts += [_joined(module, "pad", axes, 0)] if _differs(module, "pad", axes, 0) else []
        parts += [_joined(module, "dilation", axes, 1)] if dilated else []
        return f"{module.class_name}({', '.join(parts)})"

    return text


def _joined(module: Module, name: str, axes: str, default: int, separator: str = ",") -> str:
    return separator.join(str(module.number(name + axis, default)) for axis in axes)


def _differs(module: Module, name: str, axes: str, usual: int) -> bool:
    return any(module.number(name + axis, usual) != usual for axis in axes)


def _batch_norm(module: Module) -> str:
    width = module.tensors["running_mean"].size if "running_mean" in module.tensors else 0
    dims = 5 if "Volumetric" in module.class_name else 4 if "Spatial" in module.class_name else 2
    return f"{module.class_name} ({dims}D) ({width})"


def _linear(module: Module) -> str:
    outputs, inputs = (
        module.tensors["weight"].shape if "weight" in module.tensors and module.tensors["weight"].ndim == 2 else (0, 0)
    )
    return f"{module.class_name}({inputs} -> {outputs})" + ("" if "bias" in module.tensors else " without bias")


def _sized(separator: str) -> Callable[[Module], str]:
    def text(module: Module) -> str:
        size = module.fields.get("size", ())
        return f"{module.class_name}({separator.join(map(str, size if isinstance(size, tuple) else (size,)))})"

    return text


def _fields(format: str, *, shows_bias: bool = False) -> Callable[[Module], str]:
    """The class name and fields in C's format, as string.format of Lua has it; the name alone if they are not there."""

    def text(module: Module) -> str:
        bias = " without bias" if shows_bias and "bias" not in module.tensors else ""
        try:
            return module.class_name + format % module.fields + bias
        except (KeyError, TypeError, ValueError, OverflowError):  # a field that is missing, or no number
            return module.class_name

    return text


def _up_sampling(module: Module) -> str:
    if "scale_factor" in module.fields:
        return _fields("(%(scale_factor)dx, %(mode)s)")(module)
    volume = "%(odepth)dx" if "odepth" in module.fields else ""
    return _fields(f"({volume}%(oheight)dx%(owidth)d, %(mode)s)")(module)


def _bilinear_up_sampling(module: Module) -> str:
    scaled = "scale_factor" in module.fields
    return _fields("(%(scale_factor)d)" if scaled else "(%(oheight)d, %(owidth)d)")(module)


def _normalize(module: Module) -> str:
    p = module.fields.get("p", 2)
    return _fields("(%(p)d)" if isinstance(p, (int, float)) and p % 1 == 0 else "(%(p)f)")(module)


def _bilinear(module: Module) -> str:
    weight = module.tensors.get("weight")
    outputs, *inputs = weight.shape if weight is not None and weight.ndim == 3 else (0, 0, 0)
    bias = "" if "bias" in module.tensors else " without bias"
    return f"{module.class_name}({inputs[0]}x{inputs[1]} -> {outputs}) {bias}"


def _name(module: Module) -> str:
    return module.class_name


_SIDES = "(l=%(pad_l)d, r=%(pad_r)d, t=%(pad_t)d, b=%(pad_b)d)"
_CUBE_SIDES = "(left=%(pleft)d, right=%(pright)d, top=%(ptop)d, bottom=%(pbottom)d, front=%(pfront)d, back=%(pback)d)"
_LEAVES: dict[str, Callable[[Module], str]] = {  # by class name, or by `Module.kind` for all packages
    **dict.fromkeys(("cudnn.SpatialBatchNormalization", "cudnn.BatchNormalization"), _name),
    "SpatialConvolution": _convolution(),
    "nn.SpatialDepthWiseConvolution": _convolution(),
    "nn.SpatialConvolutionLocal": _convolution(in_px=True, shows_bias=False),
    "nn.SpatialDilatedConvolution": _convolution(dilated=True),
    "SpatialFullConvolution": _convolution(adjusted=True),
    "VolumetricConvolution": _convolution("TWH", shows_bias=False),
    "nn.VolumetricDilatedConvolution": _convolution("TWH", dilated=True),
    "VolumetricFullConvolution": _convolution("TWH", adjusted=True, shows_bias=False),
    "SpatialMaxPooling": _pooling(),
    "SpatialAveragePooling": _pooling(),
    "nn.SpatialDilatedMaxPooling": _pooling(dilated=True),
    "nn.VolumetricMaxPooling": _pooling("TWH"),
    "nn.VolumetricAveragePooling": _pooling("TWH"),
    "nn.VolumetricDilatedMaxPooling": _pooling("TWH", dilated=True),
    "SpatialBatchNormalization": _batch_norm,
    "nn.VolumetricBatchNormalization": _batch_norm,
    "Linear": _linear,
    "nn.LinearWeightNorm": _fields("(%(inputSize)d -> %(outputSize)d)", shows_bias=True),
    "nn.PartialLinear": _fields("(%(inputsize)d -> %(outputsize)d)", shows_bias=True),
    "nn.Bilinear": _bilinear,
    "View": _sized(", "),
    "Reshape": _sized("x"),
    **dict.fromkeys(("nn.Dropout", "nn.SpatialDropout", "nn.VolumetricDropout"), _fields("(%(p)f)")),
    "nn.ELU": _fields(" (alpha:%(alpha)f)"),
    "nn.LeakyReLU": _fields("(%(negval)g)"),
    "nn.RReLU": _fields(" (l:%(lower)f, u:%(upper)f)"),
    "nn.WhiteNoise": _fields(" mean: %(mean)f, std: %(std)f"),
    "nn.Normalize": _normalize,
    "nn.SelectTable": _fields("(%(index).14g)"),
    "nn.Unsqueeze": _fields("(dim %(pos).14g)"),
    "nn.FeatureLPPooling": _name,  # its __tostring__ fails: it formats a boolean as a number
    "nn.UpSampling": _up_sampling,
    "nn.SpatialUpSamplingBilinear": _bilinear_up_sampling,
    **dict.fromkeys(
        ("nn.SpatialZeroPadding", "nn.SpatialReflectionPadding", "nn.SpatialReplicationPadding"), _fields(_SIDES)
    ),
    "nn.VolumetricReplicationPadding": _fields(_CUBE_SIDES),
}
