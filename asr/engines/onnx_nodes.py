"""A graph of ONNX operators that grows node by node. Methods return the names of the tensors that they add."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    import onnxruntime

OPSET, IR_VERSION = 17, 8  # of June 2022: onnxruntime 1.12 and all later ones read them
TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "bool": TensorProto.BOOL}
SMALL = 1024  # bytes of a constant that is part of the model
TINY = np.float32(1e-30)  # of a channel whose weights are zero, so that they can be divided by their largest

Value = str | np.ndarray | np.generic  # the name of a tensor, or a constant
Signature = Mapping[str, tuple[str, Sequence[int | str]]]  # name: (type, shape)


class Nodes:
    """Nodes and constants of one graph, or of the body of a Scan when made by `body`."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
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
        self.nodes.append(helper.make_node(kind, names, results, domain=domain, **attributes))
        return results

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

    def graph(self, name: str, inputs: Signature, outputs: Signature) -> GraphProto:
        """Close the nodes to a graph without constants; `inputs` and `outputs` give each tensor's type and shape."""
        taken, given = (
            [helper.make_tensor_value_info(n, TYPES[kind], shape) for n, (kind, shape) in side.items()]
            for side in (inputs, outputs)
        )
        return helper.make_graph(self.nodes, name, taken, given)

    def finish(self, inputs: Signature, outputs: Signature, tensors: Mapping[str, str]) -> "Graph":
        """Close the whole graph; `tensors` gives the tensor that each output is."""
        for name, tensor in tensors.items():
            self.nodes.append(helper.make_node("Identity", [tensor], [name]))
        domains = {"", *(node.domain for node in self.nodes)}
        versions = [helper.make_opsetid(domain, 1 if domain else OPSET) for domain in sorted(domains)]
        proto = self.graph("asr", inputs, outputs)
        model = helper.make_model(proto, opset_imports=versions, ir_version=IR_VERSION, producer_name="asr")
        return Graph(model, self.constants, self.weights)


@dataclass(frozen=True)
class Graph:
    """A model whose large constants stay outside of it, so that a session uses them without a copy.

    Attributes:
        model: without constants.
        constants: by name.
        weights: those constants that may be quantized, with the axis over which their products sum.
    """

    model: ModelProto
    constants: Mapping[str, np.ndarray]
    weights: Mapping[str, int]

    def quantized(self) -> "Graph":
        """Return the graph with its weights in int8 and a scale for each output channel.

        They become float32 again when a session is made, which takes a Cast and a Mul of constants: smaller files,
        the same speed, and nothing but the weights is rounded.
        """
        model, constants = ModelProto(), dict(self.constants)
        model.CopyFrom(self.model)
        nodes = []
        for name, axis in self.weights.items():
            weight = constants.pop(name)
            scale = np.maximum(np.abs(weight).max(axis, keepdims=True), TINY) / np.float32(127)
            rounded, factor = f"{name}_int8", f"{name}_scale"
            constants |= {rounded: np.round(weight / scale).astype(np.int8), factor: scale}
            nodes.append(helper.make_node("Cast", [rounded], [f"{name}_cast"], to=TensorProto.FLOAT))
            nodes.append(helper.make_node("Mul", [f"{name}_cast", factor], [name]))
        nodes.extend(self.model.graph.node)
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        return Graph(model, constants, {})

    def whole(self) -> ModelProto:
        """Return the model with its constants inside, as it is written to a file."""
        model = ModelProto()
        model.CopyFrom(self.model)
        tensors = (numpy_helper.from_array(value, name) for name, value in self.constants.items())
        model.graph.initializer.extend(tensors)
        return model

    def session(self, threads: int = 0) -> "onnxruntime.InferenceSession":
        """Return what runs the graph on the CPU with so many threads, 0 for one a core."""
        import onnxruntime

        model = ModelProto()
        model.CopyFrom(self.model)
        outside = {name: value for name, value in self.constants.items() if value.nbytes > SMALL}
        for name, value in self.constants.items():
            tensor = _placed_outside(name, value) if name in outside else numpy_helper.from_array(value, name)
            model.graph.initializer.append(tensor)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Threads that wait sleep: others, and other processes, have the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # errors are raised, not printed as well
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in outside.values()]
        options.add_external_initializers(list(outside), values)
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )


def _placed_outside(name: str, value: np.ndarray) -> TensorProto:
    kind = helper.np_dtype_to_tensor_dtype(value.dtype)
    tensor = TensorProto(name=name, data_type=kind, dims=value.shape, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="memory")
    return tensor


def integers(*values: int) -> np.ndarray:
    """Return an int64 array, as axes, shapes and bounds are written."""
    return np.array(values, np.int64)
