"""The features of `asr.features` as ONNX operators: framing, spectrum, mel filters, level and normalization.

The spectrum is a product with cosines and sines in double precision, as beside a loud voice single precision is off
by 1e-3 in quiet bands. A Hann window is even around its middle, so each frame's halves are added for the cosines and
subtracted for the sines first, which halves the product.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from asr.engines.onnx_nodes import Nodes, integers
from asr.errors import BundleError
from asr.features.config import (
    FLOOR,
    LEAST_CONTRAST,
    LEVEL_TOLERANCE,
    LOUDEST_FRAMES,
    SAMPLE_STD_FLOOR,
    SPEECH_RANGE,
    STD_FLOOR,
    FeatureConfig,
)

Tensors = Mapping[str, np.ndarray]


class Frames(NamedTuple):
    """Names of a graph's tensors: features (batch, frame, mel), counts (batch,), inside (batch, frame) bool."""

    features: str
    counts: str
    inside: str


def normalized_features(
    nodes: Nodes,
    waveform: str,
    lengths: str,
    config: FeatureConfig,
    tensors: Tensors,
    tolerance: float | None = LEVEL_TOLERANCE,
) -> Frames:
    """Add what computes `LogMel.forward`: waveform (batch, time) float32, lengths (batch,) int64 to features.

    Arguments: tolerance, by how many standard deviations an utterance's level may be off before it is leveled, None
    for levels that stay as they are.
    """
    if config.samples == "standardized":
        waveform = standardized(nodes, waveform, lengths)
    frames = log_mel(nodes, waveform, lengths, config)
    if config.normalize == "utterance":
        return frames._replace(features=_normalized_over_utterance(nodes, frames))
    if config.normalize == "none":
        return frames
    features = frames.features
    if tolerance is not None:
        features = nodes.op("Sub", features, _excess(nodes, frames, tensors, tolerance))
    centered = nodes.op("Sub", features, tensors["log_mel.mean"])
    scaled = nodes.op("Div", centered, tensors["log_mel.std"])
    return frames._replace(features=_masked(nodes, scaled, frames.inside))


def standardized(nodes: Nodes, waveform: str, lengths: str) -> str:
    """Add what gives each utterance's samples mean 0 and variance 1."""
    inside = nodes.inside(lengths, nodes.axis(waveform, 1))
    centered = nodes.op("Sub", waveform, _mean(nodes, waveform, inside))
    centered = nodes.op("Where", inside, centered, np.float32(0))
    deviation = nodes.op("Sqrt", _mean(nodes, nodes.op("Mul", centered, centered), inside))
    return nodes.op("Div", centered, nodes.op("Max", deviation, np.float32(SAMPLE_STD_FLOOR)))


def log_mel(nodes: Nodes, waveform: str, lengths: str, config: FeatureConfig) -> Frames:
    """Add what computes `log_mel`: the logarithm of mel power, 0 past each utterance's frames."""
    window, hop = config.win_length, config.hop_length
    if window < 3:
        raise BundleError(
            f"features.win_length is {window}; an ONNX graph needs a window of 3 samples or more"
        )
    count = nodes.op("Add", nodes.op("Div", nodes.axis(waveform, 1), integers(hop)), integers(1))
    framed = _framed(nodes, waveform, lengths, count, config)
    power = _power_spectrum(nodes, framed, window, config.n_fft)
    filters = config.mel_filters()
    used = np.flatnonzero(np.any(filters, axis=1))
    lowest, highest = int(used[0]), int(used[-1]) + 1
    power = nodes.cut(power, integers(lowest), integers(highest), axis=2)
    mel = nodes.op("MatMul", power, filters[lowest:highest].astype(np.float32))
    logarithm = nodes.op("Log", nodes.op("Max", mel, np.float32(FLOOR)))
    whole = nodes.op("Add", nodes.op("Div", lengths, np.int64(hop)), np.int64(1))
    counts = nodes.op("Mul", nodes.cast(nodes.op("Greater", lengths, np.int64(0)), "int64"), whole)
    inside = nodes.inside(counts, count)
    return Frames(_masked(nodes, logarithm, inside), counts, inside)


def _framed(nodes: Nodes, waveform: str, lengths: str, count: str, config: FeatureConfig) -> str:
    """Add the frames (batch, count, at least window) float64, silence beyond both ends of each utterance.

    Every frame reads `parts` blocks of a hop from its own on.
    """
    window, hop = config.win_length, config.hop_length
    time, parts = nodes.axis(waveform, 1), -(-window // hop)
    silent_past = nodes.op("Where", nodes.inside(lengths, time), waveform, np.float32(0))
    # The window lies in the middle of the n_fft samples of which the middle one is sample frame * hop.
    before = config.n_fft // 2 - (config.n_fft - window) // 2
    total = nodes.op("Mul", nodes.op("Add", count, integers(parts - 1)), integers(hop))
    after = nodes.op("Sub", nodes.op("Sub", total, time), integers(before))
    padded = nodes.op("Pad", silent_past, nodes.op("Concat", integers(0, before, 0), after, axis=0))
    blocks = nodes.op("Reshape", nodes.cast(padded, "float64"), integers(0, -1, hop))
    shifted = [
        nodes.cut(blocks, integers(part), nodes.op("Add", count, integers(part)), axis=1)
        for part in range(parts)
    ]
    return nodes.op("Concat", *shifted, axis=2)


def _power_spectrum(nodes: Nodes, frames: str, window: int, n_fft: int) -> str:
    """Add the power spectrum (batch, frame, frequency) float32 of frames (batch, frame, at least window) float64."""
    half = (window + 1) // 2
    rising = nodes.cut(frames, integers(1), integers(half), axis=2)
    falling = nodes.cut(frames, integers(window - 1), integers(window - half), axis=2, step=-1)
    even, odd = nodes.op("Add", rising, falling), nodes.op("Sub", rising, falling)
    places = np.arange(1, half)
    if window % 2 == 0:
        even = nodes.op("Concat", even, nodes.cut(frames, integers(half), integers(half + 1), axis=2), axis=2)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    angles = 2 * np.pi / n_fft * np.arange(n_fft // 2 + 1)
    cosines, sines = (
        wave((n - window / 2)[:, None] * angles) * hann[n, None]
        for wave, n in ((np.cos, np.append(places, half)[: half - window % 2]), (np.sin, places))
    )
    squares = []
    for part, waves in ((even, cosines), (odd, sines)):
        amplitude = nodes.cast(nodes.op("MatMul", part, waves), "float32")
        squares.append(nodes.op("Mul", amplitude, amplitude))
    return nodes.op("Add", *squares)


def _masked(nodes: Nodes, features: str, inside: str) -> str:
    return nodes.op("Where", nodes.op("Unsqueeze", inside, integers(2)), features, np.float32(0))


def _mean(nodes: Nodes, values: str, counted: str) -> str:
    """Mean along the second axis of the values (batch, n) that count, 0 where none do: (batch, 1)."""
    total = nodes.op("ReduceSum", nodes.op("Where", counted, values, np.float32(0)), integers(1), keepdims=1)
    count = nodes.op("ReduceSum", nodes.cast(counted, "float32"), integers(1), keepdims=1)
    return nodes.op("Div", total, nodes.op("Max", count, np.float32(1)))


def _normalized_over_utterance(nodes: Nodes, frames: Frames) -> str:
    """Add what gives each band of each utterance mean 0 and variance 1."""
    count = nodes.op("Max", nodes.cast(frames.counts, "float32"), np.float32(1))
    count = nodes.op("Unsqueeze", count, integers(1, 2))

    def mean(values: str) -> str:
        return nodes.op("Div", nodes.op("ReduceSum", values, integers(1), keepdims=1), count)

    centered = _masked(nodes, nodes.op("Sub", frames.features, mean(frames.features)), frames.inside)
    std = nodes.op("Sqrt", mean(nodes.op("Mul", centered, centered)))
    return nodes.op("Div", centered, nodes.op("Max", std, np.float32(STD_FLOOR)))


def _excess(nodes: Nodes, frames: Frames, tensors: Tensors, tolerance: float) -> str:
    """Add by how much each utterance's level is off where that is too far, else 0: (batch, 1, 1) nats."""
    power = nodes.op("ReduceLogSumExp", frames.features, axes=[2], keepdims=0)
    level = _level(nodes, power, frames)
    off = nodes.op("Sub", level, tensors["log_mel.level"].reshape(1, 1))
    most = np.float32(tolerance) * tensors["log_mel.level_std"]
    contrast = nodes.op("Sub", level, _quiet(nodes, power, frames))
    far = nodes.op(
        "And",
        nodes.op("Greater", nodes.op("Abs", off), most),
        nodes.op("Greater", contrast, np.float32(LEAST_CONTRAST)),
    )
    return nodes.op("Unsqueeze", nodes.op("Where", far, off, np.float32(0)), integers(2))


def _level(nodes: Nodes, power: str, frames: Frames) -> str:
    """Add `level_of`: (batch, 1) of each frame's power (batch, frame)."""
    lowest = np.float32(np.finfo(np.float32).min)
    loud = nodes.op("Where", frames.inside, power, lowest)
    count = nodes.op("Min", nodes.axis(power, 1), integers(LOUDEST_FRAMES))
    loudest, _ = nodes.ops("TopK", 2, loud, count, axis=1)
    threshold = nodes.op(
        "Sub", _mean(nodes, loudest, nodes.op("Greater", loudest, lowest)), np.float32(SPEECH_RANGE)
    )
    speech = nodes.op("And", frames.inside, nodes.op("Greater", power, threshold))
    return _mean(nodes, power, speech)


def _quiet(nodes: Nodes, power: str, frames: Frames) -> str:
    """Add the power (batch, 1) that a tenth of each utterance's frames do not reach, between two frames' linearly."""
    quiet = nodes.op("Where", frames.inside, power, np.float32(np.finfo(np.float32).max))
    ascending, _ = nodes.ops("TopK", 2, quiet, nodes.axis(power, 1), axis=1, largest=0)
    last = nodes.op("Max", nodes.op("Sub", frames.counts, np.int64(1)), np.int64(0))
    last = nodes.op("Unsqueeze", last, integers(1))
    rank = nodes.op("Mul", nodes.cast(last, "float32"), np.float32(0.1))
    floor = nodes.op("Floor", rank)
    below = nodes.cast(floor, "int64")
    above = nodes.op("Min", nodes.op("Add", below, np.int64(1)), last)
    low, high = (nodes.op("GatherElements", ascending, place, axis=1) for place in (below, above))
    share = nodes.op("Sub", rank, floor)
    return nodes.op("Add", low, nodes.op("Mul", share, nodes.op("Sub", high, low)))
