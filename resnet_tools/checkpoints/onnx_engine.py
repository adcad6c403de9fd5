"""A checkpoint -> its net, or the net up to one of its layers, run by onnxruntime or openvino on the CPU.

It takes and gives arrays, or tensors of torch where those are in use; torch itself is not needed.
Shapes: N images of C channels and H x W pixels; K classes, D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from resnet_tools.checkpoints.onnx_graph import CLASSIFIER, FEATURES, folded, resnet_graph
from resnet_tools.checkpoints.onnx_session import run_by_onnxruntime
from resnet_tools.checkpoints.openvino_session import run_by_openvino
from resnet_tools.compute.engines import SMALL_NET_PARAMETERS, engine_threads
from resnet_tools.errors import DeviceMemoryError, ResnetToolsError
from resnet_tools.nets.architecture import Architecture

if TYPE_CHECKING:
    from resnet_tools.checkpoints.checkpoint import Checkpoint

Array = NDArray[Any]
Images = TypeVar("Images")
RUNNERS = {"onnxruntime": run_by_onnxruntime, "openvino": run_by_openvino}


class EngineNet:
    """(N, C, H, W) float32 -> the output of `layer`, by default the logits (N, K), float32."""

    def __init__(
        self,
        architecture: Architecture,
        weights: Mapping[str, Array],
        layer: str = CLASSIFIER,
        *,
        fold: bool = True,
        engine: str = "onnxruntime",
        precision: str = "single",
    ) -> None:
        self.architecture, self.layer, self.engine = architecture, layer, engine
        graph = resnet_graph(architecture, folded(architecture, weights) if fold else weights).up_to(layer)
        threads = 1 if architecture.parameters < SMALL_NET_PARAMETERS else engine_threads()
        try:
            self.run = RUNNERS[engine](graph, graph.layers[layer], threads, precision)
        except ResnetToolsError:
            raise
        except Exception as error:  # the types of the engines' errors are private to them
            raise _engine_error(engine, error, 0) from error

    def __call__(self, images: Images) -> Images:
        given = images if isinstance(images, np.ndarray) else images.numpy()  # type: ignore[attr-defined]
        try:
            found = self.run(given)
        except Exception as error:  # as above
            raise _engine_error(self.engine, error, len(given)) from error
        if isinstance(images, np.ndarray):
            return found  # type: ignore[return-value]
        import torch

        return torch.from_numpy(found)  # type: ignore[return-value]

    def forward_features(self, images: Images) -> Images:
        """(N, D), of a net up to them."""
        if self.layer != FEATURES:
            raise ValueError(f"this net is run up to {self.layer}, not to {FEATURES}")
        return self(images)

    def layer_shapes(self, crop_px: int) -> dict[str, tuple[int, ...]]:
        """The shape of its one output, as `features.layers.layer_shapes` has it."""
        zeros = np.zeros((1, self.architecture.in_channels, crop_px, crop_px), np.float32)
        return {self.layer: self(zeros).shape[1:]}


def engine_net(
    checkpoint: Checkpoint,
    layer: str = CLASSIFIER,
    *,
    fold: bool = True,
    engine: str = "onnxruntime",
    precision: str = "single",
) -> EngineNet:
    """The net of a checkpoint; the module of the checkpoint need not be built for it."""
    arrays = checkpoint.arrays
    return EngineNet(checkpoint.architecture, arrays, layer, fold=fold, engine=engine, precision=precision)


def _engine_error(engine: str, error: Exception, batch_size: int) -> ResnetToolsError:
    if "alloc" in str(error).lower() or isinstance(error, MemoryError):
        what = f"{batch_size} images at once; lower --batch-size, or --crop-size" if batch_size else "the net"
        return DeviceMemoryError(f"not enough memory for {what}")
    return ResnetToolsError(f"{engine} cannot run this net: {error}; --engine torch can")
