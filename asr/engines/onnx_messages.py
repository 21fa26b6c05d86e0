"""The messages of an ONNX file (onnx.proto, IR version 8) as bytes in protobuf's wire format.

Importing the package onnx takes longer than building and loading a graph; the few messages that a graph is made of are
written here field by field instead. Each function takes a message's fields and returns its bytes.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

# TensorProto.DataType, by numpy's names
TYPES = {"float32": 1, "int8": 3, "int32": 6, "int64": 7, "bool": 9, "float64": 11}
EXTERNAL = 1  # TensorProto.DataLocation

Signature = Mapping[str, tuple[str, Sequence[int | str]]]  # name: (type, shape)


def message(*fields: tuple[int, Any]) -> bytes:
    r"""Return a message of (number, content) each: an integer, a float, text, bytes, or a list of these.

    >>> message((1, 300), (2, "ab"), (3, [b"", -1]))
    b'\x08\xac\x02\x12\x02ab\x1a\x00\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01'
    """
    parts = []
    for number, content in fields:
        for item in content if isinstance(content, list) else [content]:
            parts += _field(number, item)
    return b"".join(parts)


def _field(number: int, content: Any) -> tuple[bytes, ...]:
    if isinstance(content, int):
        return _varint(8 * number), _varint(content)
    if isinstance(content, float):
        return _varint(8 * number + 5), struct.pack("<f", content)
    if isinstance(content, str):
        content = content.encode()
    return _varint(8 * number + 2), _varint(len(content)), content


def _varint(value: int) -> bytes:
    value &= 2**64 - 1  # negative numbers are their two's complement
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def node(
    kind: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    domain: str = "",
    attributes: Mapping[str, Any] | None = None,
) -> bytes:
    """Return a NodeProto; attributes are whole numbers, floats, text, lists of whole numbers, or graphs as bytes."""
    written = [_attribute(name, value) for name, value in (attributes or {}).items()]
    return message((1, list(inputs)), (2, list(outputs)), (4, kind), (5, written), (7, domain))


def _attribute(name: str, value: Any) -> bytes:
    """Return an AttributeProto: name, the value in the field of its type, and the number of that type."""
    field, kind = {int: (3, 2), float: (2, 1), str: (4, 3), bytes: (6, 5), list: (8, 7)}[type(value)]
    return message((1, name), (field, value), (20, kind))


def tensor(name: str, value: np.ndarray) -> bytes:
    """Return a TensorProto that holds an array."""
    return message(*_tensor_head(name, value), (9, value.tobytes()))


def tensor_outside(name: str, value: np.ndarray) -> bytes:
    """Return a TensorProto whose content the program that loads the graph has in its memory."""
    location = message((1, "location"), (2, "memory"))
    return message(*_tensor_head(name, value), (13, location), (14, EXTERNAL))


def _tensor_head(name: str, value: np.ndarray) -> tuple[tuple[int, Any], ...]:
    return (1, list(value.shape)), (2, TYPES[value.dtype.name]), (8, name)


def graph(
    name: str, nodes: Iterable[bytes], inputs: Signature, outputs: Signature, tensors: Iterable[bytes] = ()
) -> bytes:
    """Return a GraphProto of NodeProtos and TensorProtos."""
    return message(
        (1, list(nodes)), (2, name), (5, list(tensors)), (11, _values(inputs)), (12, _values(outputs))
    )


def _values(signature: Signature) -> list[bytes]:
    """Return a ValueInfoProto for each tensor: its name, and its TypeProto of element type and shape."""
    values = []
    for name, (kind, shape) in signature.items():
        extents = [message((2 if isinstance(extent, str) else 1, extent)) for extent in shape]
        tensor_type = message((1, TYPES[kind]), (2, message((1, extents))))
        values.append(message((1, name), (2, message((1, tensor_type)))))
    return values


def model(
    graph: bytes, ir_version: int, opsets: Mapping[str, int], producer: str, properties: Mapping[str, str]
) -> bytes:
    """Return a ModelProto, the content of an ONNX file; opsets, the version of each domain."""
    versions = [message((1, domain), (2, version)) for domain, version in opsets.items()]
    entries = [message((1, key), (2, value)) for key, value in properties.items()]
    return message((1, ir_version), (2, producer), (7, graph), (8, versions), (14, entries))
