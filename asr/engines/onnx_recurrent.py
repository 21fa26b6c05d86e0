"""Recurrent layers as ONNX operators: LSTM, GRU and RNN where the standard has the cell, else a Scan of its equations.

Everything here is (frame, batch, feature), the order in which those operators read. The equations are those of
`asr.recurrent.cells`; D counts directions, H the hidden size, P the output size, G the gates.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from asr.engines.onnx_nodes import Nodes, integers

Weights = Mapping[str, np.ndarray]  # of one direction, by the names of `asr.recurrent.cells.Weights`
EPSILON = 1e-5  # of layer normalizations, as torch's


@dataclass(frozen=True)
class Operator:
    """The ONNX operator that computes a cell.

    Attributes:
        kind: LSTM, GRU or RNN.
        gates: for each of its gates, in its order, the sign and the index of the cell's own.
        peepholes: likewise for the rows of its peephole weights, in the order i, o, f.
        attributes: what makes it compute the same equations.
    """

    kind: str
    gates: tuple[tuple[int, int], ...]
    peepholes: tuple[tuple[int, int], ...] = ()
    attributes: tuple[tuple[str, int], ...] = ()


# ONNX couples gates by f = 1 - i, our cells by i = 1 - f: the same with the sums of i negated.
_COUPLED = ((-1, 0), (1, 2), (1, 0), (1, 1))
OPERATORS = {
    "lstm": Operator("LSTM", ((1, 0), (1, 3), (1, 1), (1, 2))),
    "peephole": Operator("LSTM", ((1, 0), (1, 3), (1, 1), (1, 2)), ((1, 0), (1, 2), (1, 1))),
    "cifg": Operator("LSTM", _COUPLED, (), (("input_forget", 1),)),
    "cifg_peephole": Operator("LSTM", _COUPLED, ((-1, 0), (1, 1), (1, 0)), (("input_forget", 1),)),
    "gru": Operator("GRU", ((1, 1), (1, 0), (1, 2)), (), (("linear_before_reset", 1),)),
    "rnn_tanh": Operator("RNN", ((1, 0),)),
}


@dataclass(frozen=True)
class Layer:
    """One recurrent layer.

    Attributes:
        cell: its name in `asr.recurrent.cells.CELLS`.
        weights: one mapping a direction, the second one read in reverse.
        hidden_size, proj_size, layer_norm: as `CellOptions`.
        zoneout: share of the previous state that a unit keeps, for h and for c.
    """

    cell: str
    weights: Sequence[Weights]
    hidden_size: int
    proj_size: int = 0
    layer_norm: bool = False
    zoneout: tuple[float, ...] = ()

    @property
    def sizes(self) -> tuple[int, ...]:
        """Width of each part of the state: h and, for the LSTM family, c."""
        output = self.proj_size or self.hidden_size
        return (output, self.hidden_size) if OPERATORS[self.cell].kind == "LSTM" else (output,)

    def stacked(self, name: str) -> np.ndarray:
        """Return one of the parameters of all directions: (D, ...)."""
        return np.stack([weights[name] for weights in self.weights])


class Ragged:
    """Lengths of a batch in the forms in which operators want them."""

    def __init__(self, nodes: Nodes, lengths: str, frames: str):
        """lengths (batch,) int64; frames (1,) int64, frames of the longest."""
        self.lengths = lengths
        self.short = nodes.cast(lengths, "int32")
        inside = nodes.op("Transpose", nodes.inside(lengths, frames), perm=[1, 0])
        self.inside = nodes.op("Unsqueeze", inside, integers(2))  # (frame, batch, 1) bool


def recurrent_layer(
    nodes: Nodes, layer: Layer, x: str, ragged: Ragged, state: Sequence[str] = ()
) -> tuple[str, list[str]]:
    """Add a layer: x (frame, batch, input) to (frame, batch, D * P), zero past each length, and the final state.

    Arguments: state, (D, batch, size) of each part; none begins with zeros.
    """
    if layer.proj_size or layer.layer_norm or any(layer.zoneout):
        return _scanned(nodes, layer, x, ragged, state)
    return _as_operator(nodes, layer, x, ragged, state)


def _as_operator(
    nodes: Nodes, layer: Layer, x: str, ragged: Ragged, state: Sequence[str]
) -> tuple[str, list[str]]:
    operator = OPERATORS[layer.cell]

    size = layer.hidden_size

    def ordered(name: str) -> np.ndarray:
        blocks = []
        for weights in layer.weights:
            for sign, index in operator.gates:
                block = weights[name][index * size : (index + 1) * size]
                blocks.append(block if sign > 0 else -block)
        return np.concatenate(blocks).reshape(len(layer.weights), -1, *blocks[0].shape[1:])

    bias = np.concatenate([ordered("bias_ih"), ordered("bias_hh")], 1)
    weights = [nodes.weight(ordered(name), axis=2) for name in ("weight_ih", "weight_hh")]
    inputs = [*weights, bias, ragged.short]
    if operator.peepholes:
        rows = layer.stacked("weight_peephole")
        peephole = np.concatenate([sign * rows[:, index] for sign, index in operator.peepholes], 1)
        inputs += [*(state or ("", "")), peephole]
    else:
        inputs += state
    y, *final = nodes.ops(
        operator.kind,
        1 + len(layer.sizes),
        x,
        *inputs,
        hidden_size=layer.hidden_size,
        direction="bidirectional" if len(layer.weights) == 2 else "forward",
        **dict(operator.attributes),  # type: ignore[arg-type] - attributes, none of them the domain
    )
    merged = nodes.op("Transpose", y, perm=[0, 2, 1, 3])
    return nodes.op("Reshape", merged, integers(0, 0, len(layer.weights) * layer.hidden_size)), final


def _scanned(
    nodes: Nodes, layer: Layer, x: str, ragged: Ragged, state: Sequence[str]
) -> tuple[str, list[str]]:
    """Run the cell's equations frame by frame, both directions together."""
    read = [x, _reversed(nodes, x, ragged)][: len(layer.weights)]
    shares = [
        nodes.op("Unsqueeze", _input_gates(nodes, layer, own, direction), integers(1))
        for direction, own in enumerate(read)
    ]
    gates = nodes.op("Concat", *shares, axis=1)  # (frame, D, batch, G * H)
    if not state:
        batch = nodes.axis(x, 1)
        state = [
            nodes.op(
                "Expand",
                np.zeros((1, 1, 1), np.float32),
                nodes.op("Concat", integers(len(read)), batch, integers(size), axis=0),
            )
            for size in layer.sizes
        ]
    *final, y = nodes.ops(
        "Scan",
        len(state) + 1,
        *state,
        gates,
        ragged.inside,
        body=_step(nodes, layer),
        num_scan_inputs=2,
    )
    merged = []
    for direction in range(len(read)):
        own = nodes.op("Squeeze", nodes.cut(y, integers(direction), integers(direction + 1), 1), integers(1))
        merged.append(_reversed(nodes, own, ragged) if direction else own)
    y = nodes.op("Concat", *merged, axis=2)
    return nodes.op("Where", ragged.inside, y, np.float32(0)), final


def _reversed(nodes: Nodes, x: str, ragged: Ragged) -> str:
    """Reverse each utterance's own frames, and leave its padding."""
    return nodes.op("ReverseSequence", x, ragged.lengths, time_axis=0, batch_axis=1)


def _input_gates(nodes: Nodes, layer: Layer, x: str, direction: int) -> str:
    """Add `input_gates`: (frame, batch, G * H) of x (frame, batch, input)."""
    weights = layer.weights[direction]
    product = nodes.op("MatMul", x, nodes.weight(np.ascontiguousarray(weights["weight_ih"].T), axis=0))
    if layer.layer_norm:
        norm, shift = weights["norm_ih_weight"], weights["norm_ih_bias"]
        product = nodes.op("LayerNormalization", product, norm, shift, axis=-1, epsilon=EPSILON)
    return nodes.op("Add", product, weights["bias_ih"])


def _step(outer: Nodes, layer: Layer) -> object:
    """Return the body of the Scan: state, the input's share of the gates and whether the frame counts, to the same."""
    nodes = outer.body()
    kinds = ["h", "c"][: len(layer.sizes)]
    names = [outer.name(kind) for kind in kinds]
    gates, inside = outer.name("gates"), outer.name("inside")
    operator = OPERATORS[layer.cell].kind
    step: dict[str, Callable[..., list[str]]] = {"LSTM": _lstm_step, "GRU": _gru_step, "RNN": _rnn_step}
    new = step[operator](nodes, layer, gates, *names)
    kept = [
        _zoned_out(nodes, share, old, value)
        for share, old, value in zip(layer.zoneout, names, new, strict=False)
    ]
    kept = [nodes.op("Where", inside, value, old) for value, old in zip(kept, names, strict=True)]
    y = nodes.op("Identity", kept[0])
    directions = len(layer.weights)
    states = {
        name: ("float32", (directions, "batch", size)) for name, size in zip(names, layer.sizes, strict=True)
    }
    inputs = states | {gates: ("float32", (directions, "batch", "gates")), inside: ("bool", ("batch", 1))}
    outputs = dict(zip([*kept, y], [*states.values(), next(iter(states.values()))], strict=True))
    return nodes.graph("step", inputs, outputs)


def _zoned_out(nodes: Nodes, share: float, old: str, new: str) -> str:
    """Keep a share of the previous state (Krueger et al. 2017)."""
    if not share:
        return new
    return nodes.op(
        "Add", nodes.op("Mul", old, np.float32(share)), nodes.op("Mul", new, np.float32(1 - share))
    )


def _recurrent_gates(nodes: Nodes, layer: Layer, h: str) -> str:
    """Add `recurrent_gates`: (D, batch, G * H) of h (D, batch, P)."""
    weights = nodes.weight(np.ascontiguousarray(layer.stacked("weight_hh").transpose(0, 2, 1)), axis=1)
    product = nodes.op("MatMul", h, weights)
    if layer.layer_norm:
        product = _layer_norm(nodes, layer, product, "hh")
    return nodes.op("Add", product, layer.stacked("bias_hh")[:, None])


def _layer_norm(nodes: Nodes, layer: Layer, x: str, name: str) -> str:
    """Normalize the last axis of x (D, batch, n), with weights of each direction."""
    scale, shift = (layer.stacked(f"norm_{name}_{kind}")[:, None] for kind in ("weight", "bias"))
    ones, zeros = np.ones(scale.shape[-1:], np.float32), np.zeros(scale.shape[-1:], np.float32)
    plain = nodes.op("LayerNormalization", x, ones, zeros, axis=-1, epsilon=EPSILON)
    return nodes.op("Add", nodes.op("Mul", plain, scale), shift)


def _lstm_step(nodes: Nodes, layer: Layer, gates: str, h: str, c: str) -> list[str]:
    """Add `lstm_step`, or `cifg_step` where there are three gates."""
    peepholes = layer.stacked("weight_peephole")[:, :, None] if OPERATORS[layer.cell].peepholes else None

    def peeped(gate: str, state: str, row: int) -> str:
        if peepholes is None:
            return gate
        return nodes.op("Add", gate, nodes.op("Mul", state, np.ascontiguousarray(peepholes[:, row])))

    total = nodes.op("Add", gates, _recurrent_gates(nodes, layer, h))
    if layer.weights[0]["weight_hh"].shape[0] == 3 * layer.hidden_size:
        f, g, o = nodes.ops("Split", 3, total, axis=-1)
        f = nodes.op("Sigmoid", peeped(f, c, 0))
        i = nodes.op("Sub", np.float32(1), f)
    else:
        i, f, g, o = nodes.ops("Split", 4, total, axis=-1)
        i, f = nodes.op("Sigmoid", peeped(i, c, 0)), nodes.op("Sigmoid", peeped(f, c, 1))
    c = nodes.op("Add", nodes.op("Mul", f, c), nodes.op("Mul", i, nodes.op("Tanh", g)))
    o = nodes.op("Sigmoid", peeped(o, c, -1))
    shown = _layer_norm(nodes, layer, c, "cell") if layer.layer_norm else c
    h = nodes.op("Mul", o, nodes.op("Tanh", shown))
    if layer.proj_size:
        projection = np.ascontiguousarray(layer.stacked("weight_hr").transpose(0, 2, 1))
        h = nodes.op("MatMul", h, nodes.weight(projection, axis=1))
    return [h, c]


def _gru_step(nodes: Nodes, layer: Layer, gates: str, h: str) -> list[str]:
    """Add `gru_step`, reset after the product."""
    x_r, x_z, x_n = nodes.ops("Split", 3, gates, axis=-1)
    h_r, h_z, h_n = nodes.ops("Split", 3, _recurrent_gates(nodes, layer, h), axis=-1)
    r, z = (nodes.op("Sigmoid", nodes.op("Add", *shares)) for shares in ((x_r, h_r), (x_z, h_z)))
    n = nodes.op("Tanh", nodes.op("Add", x_n, nodes.op("Mul", r, h_n)))
    return [nodes.op("Add", n, nodes.op("Mul", z, nodes.op("Sub", h, n)))]


def _rnn_step(nodes: Nodes, layer: Layer, gates: str, h: str) -> list[str]:
    """Add `rnn_tanh_step`."""
    return [nodes.op("Tanh", nodes.op("Add", gates, _recurrent_gates(nodes, layer, h)))]
