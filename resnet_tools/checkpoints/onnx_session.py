"""What is an .onnx; a graph -> a session of onnxruntime on the CPU, and running it on arrays."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnet_tools.checkpoints.onnx_bytes import bytes_without_weights
from resnet_tools.checkpoints.onnx_graph import IMAGES, LOGITS, Graph
from resnet_tools.torch7.sniff import HEAD_BYTES, content_kind

Array = NDArray[Any]
ENDING = ".onnx"
INSIDE_BYTES = 1024  # weights up to this size, such as the sizes of a padding, stand in the graph itself
ERRORS_ONLY = 3  # onnxruntime's log level


def is_onnx(path: Path) -> bool:
    """Whether the file is one by its first bytes, or by its ending if they are those of no other kind of file."""
    try:
        with path.open("rb") as file:
            kind = content_kind(file.read(HEAD_BYTES), os.fstat(file.fileno()).st_size)
    except OSError:
        return False
    return kind == "onnx" or (kind is None and path.suffix.lower() == ENDING)


def onnxruntime_module() -> Any:
    """onnxruntime, imported without what its library prints on stderr before it raises, such as a want of memory."""
    if "onnxruntime" not in sys.modules:
        with _no_stderr():
            importlib.import_module("onnxruntime")
    return sys.modules["onnxruntime"]


@contextmanager
def _no_stderr() -> Iterator[None]:
    """For what libraries write to the file descriptor; stays as it is where there is none."""
    try:
        kept = os.dup(2)
    except OSError:
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def session_options(**changed: Any) -> Any:
    """Quiet, and threads that have nothing to do wait without working."""
    onnxruntime = onnxruntime_module()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for name, value in changed.items():
        setattr(options, name, value)
    return options


def open_session(graph: str | bytes, options: Any, weights: Mapping[str, Array] | None = None) -> Any:
    """The graph of a path or bytes, ready to run; `weights`: those that it names as lying elsewhere."""
    onnxruntime = onnxruntime_module()
    if weights:
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(weight) for weight in weights.values()]
        options.add_external_initializers(list(weights), values)
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def run_by_onnxruntime(graph: Graph, output: str, threads: int, _: str = "single") -> Callable[[Array], Array]:
    """(N, C, H, W) -> this tensor of the graph, whose weights are not copied."""
    outside = {name: weight for name, weight in graph.weights.items() if weight.nbytes > INSIDE_BYTES}
    options = session_options(intra_op_num_threads=threads, inter_op_num_threads=1)
    session = open_session(bytes_without_weights(graph, [output], outside), options, outside)

    def run(images: Array) -> Array:
        [found] = session.run([output], {IMAGES: images})
        return found  # type: ignore[no-any-return]

    return run


class WrittenNet:
    """The net in a file that `onnx_export` has just written, run as it is written: (N, C, H, W) -> (N, K) float32.

    Without rearranged copies of the weights: it is run once, on small images.
    """

    def __init__(self, path: Path) -> None:
        onnxruntime = onnxruntime_module()
        options = session_options(
            graph_optimization_level=onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL, enable_cpu_mem_arena=False
        )
        options.add_session_config_entry("session.disable_prepacking", "1")
        self.session = open_session(str(path), options)

    def __call__(self, images: Array) -> Array:
        [logits] = self.session.run([LOGITS], {IMAGES: images.astype(np.float32, copy=False)})
        found: Array = logits
        return found
