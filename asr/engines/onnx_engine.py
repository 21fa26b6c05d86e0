"""The model in onnxruntime, on the CPU: what recognizes where PyTorch is not installed, or not needed."""

import os
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import onnxruntime
from onnxruntime import InferenceSession

from asr.bundle import Bundle
from asr.decoding import Decoder
from asr.engines.onnx_graph import (
    convolution_graph,
    feature_graph,
    recognition_graph,
    recurrent_graph,
    refuse_unknown_cells,
    state_sizes,
)
from asr.engines.onnx_nodes import Graph
from asr.engines.onnx_recurrent import OPERATORS
from asr.engines.weights import check_weights, no_frames
from asr.errors import AsrError
from asr.memory import batch_seconds_within, free_memory
from asr.version import install_hint

# Seconds of padded audio, more of which is no faster; spectra of all of them are held at once.
MOST_SECONDS = 60.0
# More threads wait for each other longer than they compute.
MOST_THREADS = 8


class OnnxEngine:
    """See `asr.engines.Engine`; the graph is built from the bundle in memory.

    Arguments: bundle; device, "cpu" or "auto"; compute_type, "float32"; threads, None for one a core. Raises AsrError
    for another device or type, BundleError for what a graph cannot hold and for weights that do not fit.

    >>> from asr.bundle import BUNDLES
    >>> engine = OnnxEngine(Bundle.load(BUNDLES / "an4"))
    >>> [part.shape for part in engine.log_probs([np.zeros(16000, np.float32), np.zeros(0, np.float32)])]
    [(26, 130), (0, 130)]
    """

    def __init__(
        self, bundle: Bundle, device: str = "auto", compute_type: str = "float32", threads: int | None = None
    ):
        if device not in ("auto", "cpu") or compute_type != "float32":
            raise AsrError(
                f"the engine onnx computes in float32 on the CPU, not in {compute_type} on {device}; take the engine "
                f"torch ({install_hint('torch')})"
            )
        self.device, self.compute_type = "cpu", compute_type
        self.bundle, self.threads = bundle, threads or min(MOST_THREADS, available_cores())
        self.sample_rate, self.seconds_per_frame = bundle.sample_rate, bundle.seconds_per_frame
        self.vocab_size = bundle.tokenizer.vocab_size
        refuse_unfit_weights(bundle)

    @cached_property
    def _session(self) -> InferenceSession:
        return session_of(recognition_graph(self.bundle), self.threads)

    @cached_property
    def _session_with_phones(self) -> InferenceSession:
        return session_of(recognition_graph(self.bundle, phones=True), self.threads)

    def log_probs(self, samples: Sequence[np.ndarray], phones: bool = False) -> list[np.ndarray]:
        """Return the log-probabilities (frame, token) float32 of each of samples (time,), computed together.

        With `phones`, (frame, token + 1 + phone).
        """
        if not any(map(len, samples)):
            return no_frames(self.bundle, len(samples), phones)
        lengths = np.array([len(utterance) for utterance in samples])
        padded = np.zeros((len(samples), max(lengths)), np.float32)
        for row, utterance in zip(padded, samples, strict=True):
            row[: len(utterance)] = utterance
        session = self._session_with_phones if phones else self._session
        log_probs, frames = run(session, {"waveform": padded, "lengths": lengths})
        return [row[:count] for row, count in zip(log_probs, frames, strict=True)]

    def batch_seconds(self) -> float:
        """Return the seconds of padded audio that are fast to compute together and fit the free memory."""
        return batch_seconds_within(free_memory(), self.bundle, MOST_SECONDS)

    def stages(self) -> "OnnxStages":
        """Return the model's parts, for a stream."""
        return self._stages

    @cached_property
    def _stages(self) -> "OnnxStages":
        return OnnxStages(self.bundle, self.threads)

    def accelerated(self, decoder: Decoder) -> Decoder:
        """Return the decoder itself: there is no faster one for this engine."""
        return decoder


class OnnxStages:
    """See `asr.engines.Stages`; streams may share one, for their states are theirs."""

    def __init__(self, bundle: Bundle, threads: int):
        self._features, self._convolution, self._recurrent = (
            session_of(graph(bundle), threads)
            for graph in (feature_graph, convolution_graph, recurrent_graph)
        )
        self._sizes = state_sizes(bundle)

    def features(self, samples: np.ndarray) -> np.ndarray:
        """Return features (frame, mel) of samples (time,), normalized with the training data's statistics or not."""
        return run(self._features, {"samples": samples})[0]

    def convolve(self, features: np.ndarray) -> np.ndarray:
        """Return the output (frame', feature) of the convolutions for features (frame, mel)."""
        return run(self._convolution, {"features": features})[0]

    def recur(
        self, hidden: np.ndarray, states: dict[str, np.ndarray] | None, chunk: int
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return log-probabilities (chunk, token) of the first frames of hidden (frame, feature), and the states."""
        if states is None:
            states = {name: np.zeros((1, 1, size), np.float32) for name, size in self._sizes.items()}
        inputs = {"hidden": hidden, "chunk": np.array([chunk])} | states
        log_probs, *carried = run(self._recurrent, inputs)
        return log_probs, dict(zip(states, carried, strict=True))


def session_of(graph: Graph, threads: int) -> InferenceSession:
    """Return what runs a graph on so many threads. Raises AsrError where this onnxruntime cannot."""
    try:
        return graph.session(threads)
    except Exception as error:  # its own have no other class in common
        raise AsrError(
            f"onnxruntime {onnxruntime.__version__} cannot run the model's graph ({_reason(error)}); pip install "
            "--upgrade onnxruntime, or take the engine torch"
        ) from error


def run(session: InferenceSession, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Run a session. Raises MemoryError where the memory does not hold it."""
    try:
        arrays = {name: np.ascontiguousarray(value) for name, value in inputs.items()}
        return list(map(np.asarray, session.run(None, arrays)))
    except Exception as error:
        if any(phrase in str(error) for phrase in ("allocate memory", "bad_alloc")):
            raise MemoryError(_reason(error)) from error
        raise


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def refuse_unfit_weights(bundle: Bundle) -> None:
    """Raise BundleError for a cell that no graph holds, and for weights that are not those of the configuration."""
    refuse_unknown_cells(bundle.model)
    operator = OPERATORS[bundle.model.cell]
    gates, peepholes = (len({index for _, index in rows}) for rows in (operator.gates, operator.peepholes))
    check_weights(bundle, gates, peepholes)


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
