"""A graph of ONNX operators that grows node by node. Methods return the names of the tensors that they add."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from asr.engines import onnx_messages as messages
from asr.engines.onnx_messages import TYPES, Signature

if TYPE_CHECKING:
    import onnxruntime

OPSET, IR_VERSION = 17, 8  # of June 2022: onnxruntime 1.12 and all later ones read them
SMALL = 1024  # bytes of a constant that is part of the model
TINY = np.float32(1e-30)  # of a channel whose weights are zero, so that they can be divided by their largest

Value = str | np.ndarray | np.generic  # the name of a tensor, or a constant


class Nodes:
    """Nodes and constants of one graph, or of the body of a Scan when made by `body`."""

    def __init__(self) -> None:
        self.nodes: list[bytes] = []
        self.domains = {""}
        self.constants: dict[str, np.ndarray] = {}
        self.weights: dict[str, int] = {}
        self._names: dict[tuple, str] = {}
        self._root = self

    def body(self) -> "Nodes":
        """Return the nodes of a loop's body; its constants and names are those of the graph around it."""
        inner = Nodes()
        inner._root = self._root
        return inner

    def constant(self, value: np.ndarray | np.generic) -> str:
        """Add a constant; equal ones are stored once."""
        value = np.ascontiguousarray(value) if np.ndim(value) else np.asarray(value)
        root = self._root
        key = (value.dtype.str, value.shape, value.tobytes() if value.size <= 16 else id(value))
        if key not in root._names:
            root._names[key] = f"constant_{len(root.constants)}"
            root.constants[root._names[key]] = value
        return root._names[key]

    def weight(self, value: np.ndarray, axis: int) -> str:
        """Add a matrix that may be quantized; its products sum over `axis`."""
        name = self.constant(value)
        self._root.weights[name] = axis
        return name

    def op(self, kind: str, *inputs: Value, **attributes: Any) -> str:
        """Add a node with one output."""
        return self.ops(kind, 1, *inputs, **attributes)[0]

    def ops(self, kind: str, outputs: int, *inputs: Value, domain: str = "", **attributes: Any) -> list[str]:
        """Add a node with several outputs."""
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        results = [self.name(kind.lower()) for _ in range(outputs)]
        self.nodes.append(messages.node(kind, names, results, domain, attributes))
        self._root.domains.add(domain)
        return results

    def cast(self, x: str, kind: str) -> str:
        """Add a tensor's conversion to another type, by numpy's name."""
        return self.op("Cast", x, to=TYPES[kind])

    def name(self, stem: str) -> str:
        """Return a name that no other tensor has."""
        root = self._root
        count = root._names[("count",)] = str(int(root._names.get(("count",), "0")) + 1)
        return f"{stem}_{count}"

    def sum(self, *values: Value) -> str:
        """Add tensors that broadcast."""
        total = values[0]
        for value in values[1:]:
            total = self.op("Add", total, value)
        assert isinstance(total, str)
        return total

    def axis(self, x: str, axis: int) -> str:
        """Add the extent of an axis: (1,) int64."""
        return self.op("Shape", x, start=axis, end=axis + 1)

    def cut(self, x: str, start: Value, end: Value, axis: int, step: int = 1) -> str:
        """Slice one axis; start and end are (1,) int64."""
        return self.op("Slice", x, start, end, integers(axis), integers(step))

    def inside(self, lengths: str, size: str) -> str:
        """Add whether a place is within its utterance: (batch, size) bool of lengths (batch,) and size (1,), int64."""
        places = self.op("Range", np.int64(0), self.op("Squeeze", size), np.int64(1))
        return self.op("Less", places, self.op("Unsqueeze", lengths, integers(1)))

    def graph(self, name: str, inputs: Signature, outputs: Signature) -> bytes:
        """Close the nodes to a loop's body; `inputs` and `outputs` give each tensor's type and shape."""
        return messages.graph(name, self.nodes, inputs, outputs)

    def finish(self, inputs: Signature, outputs: Signature, tensors: Mapping[str, str]) -> "Graph":
        """Close the whole graph; `tensors` gives the tensor that each output is."""
        for name, tensor in tensors.items():
            self.nodes.append(messages.node("Identity", [tensor], [name]))
        opsets = {domain: 1 if domain else OPSET for domain in sorted(self.domains)}
        return Graph(self.nodes, inputs, outputs, opsets, self.constants, self.weights)


@dataclass(frozen=True)
class Graph:
    """A model whose large constants stay outside of it, so that a session uses them without a copy.

    Attributes:
        nodes: in an order in which they can be computed.
        inputs, outputs: types and shapes.
        opsets: version of each domain of operators.
        constants: by name.
        weights: those constants that may be quantized, with the axis over which their products sum.
    """

    nodes: Sequence[bytes]
    inputs: Signature
    outputs: Signature
    opsets: Mapping[str, int]
    constants: Mapping[str, np.ndarray]
    weights: Mapping[str, int]

    def quantized(self) -> "Graph":
        """Return the graph with its weights in int8 and a scale for each output channel.

        They become float32 again when a session is made, which takes a Cast and a Mul of constants: smaller files,
        the same speed, and nothing but the weights is rounded.
        """
        constants, nodes = dict(self.constants), []
        for name, axis in self.weights.items():
            weight = constants.pop(name)
            scale = np.maximum(np.abs(weight).max(axis, keepdims=True), TINY) / np.float32(127)
            rounded, factor = f"{name}_int8", f"{name}_scale"
            constants |= {rounded: np.round(weight / scale).astype(np.int8), factor: scale}
            nodes.append(
                messages.node("Cast", [rounded], [f"{name}_cast"], attributes={"to": TYPES["float32"]})
            )
            nodes.append(messages.node("Mul", [f"{name}_cast", factor], [name]))
        return replace(self, nodes=[*nodes, *self.nodes], constants=constants, weights={})

    def serialized(self, properties: Mapping[str, str] | None = None) -> bytes:
        """Return the content of an ONNX file, with properties for those who read it."""
        tensors = [messages.tensor(name, value) for name, value in self.constants.items()]
        return self._model(tensors, properties or {})

    def session(self, threads: int = 0) -> "onnxruntime.InferenceSession":
        """Return what runs the graph on the CPU with so many threads, 0 for one a core."""
        import onnxruntime

        outside = {name: value for name, value in self.constants.items() if value.nbytes > SMALL}
        tensors = [
            (messages.tensor_outside if name in outside else messages.tensor)(name, value)
            for name, value in self.constants.items()
        ]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Threads that wait sleep: others, and other processes, have the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # errors are raised, not printed as well
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in outside.values()]
        options.add_external_initializers(list(outside), values)
        return onnxruntime.InferenceSession(
            self._model(tensors, {}), options, providers=["CPUExecutionProvider"]
        )

    def _model(self, tensors: Sequence[bytes], properties: Mapping[str, str]) -> bytes:
        graph = messages.graph("asr", self.nodes, self.inputs, self.outputs, tensors)
        return messages.model(graph, IR_VERSION, self.opsets, "asr", properties)


def integers(*values: int) -> np.ndarray:
    """Return an int64 array, as axes, shapes and bounds are written."""
    return np.array(values, np.int64)
