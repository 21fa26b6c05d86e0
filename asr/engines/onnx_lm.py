"""A recurrent language model without PyTorch: the recurrence in onnxruntime, the output layer in numpy."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from asr.engines.onnx_engine import run, session_of
from asr.engines.onnx_nodes import Graph, Nodes
from asr.engines.onnx_recurrent import OPERATORS, Layer, Ragged, recurrent_layer
from asr.errors import BundleError
from asr.lm.network import NetworkConfig
from asr.lm_bundle import LmBundle

# Of each layer h0, c0, h1, ..., (1, batch, size).
States = dict[str, np.ndarray]
# Numbers of the largest matrix of scores that is computed at once: 64 MB.
MOST_SCORES = 1 << 24


class OnnxLm:
    """Computes a language model's recurrence and output.

    Arguments: bundle; threads, of onnxruntime. Raises BundleError for a cell or weights that no graph holds.
    """

    def __init__(self, bundle: LmBundle, threads: int = 1):
        network = bundle.network
        if network.cell not in OPERATORS:
            raise BundleError(
                f"network.cell is {network.cell!r}; an ONNX graph holds {', '.join(OPERATORS)}: train a model of one "
                "of them"
            )
        layers = list(_layers(network, bundle.weights))
        self._sizes = {
            f"{part}{index}": size
            for index, layer in enumerate(layers)
            for part, size in zip("hc", layer.sizes, strict=False)
        }
        try:
            self._session = session_of(
                _graph(layers, bundle.weights["embedding.weight"], self._sizes), threads
            )
        except KeyError as error:
            raise BundleError(
                f"the language model {bundle.folder or ''} lacks the weight {error}; copy it again"
            ) from error
        self.output = _output(network, bundle)

    def start(self, batch: int) -> States:
        """Return the states before a text's first token."""
        return {name: np.zeros((1, batch, size), np.float32) for name, size in self._sizes.items()}

    def read(self, ids: np.ndarray, lengths: np.ndarray, states: States) -> tuple[np.ndarray, States]:
        """Read tokens (batch, time) int64 on from the states, each row up to its length (batch,) int64.

        Returns hidden (batch, time, feature), from which the next tokens are predicted, and the states behind each row.
        """
        hidden, *final = run(self._session, {"ids": ids, "lengths": lengths} | states)
        return hidden, dict(zip(states, final, strict=True))


def _layers(network: NetworkConfig, weights: Mapping[str, np.ndarray]) -> Iterator[Layer]:
    for index in range(network.layers):
        prefix = f"recurrent.{index}."
        own = {
            name.removeprefix(prefix).removesuffix("_l0"): weights[name]
            for name in weights
            if name.startswith(prefix)
        }
        sizes = (network.hidden_size, network.proj_size, network.layer_norm)
        yield Layer(network.cell, [own], *sizes, zoneout=(0.0, 0.0))


def _graph(layers: Sequence[Layer], embedding: np.ndarray, sizes: Mapping[str, int]) -> Graph:
    """Return the graph of `OnnxLm.read`: ids, lengths and states to hidden and next states."""
    nodes = Nodes()
    frames = nodes.op("Transpose", "ids", perm=[1, 0])
    hidden = nodes.op("Gather", embedding, frames, axis=0)  # (time, batch, feature)
    ragged = Ragged(nodes, "lengths", nodes.axis(frames, 0))
    states = {name: ("float32", (1, "batch", size)) for name, size in sizes.items()}
    finals = {}
    for index, layer in enumerate(layers):
        names = [name for name in states if name[1:] == str(index)]
        hidden, final = recurrent_layer(nodes, layer, hidden, ragged, names)
        finals |= {f"next_{name}": state for name, state in zip(names, final, strict=True)}
    return nodes.finish(
        {"ids": ("int64", ("batch", "time")), "lengths": ("int64", ("batch",))} | states,
        {"hidden": ("float32", ("batch", "time", "feature"))}
        | {f"next_{name}": kind for name, kind in states.items()},
        {"hidden": nodes.op("Transpose", hidden, perm=[1, 0, 2])} | finals,
    )


class FullSoftmax:
    """Scores every token: weight (token, feature), bias (token,)."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray):
        self.weight, self.bias = weight, bias

    def log_probs(self, hidden: np.ndarray) -> np.ndarray:
        """Return the log-probabilities (n, token) of what follows hidden (n, feature)."""
        return _log_softmax(hidden @ self.weight.T + self.bias)

    def log_probs_of(self, hidden: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the log-probabilities (n,) of the tokens targets (n,) behind hidden (n, feature)."""
        step = max(1, MOST_SCORES // len(self.weight))
        parts = [
            np.take_along_axis(self.log_probs(hidden[i : i + step]), targets[i : i + step, None], 1)[:, 0]
            for i in range(0, len(targets), step)
        ]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)


class AdaptiveSoftmax:
    """Scores frequent tokens, clusters of rare ones, and a cluster's tokens where needed (Grave et al. 2017).

    Arguments: cutoffs, first token of each cluster, and the number of all tokens; head (shortlist + clusters, feature);
    tails, of each cluster the projection (narrow, feature) and the weight (tokens of the cluster, narrow).
    """

    def __init__(
        self, cutoffs: Sequence[int], head: np.ndarray, tails: Sequence[tuple[np.ndarray, np.ndarray]]
    ):
        self.cutoffs, self.head, self.tails = list(cutoffs), head, tails

    def log_probs(self, hidden: np.ndarray) -> np.ndarray:
        """Return the log-probabilities (n, token) of what follows hidden (n, feature)."""
        head = _log_softmax(hidden @ self.head.T)
        shortlist = self.cutoffs[0]
        clusters = [
            _log_softmax(hidden @ projection.T @ weight.T) + head[:, shortlist + i, None]
            for i, (projection, weight) in enumerate(self.tails)
        ]
        return np.concatenate([head[:, :shortlist], *clusters], 1)

    def log_probs_of(self, hidden: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the log-probabilities (n,) of the tokens targets (n,) behind hidden (n, feature)."""
        shortlist = self.cutoffs[0]
        cluster = np.searchsorted(self.cutoffs, targets, side="right")  # 0: in the shortlist
        result = FullSoftmax(self.head, np.float32(0)).log_probs_of(  # type: ignore[arg-type]
            hidden, np.where(cluster == 0, targets, shortlist + cluster - 1)
        )
        for i, (projection, weight) in enumerate(self.tails):
            rows = np.flatnonzero(cluster == i + 1)
            tail = FullSoftmax(weight, np.float32(0))  # type: ignore[arg-type]
            result[rows] += tail.log_probs_of(hidden[rows] @ projection.T, targets[rows] - self.cutoffs[i])
        return result


def _output(network: NetworkConfig, bundle: LmBundle) -> FullSoftmax | AdaptiveSoftmax:
    weights, vocab_size = bundle.weights, bundle.units.size
    clusters = network.clusters(vocab_size)
    if clusters:
        tails = [
            (weights[f"output.tail.{i}.0.weight"], weights[f"output.tail.{i}.1.weight"])
            for i in range(len(clusters))
        ]
        return AdaptiveSoftmax([*clusters, vocab_size], weights["output.head.weight"], tails)
    return FullSoftmax(
        weights["embedding.weight" if network.tied else "output.weight"], weights["output.bias"]
    )


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    scores = scores - scores.max(-1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(-1, keepdims=True))
