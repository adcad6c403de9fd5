"""Module tree -> the text that Torch7's `print(net)` shows.

Source: the `__tostring__` methods in torch/nn, torch/cunn and soumith/cudnn.torch.
"""

from __future__ import annotations

from collections.abc import Callable

from resnet_tools.torch7.modules import Module


def module_text(module: Module) -> str:
    """The tree as Torch7 prints it, without a newline at the end."""
    text = "\n".join(_lines(module))
    return f"DataParallelTable: {module.replicas} x {text}" if module.replicas > 1 else text


def _lines(module: Module) -> list[str]:
    if module.kind == "Sequential":
        return _sequential(module)
    if module.kind in ("Concat", "ConcatTable", "ParallelTable", "DepthConcat"):
        return _parallel(module)
    leaf = _LEAVES.get(module.class_name) or _LEAVES.get(module.kind)
    own = [module.class_name if leaf is None else leaf(module)]
    return own + [f"  ({n}): {line}" for n, child in enumerate(module.children, 1) for line in _lines(child)]


def _sequential(module: Module) -> list[str]:
    steps = "".join(f" -> ({n})" for n in range(1, len(module.children) + 1))
    lines = ["nn.Sequential {", f"  [input{steps} -> output]"]
    for number, child in enumerate(module.children, 1):
        first, *rest = _lines(child)
        lines += [f"  ({number}): {first}", *(f"  {line}" for line in rest)]
    return [*lines, "}"]


def _parallel(module: Module) -> list[str]:
    lines = [f"{module.class_name} {{", "  input"]
    for number, child in enumerate(module.children, 1):
        last = number == len(module.children)
        first, *rest = _lines(child)
        lines.append(f"  {'   `-> ' if last else '  |`-> '}({number}): {first}")
        lines += [f"  {'       ' if last else '  |    '}{line}" for line in rest]
    return [*lines, "     ... -> output", "}"]


def _convolution(module: Module) -> str:
    kernel = f"{module.number('kW', 1)}x{module.number('kH', 1)}"
    text = f"{module.class_name}({module.number('nInputPlane', 0)} -> {module.number('nOutputPlane', 0)}, {kernel}"
    stride = module.number("dW", 1), module.number("dH", 1)
    padding = module.number("padW", 0), module.number("padH", 0)
    if stride != (1, 1) or padding != (0, 0):
        text += f", {stride[0]},{stride[1]}"
    if padding != (0, 0):
        text += f", {padding[0]},{padding[1]}"
    return text + (")" if "bias" in module.tensors else ") without bias")


def _pooling(module: Module) -> str:
    text = f"{module.class_name}({module.number('kW', 1)}x{module.number('kH', 1)}"
    text += f", {module.number('dW', 1)},{module.number('dH', 1)}"
    padding = module.number("padW", 0), module.number("padH", 0)
    return text + (f", {padding[0]},{padding[1]})" if padding != (0, 0) else ")")


def _batch_norm(module: Module) -> str:
    width = module.tensors["running_mean"].size if "running_mean" in module.tensors else 0
    dims = 4 if "Spatial" in module.class_name else 2
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


_LEAVES: dict[str, Callable[[Module], str]] = {
    "cudnn.SpatialBatchNormalization": lambda module: module.class_name,
    "SpatialConvolution": _convolution,
    "SpatialMaxPooling": _pooling,
    "SpatialAveragePooling": _pooling,
    "SpatialBatchNormalization": _batch_norm,
    "Linear": _linear,
    "View": _sized(", "),
    "Reshape": _sized("x"),
}
