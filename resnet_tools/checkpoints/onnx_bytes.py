"""A graph -> the bytes of an .onnx file, weight by weight: the file is never in memory as a whole.

An .onnx is one message of Protocol Buffers, a sequence of fields: `number << 3 | type` as a varint, then the value; of
strings and inner messages first the length. Types: 0 varint, 2 bytes, 5 four bytes. Negative numbers do not occur but
in int64 attributes, where they are in two's complement. Field numbers below are those of onnx.proto (github.com/onnx).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnet_tools.checkpoints.onnx_graph import IMAGES, ONNX_TYPES, Graph, Node

IR_VERSION = 8  # the one of opset 17
OPSET = 17  # onnxruntime reads it since 1.12 (2022)
FLOAT, INT, INTS = 1, 2, 7  # AttributeProto.AttributeType
SINGLE = 1  # TensorProto.FLOAT
EXTERNAL = 1  # TensorProto.DataLocation
MAX_BYTES = (1 << 31) - (1 << 20)  # of the weights in a message, which has less than 2 GiB with all that is around them


def model_bytes(graph: Graph, metadata: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """The parts of the file, in order. Its output is `logits`."""
    head = _structure(graph, {graph.output: (graph.num_classes,)})
    tensors = [(_tensor(name, weight), weight) for name, weight in graph.weights.items()]
    sizes = [len(described) + len(_start(9, weight.nbytes)) + weight.nbytes for described, weight in tensors]
    total = len(head) + sum(len(_start(5, size)) + size for size in sizes)
    yield _model(metadata) + _start(7, total) + head
    for (described, weight), size in zip(tensors, sizes, strict=True):
        yield _start(5, size) + described + _start(9, weight.nbytes)
        yield _bytes_of(weight)


def size_of(graph: Graph) -> int:
    """The bytes of its weights."""
    return sum(weight.nbytes for weight in graph.weights.values())


def bytes_without_weights(graph: Graph, outputs: Iterable[str], external: Iterable[str]) -> bytes:
    """The graph with these tensors as its outputs, for a session that is given the weights named `external` itself."""
    elsewhere = set(external)
    parts = [_structure(graph, dict.fromkeys(outputs))]
    for name, weight in graph.weights.items():
        if name in elsewhere:
            place = _message(13, _text(1, "location") + _text(2, "memory")) + _number(14, EXTERNAL)
        else:
            place = _start(9, weight.nbytes) + bytes(_bytes_of(weight))
        parts.append(_message(5, _tensor(name, weight) + place))
    return _model({}) + _message(7, b"".join(parts))


def _bytes_of(weight: NDArray[Any]) -> memoryview:
    return weight.astype(weight.dtype.newbyteorder("<"), copy=False).reshape(-1).view(np.uint8).data


def _model(metadata: Mapping[str, str]) -> bytes:
    entries = [_message(14, _text(1, key) + _text(2, value)) for key, value in metadata.items()]
    opset = _message(8, _text(1, "") + _number(2, OPSET))
    return b"".join([_number(1, IR_VERSION), _text(2, "resnet_tools"), opset, *entries])


def _structure(graph: Graph, outputs: Mapping[str, tuple[int, ...] | None]) -> bytes:
    """All but the weights. `outputs`: their sizes behind the number of images, or None if the session finds them."""
    images = _value(IMAGES, ("N", graph.in_channels, "H", "W"))
    named = (_value(name, ("N", *sizes) if sizes else None) for name, sizes in outputs.items())
    parts = [*(_message(1, _node(node)) for node in graph.nodes), _text(2, "resnet"), _message(11, images)]
    return b"".join([*parts, *(_message(12, value) for value in named)])


def _node(node: Node) -> bytes:
    names = [_text(1, name) for name in node.inputs]
    attributes = [_message(5, _attribute(name, value)) for name, value in node.attributes.items()]
    return b"".join([*names, _text(2, node.output), _text(3, node.output), _text(4, node.operation), *attributes])


def _attribute(name: str, value: float | tuple[int, ...]) -> bytes:
    if isinstance(value, tuple):
        return _text(1, name) + b"".join(_number(8, item) for item in value) + _number(20, INTS)
    if isinstance(value, float):
        return _text(1, name) + _varint(2 << 3 | 5) + struct.pack("<f", value) + _number(20, FLOAT)
    return _text(1, name) + _number(3, value) + _number(20, INT)


def _value(name: str, sizes: tuple[int | str, ...] | None) -> bytes:
    """A float32 tensor; a size may be a name."""
    shape = b""
    if sizes is not None:
        dims = (_text(2, size) if isinstance(size, str) else _number(1, size) for size in sizes)
        shape = _message(2, b"".join(_message(1, dim) for dim in dims))
    return _text(1, name) + _message(2, _message(1, _number(1, SINGLE) + shape))


def _tensor(name: str, weight: NDArray[Any]) -> bytes:
    """What is said of a tensor before its numbers."""
    sizes = b"".join(_number(1, size) for size in weight.shape)
    return sizes + _number(2, ONNX_TYPES[weight.dtype]) + _text(8, name)


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode())


def _message(field: int, content: bytes) -> bytes:
    return _start(field, len(content)) + content


def _start(field: int, length: int) -> bytes:
    return _varint(field << 3 | 2) + _varint(length)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; all but the last byte have the highest bit set."""
    rest, found = value & (1 << 64) - 1, bytearray()
    while rest > 0x7F:
        found.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*found, rest])
