"""The files that a plain ONNX runtime, sherpa-onnx and onnx-asr load: graph, tokens and metadata as each wants them."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from asr.bundle import Bundle
from asr.engines.onnx_graph import recognition_graph, recognize, recognize_features
from asr.engines.onnx_nodes import Graph, Nodes, integers
from asr.errors import BundleError
from asr.features.config import LEVEL_TOLERANCE
from asr.files import replacing
from asr.text import SENTENCEPIECE_SPACE
from asr.version import __version__

LARGEST = 2**31 - 2**20  # bytes that an ONNX file in one piece can hold
BLANK_SYMBOL = "<blk>"  # as sherpa-onnx and onnx-asr look for it
SHERPA_RATE = 16000
# sherpa-onnx takes every frame for so long, whatever the model.
SHERPA_FRAME_SECONDS = 0.02
# Standardized samples times this are as loud as speech usually is, far from the floor of the features.
USUAL_DEVIATION = 0.05
# NeMo's features, as onnx-asr computes them.
NEMO = {"sample_rate": 16000, "n_fft": 512, "win_length": 400, "hop_length": 160, "normalize": "utterance"}
NEMO_BANDS = (80, 128)


def export(bundle: Bundle, folder: str | Path, kind: str = "onnx", int8: bool = False) -> Path:
    """Write a bundle as another program loads it; return the path of its graph.

    Arguments: kind, one of FORMATS; int8, whether the recurrent layers' weights are stored in 8 bits. Raises
    BundleError for what the format cannot hold and where the folder cannot be written.
    """
    if kind not in FORMATS:
        raise BundleError(f"there is no format {kind!r}; there are {', '.join(FORMATS)}")
    graph = FORMATS[kind](bundle)
    content = serialized(graph.quantized() if int8 else graph, metadata(bundle))
    path = Path(folder) / ("model.int8.onnx" if int8 else "model.onnx")
    files = {path.name: content, TOKEN_FILES.get(kind, "tokens.txt"): token_table(bundle).encode()}
    if kind == "onnx-asr":
        files["config.json"] = nemo_config(bundle).encode()
    try:
        for name, written in files.items():
            with replacing(path.with_name(name)) as part:
                part.write_bytes(written)
    except OSError as error:
        raise BundleError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def serialized(graph: Graph, properties: dict[str, str]) -> bytes:
    """Return the content of an ONNX file. Raises BundleError for one that is too large."""
    size = sum(value.nbytes for value in graph.constants.values())
    if size > LARGEST:
        raise BundleError(f"the weights take {size / 2**30:.1f} GiB; a file of ONNX holds less than 2 GiB")
    return graph.serialized(properties)


def metadata(bundle: Bundle) -> dict[str, str]:
    """Return what a program that loads the graph has to know, as ONNX stores it."""
    return {
        "asr_version": __version__,
        "sample_rate": str(bundle.sample_rate),
        "seconds_per_frame": str(bundle.seconds_per_frame),
        "vocab_size": str(bundle.tokenizer.vocab_size),
        "blank": "0",
        "normalizer": bundle.normalizer,
        "samples": bundle.features.samples,
    }


def token_table(bundle: Bundle) -> str:
    r"""Return a line for each token, its symbol and number; a space is written as sentencepiece writes it.

    >>> from asr.bundle import BUNDLES
    >>> token_table(Bundle.load(BUNDLES / "an4")).splitlines()[:2]
    ['<blk> 0', '▁t 1']
    """
    space = bundle.tokenizer.space
    symbols = [BLANK_SYMBOL, *bundle.tokenizer.tokens[1:]]
    return "".join(f"{s.replace(space, SENTENCEPIECE_SPACE)} {i}\n" for i, s in enumerate(symbols))


def sherpa_graph(bundle: Bundle) -> Graph:
    """Return the graph that sherpa-onnx loads as an Omnilingual CTC model: samples (batch, time) to log-probabilities.

    sherpa-onnx brings the samples to mean 0 and variance 1 first. To a model with features.samples "standardized" that
    changes nothing; to another the loudness of the recording is lost, so that all are brought to the training data's
    level. Each frame comes as often as makes its time right. Raises BundleError for other sample rates.
    """
    if bundle.sample_rate != SHERPA_RATE:
        raise BundleError(
            f"the model takes {bundle.sample_rate} Hz, sherpa-onnx gives {SHERPA_RATE} Hz; take "
            "the format onnx, or train with features.sample_rate 16000"
        )
    nodes = Nodes()
    waveform, tolerance = "waveform", LEVEL_TOLERANCE
    if bundle.features.samples != "standardized":
        waveform, tolerance = nodes.op("Mul", "waveform", np.float32(USUAL_DEVIATION)), 0.0
    lengths = nodes.op("Expand", nodes.axis("waveform", 1), nodes.axis("waveform", 0))
    log_probs, _ = recognize(nodes, bundle, waveform, lengths, tolerance)
    times = sherpa_repeats(bundle)
    return _only_log_probs(nodes, bundle, log_probs, "waveform", ("batch", "time"), times)


def sherpa_repeats(bundle: Bundle) -> int:
    """Return how often each frame comes in the graph for sherpa-onnx.

    >>> from asr.bundle import BUNDLES
    >>> sherpa_repeats(Bundle.load(BUNDLES / "an4"))
    2
    """
    return max(1, round(bundle.seconds_per_frame / SHERPA_FRAME_SECONDS))


def nemo_graph(bundle: Bundle) -> Graph:
    """Return the graph that onnx-asr loads as a NeMo CTC model: features (batch, mel, frame) and their lengths.

    onnx-asr computes NeMo's features, which differ from librosa's by pre-emphasis and in silence; normalized over the
    utterance they are nearly the same. Raises BundleError for a model of other features.
    """
    config = bundle.features
    wrong = [
        f"{name} {getattr(config, name)!r}" for name, value in NEMO.items() if getattr(config, name) != value
    ]
    if config.n_mels not in NEMO_BANDS:
        wrong.append(f"n_mels {config.n_mels}")
    if wrong:
        expected = ", ".join(f"{name} {value!r}" for name, value in NEMO.items())
        raise BundleError(
            f"onnx-asr computes its own features, and this model was trained with others: {', '.join(wrong)}; train "
            f"with {expected} and n_mels 80 or 128, or take the format sherpa-onnx"
        )
    nodes = Nodes()
    features = nodes.op("Transpose", "audio_signal", perm=[0, 2, 1])
    log_probs, _ = recognize_features(nodes, bundle, features, "length")
    return nodes.finish(
        {"audio_signal": ("float32", ("batch", config.n_mels, "frame")), "length": ("int64", ("batch",))},
        {"logprobs": ("float32", ("batch", "out_frame", bundle.tokenizer.vocab_size))},
        {"logprobs": log_probs},
    )


def nemo_config(bundle: Bundle) -> str:
    """Return the config.json by which onnx-asr knows the model."""
    values = {
        "model_type": "nemo-conformer-ctc",
        "features_size": bundle.features.n_mels,
        "subsampling_factor": bundle.model.front_end.subsampling,
    }
    return json.dumps(values, indent=2) + "\n"


def _only_log_probs(
    nodes: Nodes, bundle: Bundle, log_probs: str, name: str, shape: Sequence[str], times: int
) -> Graph:
    """Close a graph of one input and one output, each of whose frames comes several times."""
    vocab_size = bundle.tokenizer.vocab_size
    if times > 1:
        column = nodes.op("Unsqueeze", log_probs, integers(2))
        repeated = nodes.op("Tile", column, integers(1, 1, times, 1))
        log_probs = nodes.op("Reshape", repeated, integers(0, -1, vocab_size))
    return nodes.finish(
        {name: ("float32", shape)},
        {"log_probs": ("float32", ("batch", "frame", vocab_size))},
        {"log_probs": log_probs},
    )


FORMATS = {"onnx": recognition_graph, "sherpa-onnx": sherpa_graph, "onnx-asr": nemo_graph}
TOKEN_FILES = {"onnx-asr": "vocab.txt"}
