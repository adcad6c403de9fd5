"""A net -> an .onnx file; `onnx_graph` says what is in it, and `onnx_files` runs such files.

The input `images` is (N, C, H, W) float32 and the output `logits` (N, K) float32, whatever the type of the weights; N,
H and W are free. The metadata entry `resnet_tools` is the description of the checkpoint as JSON.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from resnet_tools.checkpoints.onnx_bytes import MAX_BYTES, model_bytes, size_of
from resnet_tools.checkpoints.onnx_graph import resnet_graph
from resnet_tools.errors import ExportError
from resnet_tools.nets.resnet import ResNet

METADATA = "resnet_tools"
NEEDED = ".onnx needs onnx and onnxruntime: pip install 'resnet_tools[onnx]'"


def write_onnx(model: ResNet, path: Path, description: dict[str, Any]) -> None:
    """Write a net on the CPU, as it is in eval mode, in the type of its weights.

    Raises: ExportError without the extras, or for a net that is too large for the format.
    """
    onnx_packages()
    graph = resnet_graph(model.architecture, {key: tensor.numpy() for key, tensor in model.state_dict().items()})
    if size_of(graph) > MAX_BYTES:
        raise ExportError(
            f"{path}: the net has {size_of(graph):,} bytes; an .onnx holds at most {MAX_BYTES:,}; write .safetensors"
        )
    with path.open("wb") as file:
        for part in model_bytes(graph, {METADATA: json.dumps(description)}):
            file.write(part)


def onnx_packages() -> tuple[Any, Any]:
    """The modules onnx and onnxruntime. Raises: ExportError if they are not installed."""
    try:
        import onnx
        import onnxruntime
    except ImportError:
        raise ExportError(NEEDED) from None
    return onnx, onnxruntime
