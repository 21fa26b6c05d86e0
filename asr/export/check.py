"""The proof of an export: a manifest recognized by the bundle and by the exported file, and how they differ."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from asr.bundle import Bundle
from asr.data.cuts import Cut, load_cuts, speaker_of, text_of
from asr.data.reading import read_samples
from asr.decoding import greedy
from asr.engines import make_engine
from asr.errors import AsrError, ManifestError
from asr.export.formats import sherpa_repeats
from asr.scoring import score
from asr.scoring.significance import Comparison, compare
from asr.text import normalize

# Largest difference of a probability between two ways to compute the same in float32.
MOST_DIFFERENCE = 1e-4
# Largest difference of the word error rate that rounded weights, or another program's features, may make.
MOST_WER_DIFFERENCE = 0.002
SHERPA_EPSILON = 1e-5  # that sherpa-onnx adds to the variance of the samples

Recognized = Callable[[np.ndarray], tuple[str, np.ndarray | None]]


@dataclass(frozen=True)
class Agreement:
    """How far an exported file is from its bundle.

    Attributes:
        comparison: the bundle's word errors (a) and the file's (b), with the paired interval of their difference.
        equal: utterances with the same transcript.
        difference: largest difference of a probability, None where the program gives none.
        exact: whether the file has to compute the same, or may differ in its word error rate.
        reference: name of the engine that computed the bundle.
    """

    comparison: Comparison
    equal: int
    difference: float | None
    exact: bool
    reference: str

    @property
    def accepted(self) -> bool:
        """Return whether the file is as good as the bundle."""
        if self.exact:
            same = self.equal == self.comparison.a.utterances
            return same and self.difference is not None and self.difference <= MOST_DIFFERENCE
        return abs(self.comparison.difference) <= MOST_WER_DIFFERENCE

    def describe(self) -> str:
        """Return the figures, and what they had to be."""
        a, b = self.comparison.a, self.comparison.b
        change, bounds = _points(self.comparison.difference), self.comparison.interval
        interval = f", 95 % interval {_points(bounds[1])} to {_points(bounds[0])}" if bounds else ""
        lines = [
            f"transcripts  {self.equal} of {a.utterances} equal to those of the engine {self.reference}",
            f"WER          {100 * a.wer:.2f} % by the bundle, {100 * b.wer:.2f} % by the file: {change} "
            f"points{interval}",
        ]
        if self.difference is not None:
            lines.append(f"probability  largest difference {self.difference:.1e}")
        if self.exact:
            expected = f"all transcripts equal and probabilities within {MOST_DIFFERENCE:.0e}"
        else:
            expected = f"a WER within {100 * MOST_WER_DIFFERENCE:.1f} points"
        lines.append(f"{'accepted' if self.accepted else 'refused'}: expected {expected}")
        return "\n".join(lines)


def check_export(bundle: Bundle, path: Path, kind: str, int8: bool, manifest: str | Path) -> Agreement:
    """Recognize a manifest by the bundle and by an exported file.

    Arguments: path of the graph; kind and int8 as for `export`. Raises ManifestError for a manifest that cannot be
    read, AudioError for audio that cannot, AsrError where a package is absent.
    """
    cuts = [cut for cut in load_cuts(manifest) if text_of(cut) is not None]
    if not cuts:
        raise ManifestError(
            f"the manifest {manifest} has no transcripts; expected some, to compare error rates"
        )
    reference = "torch" if find_spec("torch") else "onnx"
    engine = make_engine(bundle, "cpu", engine=reference)

    def by_engine(samples: np.ndarray) -> tuple[str, np.ndarray]:
        (log_probs,) = engine.log_probs([samples])
        return _spelled(bundle, log_probs), log_probs

    by_file = _RUNNERS[kind](bundle, path)
    texts, differences = ([], []), []
    for samples in _audio(cuts, bundle.sample_rate):
        (expected, theirs), (found, ours) = by_engine(samples), by_file(samples)
        texts[0].append(expected)
        texts[1].append(found)
        if ours is not None and len(theirs):
            differences.append(float(np.abs(np.exp(theirs) - np.exp(ours)).max()))
    references = [normalize(text_of(cut) or "", bundle.normalizer) for cut in cuts]
    speakers = [speaker_of(cut) for cut in cuts]
    named = [speaker for speaker in speakers if speaker] if all(speakers) else None
    a, b = (score(references, side, ids=[cut.id for cut in cuts], speakers=named) for side in texts)
    equal = sum(expected == found for expected, found in zip(*texts, strict=True))
    exact = not int8 and (
        kind == "onnx" or (kind, bundle.features.samples) == ("sherpa-onnx", "standardized")
    )
    return Agreement(compare(a, b), equal, max(differences, default=None), exact, reference)


def _points(difference: float) -> str:
    """Return by how many points the file's error rate is above the bundle's, of the difference the other way round."""
    return f"{0.0 - 100 * difference:+.2f}"


def _audio(cuts: Sequence[Cut], sample_rate: int) -> Iterator[np.ndarray]:
    for cut in cuts:
        yield read_samples(cut, sample_rate)


def _spelled(bundle: Bundle, log_probs: np.ndarray) -> str:
    (hypothesis,) = greedy([log_probs])
    return " ".join(bundle.tokenizer.decode(hypothesis.tokens).split())


def _plain(bundle: Bundle, path: Path) -> Recognized:
    """Return what runs the plain graph."""
    session = _session(path)

    def run(samples: np.ndarray) -> tuple[str, np.ndarray]:
        inputs = {"waveform": samples[None], "lengths": np.array([len(samples)])}
        log_probs = np.asarray(session.run(None, inputs)[0])[0]
        return _spelled(bundle, log_probs), log_probs

    return run


def _sherpa(bundle: Bundle, path: Path) -> Recognized:
    """Return what runs the graph on samples as sherpa-onnx gives them to it."""
    session, times = _session(path), sherpa_repeats(bundle)

    def run(samples: np.ndarray) -> tuple[str, np.ndarray]:
        scaled = (samples - samples.mean()) / np.sqrt(samples.var() + np.float32(SHERPA_EPSILON))
        log_probs = np.asarray(session.run(None, {"waveform": scaled[None]})[0])[0, ::times]
        return _spelled(bundle, log_probs), log_probs

    return run


def _onnx_asr(bundle: Bundle, path: Path) -> Recognized:
    """Return what recognizes with onnx-asr itself, whose features are its own."""
    if not find_spec("onnx_asr"):
        raise AsrError("checking the format onnx-asr needs the package onnx-asr; pip install onnx-asr")
    import onnx_asr

    quantization = "int8" if path.name == "model.int8.onnx" else None
    model = onnx_asr.load_model("nemo-conformer-ctc", path.parent, quantization=quantization)

    def run(samples: np.ndarray) -> tuple[str, None]:
        rate: Any = bundle.sample_rate  # which the export has checked
        return " ".join(str(model.recognize(samples, sample_rate=rate)).split()), None

    return run


def _session(path: Path) -> onnxruntime.InferenceSession:
    try:
        return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own have no other class in common
        raise AsrError(
            f"onnxruntime {onnxruntime.__version__} cannot load {path}: {str(error).strip().partition(chr(10))[0]}; "
            "export it again, or pip install --upgrade onnxruntime"
        ) from error


_RUNNERS = {"onnx": _plain, "sherpa-onnx": _sherpa, "onnx-asr": _onnx_asr}
