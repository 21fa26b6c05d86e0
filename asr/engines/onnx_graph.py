"""A bundle as one ONNX graph: waveform and lengths in, log-probabilities and frame counts out; built without torch.

Everything past an utterance's own length is set to zero behind every operation that could leave something there, so
that the result for an utterance depends neither on the padding nor on what else is in its batch, as in `asr.model`.
"""

from collections.abc import Mapping

import numpy as np

from asr.engines.onnx_features import normalized_features
from asr.engines.onnx_nodes import Graph, Nodes, integers
from asr.engines.onnx_recurrent import EPSILON, OPERATORS, Layer, Ragged, recurrent_layer
from asr.errors import BundleError
from asr.features import FeatureConfig
from asr.model import ModelConfig

Tensors = Mapping[str, np.ndarray]
LARGEST = 2**31 - 2**20  # bytes of weights that a graph in one piece can hold


def recognition_graph(features: FeatureConfig, model: ModelConfig, tensors: Tensors) -> Graph:
    """Build the graph of a bundle.

    Its inputs are `waveform` (batch, time) float32 and `lengths` (batch,) int64, samples of each utterance; its outputs
    `log_probs` (batch, frame, token) float32 and `frames` (batch,) int64, what is past them means nothing.

    Arguments: the bundle's configurations, and its weights by their names in the file, float32. Raises BundleError for
    what a graph cannot hold.
    """
    _check(model, tensors)
    nodes = Nodes()
    frames = normalized_features(nodes, "waveform", "lengths", features, tensors, leveled=True)
    hidden, counts = front_end(nodes, model, tensors, frames.features, frames.counts)
    ragged = Ragged(nodes, counts, nodes.axis(hidden, 0))
    for index in range(model.layers):
        normed = _norm(nodes, model, tensors, index, hidden)
        hidden, _ = recurrent_layer(nodes, layer(model, tensors, index), normed, ragged)
    log_probs = nodes.op("Transpose", score(nodes, model, tensors, hidden), perm=[1, 0, 2])
    vocab_size = len(tensors["model.output.bias"])
    return nodes.finish(
        {"waveform": ("float32", ("batch", "time")), "lengths": ("int64", ("batch",))},
        {"log_probs": ("float32", ("batch", "frame", vocab_size)), "frames": ("int64", ("batch",))},
        {"log_probs": log_probs, "frames": counts},
    )


def _check(model: ModelConfig, tensors: Tensors) -> None:
    if model.cell not in OPERATORS:
        raise BundleError(
            f"model.cell is {model.cell!r}; an ONNX graph holds {', '.join(OPERATORS)}: take the engine torch"
        )
    size = sum(value.nbytes for value in tensors.values())
    if size > LARGEST:
        raise BundleError(
            f"the weights take {size / 2**30:.1f} GiB; an ONNX graph holds less than 2 GiB: take the engine torch"
        )


def front_end(
    nodes: Nodes, model: ModelConfig, tensors: Tensors, features: str, counts: str
) -> tuple[str, str]:
    """Add the convolutions: features (batch, frame, mel) to (frame, batch, channel * mel), and their counts."""
    x = nodes.op("Unsqueeze", features, integers(1))
    config = model.front_end
    for index, (kernel, stride) in enumerate(zip(config.kernel_sizes, config.strides, strict=True)):
        own = {
            name.removeprefix(prefix): value
            for name, value in tensors.items()
            if name.startswith(prefix := f"model.front_end.layers.{index}.")
        }
        weight, bias = own["conv.weight"], own.get("conv.bias")
        if config.norm == "batch":
            scale = own["batch_norm.weight"] / np.sqrt(own["batch_norm.running_var"] + np.float32(EPSILON))
            weight = weight * scale[:, None, None, None]
            bias = own["batch_norm.bias"] - own["batch_norm.running_mean"] * scale
        height, width = (size // 2 for size in kernel)
        x = nodes.op(
            "Conv",
            x,
            weight,
            *([] if bias is None else [bias]),
            strides=list(stride),
            pads=[height, width, height, width],
        )
        if config.norm == "layer":
            frames = nodes.op("Transpose", x, perm=[0, 2, 1, 3])
            frames = nodes.op(
                "LayerNormalization",
                frames,
                own["layer_norm.weight"],
                own["layer_norm.bias"],
                axis=2,
                epsilon=EPSILON,
            )
            x = nodes.op("Transpose", frames, perm=[0, 2, 1, 3])
        counts = nodes.op("Div", nodes.op("Add", counts, np.int64(stride[0] - 1)), np.int64(stride[0]))
        inside = nodes.op("Unsqueeze", nodes.inside(counts, nodes.axis(x, 2)), integers(1, 3))
        x = nodes.op("Where", inside, nodes.op("Relu", x), np.float32(0))
    merged = nodes.op("Transpose", x, perm=[2, 0, 1, 3])
    return nodes.op("Reshape", merged, integers(0, 0, -1)), counts


def layer(model: ModelConfig, tensors: Tensors, index: int) -> Layer:
    """Give a recurrent layer's weights and options."""
    prefix = f"model.recurrent.{index}."
    weights = []
    for suffix in ("_l0", "_l0_reverse")[: 1 + model.bidirectional]:
        weights.append(
            {
                name.removeprefix(prefix).removesuffix(suffix): value
                for name, value in tensors.items()
                if name.startswith(prefix) and name.endswith(suffix)
            }
        )
    zoneout_cell = model.zoneout if OPERATORS[model.cell].kind == "LSTM" else 0.0
    return Layer(
        model.cell,
        weights,
        model.hidden_size,
        model.proj_size,
        model.layer_norm,
        (model.zoneout, zoneout_cell),
    )


def _norm(nodes: Nodes, model: ModelConfig, tensors: Tensors, index: int, x: str) -> str:
    if model.norm == "none":
        return x
    scale, shift = (tensors[f"model.norms.{index}.{kind}"] for kind in ("weight", "bias"))
    return nodes.op("LayerNormalization", x, scale, shift, axis=-1, epsilon=EPSILON)


def score(nodes: Nodes, model: ModelConfig, tensors: Tensors, hidden: str) -> str:
    """Add the output layer: hidden (frame, batch, feature) to log-probabilities (frame, batch, token)."""
    x = _norm(nodes, model, tensors, model.layers, hidden)
    product = nodes.op("MatMul", x, np.ascontiguousarray(tensors["model.output.weight"].T))
    logits = nodes.op("Add", product, tensors["model.output.bias"])
    return nodes.op("LogSoftmax", logits, axis=-1)
