"""A graph -> what openvino runs on the CPU.

The graph is handed over operation by operation and the weights as the arrays that they are, so nothing is copied or
written as an .onnx before openvino arranges the weights in its own way.
Source: openvino's operation sets, docs.openvino.ai/openvino-workflow (Operation Sets), and its properties of the CPU.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnet_tools.checkpoints.onnx_graph import IMAGES, Graph, Node
from resnet_tools.errors import ResnetToolsError

Array = NDArray[Any]
TYPES = {"single": "f32", "bf16": "bf16"}  # without being told, openvino takes bf16 where the CPU has it
TELEMETRY = "openvino_telemetry"
MAX_WEIGHT = 1e18  # those of nets that can be used are below 1e4; the sums of such numbers overflow in float32
ROWS_AND_COLUMNS = (2, 3)
_making = threading.Lock()


def openvino_module() -> Any:
    """openvino, imported without its telemetry, which would tell its maker of each import and write to the home."""
    if "openvino" not in sys.modules:
        hidden = TELEMETRY not in sys.modules
        if hidden:
            sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # openvino goes on if it cannot be imported
        try:
            importlib.import_module("openvino")
        finally:
            if hidden:
                del sys.modules[TELEMETRY]
    return sys.modules["openvino"]


def openvino_core() -> Any:
    """The one core of this process.

    Each core installs an alternative stack for signals in its thread and puts the previous one back when it goes. If
    that belonged to a core that has gone too, the next signal ends the process (openvino 2026.4).
    """
    with _making:
        return _made_core()


@cache
def _made_core() -> Any:
    return openvino_module().Core()


def run_by_openvino(graph: Graph, output: str, threads: int, precision: str = "single") -> Callable[[Array], Array]:
    """(N, C, H, W) -> this tensor of the graph.

    Sizes are free: so each image has the value that it has alone. Raises: ResnetToolsError if the CPU has no bf16, or a
    weight is NaN, infinite or so large that what openvino computes would look right and be wrong.
    """
    _check_weights(graph)
    core = openvino_core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise ResnetToolsError("--engine openvino: this CPU has no bf16 arithmetic; leave out --precision bf16")
    settings = {
        "INFERENCE_PRECISION_HINT": TYPES[precision],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # the threads that decode images use the same cores
    }
    request = core.compile_model(_model(graph, output), "CPU", settings).create_infer_request()

    def run(images: Array) -> Array:
        found: Array = request.infer([np.ascontiguousarray(images)], share_inputs=True)[0]
        return found

    return run


def _check_weights(graph: Graph) -> None:
    for name, weight in graph.weights.items():
        # A comparison with NaN is false. openvino's ReLU makes 0 of NaN, so the outputs would not tell of it.
        if weight.dtype.kind == "f" and not (weight.min() >= -MAX_WEIGHT and weight.max() <= MAX_WEIGHT):
            raise ResnetToolsError(
                f"--engine openvino: {name} holds NaN or numbers beyond {MAX_WEIGHT:g}, where openvino gives wrong "
                "numbers and other engines NaN; use --engine torch or onnxruntime"
            )


def _model(graph: Graph, output: str) -> Any:
    openvino = openvino_module()
    images = openvino.opset13.parameter([-1, graph.in_channels, -1, -1], np.float32, name=IMAGES)
    made = {name: openvino.op.Constant(weight, shared_memory=True) for name, weight in graph.weights.items()}
    made[IMAGES] = images
    for node in graph.nodes:
        inputs = [made[name] for name in node.inputs]
        made[node.output] = OPERATIONS[node.operation](openvino.opset13, node, *inputs)
    return openvino.Model([openvino.opset13.result(made[output])], [images])


def _convolution(op: Any, node: Node, x: Any, weight: Any, bias: Any = None) -> Any:
    pads, strides, groups = _numbers(node, "pads"), _numbers(node, "strides"), node.attributes["group"]
    if groups == 1:
        y = op.convolution(x, weight, strides, pads[:2], pads[2:], [1, 1])
    else:
        parts = op.reshape(weight, [groups, -1, *weight.shape[1:]], special_zero=False)
        y = op.group_convolution(x, parts, strides, pads[:2], pads[2:], [1, 1])
    return y if bias is None else op.add(y, op.reshape(bias, [1, -1, 1, 1], special_zero=False))


def _max_pool(op: Any, node: Node, x: Any) -> Any:
    pads, strides, window = (_numbers(node, name) for name in ("pads", "strides", "kernel_shape"))
    return op.max_pool(x, strides, [1, 1], pads[:2], pads[2:], window).output(0)


def _batch_norm(op: Any, node: Node, x: Any, *fields: Any) -> Any:
    return op.batch_norm_inference(x, *fields, epsilon=node.attributes["epsilon"])


def _padded(op: Any, _: Node, x: Any, pads: Any) -> Any:
    before, after = (op.slice(pads, [k], [k + 4], [1]) for k in (0, 4))  # of the four dimensions
    return op.pad(x, before, after, "constant", np.float32(0))


def _numbers(node: Node, name: str) -> list[int]:
    value: Any = node.attributes[name]
    return list(value)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "Add": lambda op, _, x, y: op.add(x, y),
    "BatchNormalization": _batch_norm,
    "Conv": _convolution,
    "Flatten": lambda op, _, x: op.reshape(x, [0, -1], special_zero=True),
    "Gemm": lambda op, _, x, weight, bias: op.add(op.matmul(x, weight, False, True), bias),
    "GlobalAveragePool": lambda op, _, x: op.reduce_mean(x, ROWS_AND_COLUMNS, keep_dims=True),
    "MaxPool": _max_pool,
    "Mul": lambda op, _, x, factor: op.multiply(x, factor),
    "Pad": _padded,
    "Relu": lambda op, _, x: op.relu(x),
    "Slice": lambda op, _, x, starts, ends, axes, steps: op.slice(x, starts, ends, steps, axes),
}
