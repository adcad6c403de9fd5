"""A net -> an .onnx file, by torch's exporter; `onnx_files` runs such files.

The input `images` is (N, C, H, W) float32 and the output `logits` (N, K) float32, whatever the type of the weights; N,
H and W are free. The metadata entry `resnet_tools` is the description of the checkpoint as JSON.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from resnet_tools.errors import ExportError

ENDING = ".onnx"
METADATA = "resnet_tools"
OPSET = 17  # what torch 2.6 and 2.15 both write, and onnxruntime reads since 1.12 (2022)
NEEDED = ".onnx needs onnx and onnxruntime: pip install 'resnet_tools[onnx]'"


def write_onnx(model: nn.Module, path: Path, description: dict[str, Any], in_channels: int = 3) -> None:
    """Write a net in eval mode, on the CPU, in the type of its weights. Raises: ExportError without the extras."""
    onnx, _ = onnx_packages()
    example = torch.zeros(2, in_channels, 64, 96)
    free = {"images": {0: "N", 2: "H", 3: "W"}, "logits": {0: "N"}}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # that there is a newer exporter, and what this one does not fold
        # The exporter by tracing is the one that all versions from 2.6 on have and that needs no further package.
        # PRESERVE keeps batch norms as they are; folding is for the caller to decide.
        torch.onnx.export(
            _Float32InAndOut(model).eval(),
            (example,),
            str(path),
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes=free,
            opset_version=OPSET,
            training=torch.onnx.TrainingMode.PRESERVE,
            dynamo=False,
        )
    written = onnx.load(path)
    onnx.helper.set_model_props(written, {METADATA: json.dumps(description)})
    onnx.save(written, path)


def onnx_packages() -> tuple[Any, Any]:
    """The modules onnx and onnxruntime. Raises: ExportError if they are not installed."""
    try:
        import onnx
        import onnxruntime
    except ImportError:
        raise ExportError(NEEDED) from None
    return onnx, onnxruntime


class _Float32InAndOut(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.dtype = next(model.parameters()).dtype

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.model(images.to(self.dtype))).float()
