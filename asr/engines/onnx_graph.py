"""A bundle as an ONNX graph: waveform and lengths in, log-probabilities and frame counts out; built without torch.

Everything past an utterance's own length is set to zero behind every operation that could leave something there, so
that the result for an utterance depends neither on the padding nor on what else is in its batch, as in `asr.model`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from asr.bundle import Bundle
from asr.engines.onnx_features import normalized_features
from asr.engines.onnx_nodes import Graph, Nodes, Signature, integers
from asr.engines.onnx_recurrent import EPSILON, OPERATORS, Layer, Ragged, recurrent_layer
from asr.errors import BundleError
from asr.features.config import LEVEL_TOLERANCE
from asr.model_config import ModelConfig

Tensors = Mapping[str, np.ndarray]


def recognition_graph(bundle: Bundle, phones: bool = False) -> Graph:
    """Return the graph of a whole model, and with `phones` of both its outputs, side by side.

    Its inputs are `waveform` (batch, time) float32 and `lengths` (batch,) int64, samples of each utterance. Its outputs
    are `log_probs` (batch, frame, token) float32 and `frames` (batch,) int64; what is past them means nothing. Raises
    BundleError for what a graph cannot hold.
    """
    nodes = Nodes()
    log_probs, counts = recognize(nodes, bundle, "waveform", "lengths", phones=phones)
    width = bundle.tokenizer.vocab_size + (1 + len(bundle.model.phones)) * phones
    return nodes.finish(
        {"waveform": ("float32", ("batch", "time")), "lengths": ("int64", ("batch",))},
        {
            "log_probs": ("float32", ("batch", "frame", width)),
            "frames": ("int64", ("batch",)),
        },
        {"log_probs": log_probs, "frames": counts},
    )


def recognize(
    nodes: Nodes,
    bundle: Bundle,
    waveform: str,
    lengths: str,
    tolerance: float = LEVEL_TOLERANCE,
    phones: bool = False,
) -> tuple[str, str]:
    """Add a whole model; return the names of log-probabilities (batch, frame, token) and frame counts (batch,).

    Arguments: tolerance as in `normalized_features`; phones, whether the phones' log-probabilities follow the tokens'.
    """
    frames = normalized_features(nodes, waveform, lengths, bundle.features, bundle.weights, tolerance)
    return recognize_features(nodes, bundle, frames.features, frames.counts, phones)


def recognize_features(
    nodes: Nodes, bundle: Bundle, features: str, counts: str, phones: bool = False
) -> tuple[str, str]:
    """Add the model behind the features (batch, frame, mel), frame counts (batch,) int64; return as `recognize`."""
    refuse_unknown_cells(bundle.model)
    hidden, counts = front_end(nodes, bundle.model, bundle.weights, features, counts)
    ragged = Ragged(nodes, counts, nodes.axis(hidden, 0))
    for index in range(bundle.model.layers):
        x = _norm(nodes, bundle.model, bundle.weights, index, hidden)
        hidden, _ = recurrent_layer(nodes, layer_of(bundle.model, bundle.weights, index), x, ragged)
    scores = score(nodes, bundle.model, bundle.weights, hidden)
    if phones:
        of_phones = score(nodes, bundle.model, bundle.weights, hidden, "phone_output")
        scores = nodes.op("Concat", scores, of_phones, axis=2)
    return nodes.op("Transpose", scores, perm=[1, 0, 2]), counts


def feature_graph(bundle: Bundle) -> Graph:
    """Return the graph of a stream's features: `samples` (time,) float32 to `features` (frame, mel).

    They are normalized with the training data's statistics or not at all, and not leveled. The samples stay as they
    are.
    """
    config, nodes = replace(bundle.features, samples="recorded"), Nodes()
    if config.normalize == "utterance":
        config = replace(config, normalize="none")
    waveform = nodes.op("Unsqueeze", "samples", integers(0))
    lengths = nodes.op("Shape", "samples")
    frames = normalized_features(nodes, waveform, lengths, config, bundle.weights, tolerance=None)
    return nodes.finish(
        {"samples": ("float32", ("time",))},
        {"features": ("float32", ("frame", config.n_mels))},
        {"features": nodes.op("Squeeze", frames.features, integers(0))},
    )


def convolution_graph(bundle: Bundle) -> Graph:
    """Return the graph of a stream's convolutions: `features` (frame, mel) to `hidden` (frame', feature)."""
    nodes = Nodes()
    batch = nodes.op("Unsqueeze", "features", integers(0))
    hidden, _ = front_end(nodes, bundle.model, bundle.weights, batch, nodes.axis("features", 0))
    return nodes.finish(
        {"features": ("float32", ("frame", bundle.features.n_mels))},
        {"hidden": ("float32", ("out_frame", "feature"))},
        {"hidden": nodes.op("Squeeze", hidden, integers(1))},
    )


def recurrent_graph(bundle: Bundle) -> Graph:
    """Return the graph of a stream's recurrent layers, with the state that is carried from chunk to chunk.

    Its inputs are `hidden` (frame, feature), `chunk` (1,) int64, frames that are not look-ahead, and for each layer
    `h0`, `c0`, ..., the forward direction's state (1, 1, size). Its outputs are `log_probs` (chunk, token) and
    `next_h0`, `next_c0`, ...
    """
    refuse_unknown_cells(bundle.model)
    nodes, model, weights = Nodes(), bundle.model, bundle.weights
    hidden = nodes.op("Unsqueeze", "hidden", integers(1))
    whole = Ragged(nodes, nodes.axis(hidden, 0), nodes.axis(hidden, 0))
    chunk = Ragged(nodes, "chunk", "chunk") if model.bidirectional else whole
    inputs: dict = {"hidden": ("float32", ("frame", "feature")), "chunk": ("int64", (1,))}
    states: Signature = {name: ("float32", (1, 1, size)) for name, size in state_sizes(bundle).items()}
    results = {}
    for index in range(model.layers):
        layer, x = layer_of(model, weights, index), _norm(nodes, model, weights, index, hidden)
        names = [name for name in states if name[1:] == str(index)]
        # The reverse direction begins at zero, at the end of the look-ahead.
        both = [nodes.op("Concat", n, np.zeros((1, 1, states[n][1][2]), np.float32), axis=0) for n in names]
        hidden, final = recurrent_layer(nodes, layer, x, whole, both if model.bidirectional else names)
        if model.bidirectional:
            # The chunk a second time, forward, for the state to carry on.
            forward = replace(layer, weights=layer.weights[:1])
            _, final = recurrent_layer(nodes, forward, nodes.cut(x, integers(0), "chunk", 0), chunk, names)
        results |= {f"next_{name}": state for name, state in zip(names, final, strict=True)}
    scores = nodes.cut(score(nodes, model, weights, hidden), integers(0), "chunk", 0)
    outputs = {"log_probs": ("float32", ("chunk", bundle.tokenizer.vocab_size))}
    return nodes.finish(
        inputs | dict(states),
        outputs | {f"next_{name}": kind for name, kind in states.items()},
        {"log_probs": nodes.op("Squeeze", scores, integers(1))} | results,
    )


def state_sizes(bundle: Bundle) -> dict[str, int]:
    """Return the width of each part of the state that a stream carries, by its name in `recurrent_graph`."""
    sizes = layer_sizes(bundle.model)
    return {
        f"{kind}{index}": size
        for index in range(bundle.model.layers)
        for kind, size in zip("hc", sizes, strict=False)
    }


def layer_sizes(model: ModelConfig) -> tuple[int, ...]:
    """Return the width of each part of a layer's state: h and, for the LSTM family, c."""
    return Layer(model.cell, (), model.hidden_size, model.proj_size).sizes


def refuse_unknown_cells(model: ModelConfig) -> None:
    """Raise BundleError for a cell that no graph holds."""
    if model.cell not in OPERATORS:
        raise BundleError(
            f"model.cell is {model.cell!r}; an ONNX graph holds {', '.join(OPERATORS)}: take the engine torch"
        )


def front_end(
    nodes: Nodes, model: ModelConfig, tensors: Tensors, features: str, counts: str
) -> tuple[str, str]:
    """Add the convolutions: features (batch, frame, mel) to (frame, batch, channel * mel), and their counts."""
    x = nodes.op("Unsqueeze", features, integers(1))
    for index, stride in enumerate(model.front_end.strides):
        x = _convolved(nodes, model, dict(_part(tensors, f"model.front_end.layers.{index}.")), index, x)
        counts = nodes.op("Div", nodes.op("Add", counts, np.int64(stride[0] - 1)), np.int64(stride[0]))
        inside = nodes.op("Unsqueeze", nodes.inside(counts, nodes.axis(x, 2)), integers(1, 3))
        x = nodes.op("Where", inside, nodes.op("Relu", x), np.float32(0))
    merged = nodes.op("Transpose", x, perm=[2, 0, 1, 3])
    return nodes.op("Reshape", merged, integers(0, 0, -1)), counts


def _convolved(nodes: Nodes, model: ModelConfig, weights: Tensors, index: int, x: str) -> str:
    """Add a convolution of x (batch, channel, frame, mel) with its normalization, by running statistics folded in."""
    kernel, bias = weights["conv.weight"], weights.get("conv.bias")
    if model.front_end.norm == "batch":
        scale = weights["batch_norm.weight"] / np.sqrt(
            weights["batch_norm.running_var"] + np.float32(EPSILON)
        )
        kernel = kernel * scale[:, None, None, None]
        bias = weights["batch_norm.bias"] - weights["batch_norm.running_mean"] * scale
    pads = [size // 2 for size in model.front_end.kernel_sizes[index]] * 2
    inputs = [x, kernel] if bias is None else [x, kernel, bias]
    x = nodes.op("Conv", *inputs, strides=list(model.front_end.strides[index]), pads=pads)
    if model.front_end.norm != "layer":
        return x
    frames = nodes.op("Transpose", x, perm=[0, 2, 1, 3])
    scale, shift = weights["layer_norm.weight"], weights["layer_norm.bias"]
    frames = nodes.op("LayerNormalization", frames, scale, shift, axis=2, epsilon=EPSILON)
    return nodes.op("Transpose", frames, perm=[0, 2, 1, 3])


def _part(tensors: Tensors, prefix: str, suffix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Yield the tensors of a module, by their names within it."""
    for name in tensors:
        if name.startswith(prefix) and name.endswith(suffix):
            yield name.removeprefix(prefix).removesuffix(suffix), tensors[name]


def layer_of(model: ModelConfig, tensors: Tensors, index: int) -> Layer:
    """Return a recurrent layer's weights and options."""
    suffixes = ("_l0", "_l0_reverse")[: 1 + model.bidirectional]
    weights = [dict(_part(tensors, f"model.recurrent.{index}.", suffix)) for suffix in suffixes]
    zoneout = (model.zoneout,) * len(layer_sizes(model))
    return Layer(model.cell, weights, model.hidden_size, model.proj_size, model.layer_norm, zoneout)


def _norm(nodes: Nodes, model: ModelConfig, tensors: Tensors, index: int, x: str) -> str:
    if model.norm == "none":
        return x
    scale, shift = (tensors[f"model.norms.{index}.{kind}"] for kind in ("weight", "bias"))
    return nodes.op("LayerNormalization", x, scale, shift, axis=-1, epsilon=EPSILON)


def score(nodes: Nodes, model: ModelConfig, tensors: Tensors, hidden: str, output: str = "output") -> str:
    """Add an output layer: hidden (frame, batch, feature) to log-probabilities (frame, batch, token)."""
    x = _norm(nodes, model, tensors, model.layers, hidden)
    product = nodes.op("MatMul", x, np.ascontiguousarray(tensors[f"model.{output}.weight"].T))
    logits = nodes.op("Add", product, tensors[f"model.{output}.bias"])
    return nodes.op("LogSoftmax", logits, axis=-1)
