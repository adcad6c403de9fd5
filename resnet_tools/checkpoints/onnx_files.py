"""A net <-> an .onnx file: written by torch's exporter, run by onnxruntime.

The input `images` is (N, 3, H, W) float32 and the output `logits` (N, K) float32, whatever the type of the weights; N,
H and W are free. The metadata entry `resnet_tools` is the description of the checkpoint as JSON.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from resnet_tools.data.transforms import Preprocessing
from resnet_tools.errors import CheckpointError, ExportError

ENDING = ".onnx"
METADATA = "resnet_tools"
OPSET = 17  # what torch 2.6 and 2.15 both write, and onnxruntime reads since 1.12 (2022)
NEEDED = ".onnx needs onnx and onnxruntime: pip install 'resnet_tools[onnx]'"
ERRORS_ONLY = 3  # onnxruntime's log level


def write_onnx(model: nn.Module, path: Path, description: dict[str, Any]) -> None:
    """Write a net in eval mode, on the CPU, in the type of its weights. Raises: ExportError without the extras."""
    onnx, _ = onnx_packages()
    example = torch.zeros(2, 3, 64, 96)
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


class OnnxNet:
    """The net in an .onnx file: (N, 3, H, W) -> (N, K) logits. Raises: CheckpointError if there is none."""

    def __init__(self, path: Path) -> None:
        _, onnxruntime = onnx_packages()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = ERRORS_ONLY
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # its threads wait without working
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the types of onnxruntime's errors are private to it
            raise CheckpointError(f"{path}: not a net that onnxruntime can load: {error}") from error
        self.path = path
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type != "tensor(float)":
            raise CheckpointError(f"{path}: expected one input of float32 images (N, 3, H, W) and one output")
        self.input = inputs[0].name
        self.preprocessing = self._preprocessing()

    def __call__(self, images: Tensor) -> Tensor:
        try:
            [logits] = self.session.run(None, {self.input: images.numpy()})
        except Exception as error:
            shape = tuple(images.shape)
            raise CheckpointError(f"{self.path}: onnxruntime cannot run it on images {shape}: {error}") from error
        if not isinstance(logits, np.ndarray) or logits.ndim != 2 or logits.dtype.kind != "f":
            found = f"{logits.dtype} {logits.shape}" if isinstance(logits, np.ndarray) else type(logits).__name__
            raise CheckpointError(f"{self.path}: its output is {found}; expected a row of logits for each image")
        return torch.from_numpy(logits).float()

    def _preprocessing(self) -> Preprocessing | None:
        described = self.session.get_modelmeta().custom_metadata_map.get(METADATA)
        try:
            return Preprocessing.from_dict(json.loads(described)["preprocessing"]) if described else None
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise CheckpointError(f"{self.path}: its metadata {METADATA!r} is not a description: {error}") from error


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
