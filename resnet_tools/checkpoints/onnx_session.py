"""What is an .onnx; a graph -> a session of onnxruntime on the CPU, and running it on arrays."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnet_tools.checkpoints.onnx_graph import IMAGES, LOGITS
from resnet_tools.torch7.sniff import HEAD_BYTES, content_kind

Array = NDArray[Any]
ENDING = ".onnx"
ERRORS_ONLY = 3  # onnxruntime's log level


def is_onnx(path: Path) -> bool:
    """Whether the file is one by its first bytes, or by its ending if they are those of no other kind of file."""
    try:
        with path.open("rb") as file:
            kind = content_kind(file.read(HEAD_BYTES), os.fstat(file.fileno()).st_size)
    except OSError:
        return False
    return kind == "onnx" or (kind is None and path.suffix.lower() == ENDING)


def session_options(**changed: Any) -> Any:
    """Quiet, and threads that have nothing to do wait without working."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for name, value in changed.items():
        setattr(options, name, value)
    return options


def open_session(graph: str | bytes, options: Any, weights: Mapping[str, Array] | None = None) -> Any:
    """The graph of a path or bytes, ready to run; `weights`: those that it names as lying elsewhere."""
    import onnxruntime

    if weights:
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(weight) for weight in weights.values()]
        options.add_external_initializers(list(weights), values)
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


class WrittenNet:
    """The net in a file that `onnx_export` has just written, run as it is written: (N, C, H, W) -> (N, K) float32.

    Without rearranged copies of the weights: it is run once, on small images.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = session_options(
            graph_optimization_level=onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL, enable_cpu_mem_arena=False
        )
        options.add_session_config_entry("session.disable_prepacking", "1")
        self.session = open_session(str(path), options)

    def __call__(self, images: Array) -> Array:
        [logits] = self.session.run([LOGITS], {IMAGES: images.astype(np.float32, copy=False)})
        found: Array = logits
        return found
