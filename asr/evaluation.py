"""How well a model does on a test set: its transcripts, scored, and what a report shows of them."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asr.data.cuts import Cut, file_of, load_cuts, manifest_texts, speaker_of, text_of
from asr.data.reading import read_samples
from asr.errors import AudioError
from asr.features.spectrogram import spectrogram
from asr.recognizer import Recognizer
from asr.reports.picture import PLAYED, audio_uri, picture
from asr.reports.render import address
from asr.scoring import ErrorReport, score
from asr.scoring.breakdown import Group, by_familiarity, by_field, by_seam, oracle
from asr.scoring.calibration import Calibration, calibration_if_known, correct_words
from asr.scoring.detection import Detection, detection
from asr.scoring.html import merge
from asr.scoring.snr import signal_to_noise
from asr.sources import AudioSource
from asr.text import normalize
from asr.transcript import Transcript

if TYPE_CHECKING:
    from asr.language_model import LanguageModel

# The worst utterances whose audio and picture are in the page; longer ones would make it heavy.
SHOWN = 50
SHOWN_SECONDS = 40.0


@dataclass(frozen=True)
class Evaluation:
    """One test set's result.

    Attributes:
        cuts, transcripts: those that could be read, in the manifest's order.
        report: their scores.
        best: scores of the best of each n-best list; None where no list holds two.
        elapsed: seconds of work, reading included.
        failures: what could not be read, or has no reference, each with its reason.
    """

    cuts: list[Cut]
    transcripts: list[Transcript]
    report: ErrorReport
    best: ErrorReport | None
    elapsed: float
    failures: list[str] = field(default_factory=list)

    @property
    def rtf(self) -> float:
        """Return the real-time factor: seconds of work for a second of audio, reading included."""
        seconds = sum(cut.duration for cut in self.cuts)
        return self.elapsed / seconds if seconds else 0.0

    def by_seam(self) -> list[Group]:
        """Count errors near the seams of long audio and away from them; nothing where no audio is long."""
        times = [[(word.start, word.end) for word in transcript.words] for transcript in self.transcripts]
        return by_seam(self.report, times, [transcript.seams for transcript in self.transcripts])


def evaluate(
    model: Recognizer,
    manifest: str | Path | Sequence[Cut],
    *,
    normalizer: str | None = None,
    batch_seconds: float | None = None,
    progress: Callable[[], object] = lambda: None,
) -> Evaluation:
    """Transcribe a test set and score it.

    Arguments: manifest, a file of cuts as `asr prepare` writes it, or the cuts; normalizer of both sides, the model's
    where none is named; batch_seconds as in `Recognizer.transcribe_many`; progress, called after each
    utterance. Raises ManifestError for a manifest that cannot be read; of its utterances, those that cannot be read or
    have no reference are the evaluation's `failures`.

    >>> from asr.recognizer import load
    >>> evaluate(load("an4", device="cpu"), "data/an4/cuts_dev.jsonl.gz").report.wer  # doctest: +SKIP
    0.0478
    >>> evaluate(load("an4", device="cpu"), [], normalizer="none").transcripts
    []
    """
    cuts = load_cuts(manifest) if isinstance(manifest, str | Path) else manifest
    normalizer = normalizer or model.bundle.normalizer
    texts = [text_of(cut) for cut in cuts]
    failures = [
        f"{cut.id}: has no transcript to compare with"
        for cut, text in zip(cuts, texts, strict=True)
        if text is None
    ]
    began = time.perf_counter()
    judged = [(cut, text) for cut, text in zip(cuts, texts, strict=True) if text is not None]
    readings = [_Reading(cut, model.sample_rate) for cut, _ in judged]
    transcripts: dict[int, Transcript] = {}
    sources = [AudioSource(reading.cut.id, reading.blocks, reading.cut.duration) for reading in readings]
    for place, outcome in model.transcribe_as_completed(sources, batch_seconds=batch_seconds):
        progress()
        if isinstance(outcome, Transcript):
            transcripts[place] = outcome
        else:
            failures.append(f"{sources[place].name}: {outcome}")
    elapsed = time.perf_counter() - began
    done = sorted(transcripts)
    references = [judged[i][1] for i in done]
    if normalizer == model.bundle.normalizer:
        # The model writes as its normalizer does, and scoring applies that once more: so do the references, for rules
        # that change what they wrote (English ones make 0351 of "zero three five one", and 351 of that).
        references = [normalize(text, normalizer) for text in references]
    return _scored(
        [readings[i] for i in done], [transcripts[i] for i in done], references, normalizer, elapsed, failures
    )


class _Reading:
    """A cut, and the signal-to-noise ratio of its samples once they were read."""

    def __init__(self, cut: Cut, sample_rate: int):
        self.cut, self.sample_rate = cut, sample_rate
        self.snr: float | None = None

    def blocks(self) -> Iterator[np.ndarray]:
        samples = read_samples(self.cut, self.sample_rate)
        self.snr = signal_to_noise(samples, self.sample_rate)
        yield samples


def _scored(
    readings: Sequence[_Reading],
    transcripts: list[Transcript],
    references: Sequence[str],
    normalizer: str,
    elapsed: float,
    failures: list[str],
) -> Evaluation:
    cuts = [reading.cut for reading in readings]
    fields = manifest_fields(cuts)
    # As estimated, if the manifest does not tell.
    fields.setdefault("snr", [reading.snr for reading in readings])
    options = {"ids": [cut.id for cut in cuts], "fields": fields, "normalizer": normalizer}
    texts = [transcript.text for transcript in transcripts]
    n_best = [[t.text, *(alternative.text for alternative in t.alternatives)] for t in transcripts]
    return Evaluation(
        cuts=cuts,
        transcripts=transcripts,
        report=score(references, texts, **options),
        best=oracle(references, n_best, **options) if any(len(texts) > 1 for texts in n_best) else None,
        elapsed=elapsed,
        failures=failures,
    )


def manifest_fields(cuts: Sequence[Cut]) -> dict[str, list]:
    """Return by column what a manifest tells of its utterances in words or numbers, None where it does not."""
    rows = []
    for cut in cuts:
        spoken = cut.supervisions[0]
        row: dict[str, Any] = {
            "speaker": speaker_of(cut),
            "gender": spoken.gender,
            "language": spoken.language,
        }
        row |= (
            {"duration": round(cut.duration, 3)}
            | (getattr(cut, "custom", None) or {})
            | (spoken.custom or {})
        )
        rows.append({name: value for name, value in row.items() if isinstance(value, str | int | float)})
    names = dict.fromkeys(
        name for row in rows for name in row if name not in ("id", "reference", "hypothesis")
    )
    return {name: [row.get(name) for row in rows] for name in names}


def check_fields(cuts: Sequence[Cut], asked: Sequence[tuple[str, list[float]]]) -> None:
    """Raise TextError for fields and ranges that errors cannot be broken down by, before hours of transcribing."""
    judged = [cut for cut in cuts if text_of(cut) is not None]
    texts = [text_of(cut) or "" for cut in judged]
    fields = {"snr": [0.0] * len(judged)} | manifest_fields(judged)
    perfect = score(texts, texts, fields=fields, bootstrap=0)
    for name, edges in asked:
        by_field(perfect, name, edges)


def reliability(evaluations: Mapping[str, Evaluation]) -> Calibration | None:
    """Return how right the words' confidences are; None without words, or where the normalizer joined or cut them."""
    whole = merge({name: evaluation.report for name, evaluation in evaluations.items()})
    return calibration_if_known(whole, word_confidences(evaluations))


def word_confidences(evaluations: Mapping[str, Evaluation]) -> list[list[float]]:
    """Return the confidences of each utterance's words, set after set."""
    transcripts = [t for evaluation in evaluations.values() for t in evaluation.transcripts]
    return [[word.confidence for word in transcript.words] for transcript in transcripts]


def word_surprises(evaluations: Mapping[str, Evaluation], lm: "LanguageModel") -> list[list[float]]:
    """Return the surprises of each utterance's words, set after set: negated natural log-probabilities.

    The language model reads what was recognized, normalized as it was scored. A word that it cannot spell has NaN.
    """
    texts = [text for evaluation in evaluations.values() for text in evaluation.report.hypotheses]
    return [(-scored.log_probs[:-1]).tolist() for scored in lm.score(texts)]


def wrong_words(evaluations: Mapping[str, Evaluation], surprises: list[list[float]]) -> Detection | None:
    """Return how well confidences and surprises find wrong words; None where words differ in number."""
    confidences = word_confidences(evaluations)
    reports = [evaluation.report for evaluation in evaluations.values()]
    right = [correct_words(report, index) for report in reports for index in range(report.utterances)]
    if not list(map(len, confidences)) == list(map(len, surprises)) == list(map(len, right)):
        return None
    return detection(confidences, surprises, right)


def training_words(manifests: Sequence[str], normalizer: str) -> set[str]:
    """Return the words of manifests of cuts, normalized. Raises ManifestError."""
    words: set[str] = set()
    for path in manifests:
        for text in manifest_texts(path):
            words.update(normalize(text, normalizer).split())
    return words


def trained_on(training: Mapping[str, Any]) -> list[str]:
    """Return the manifests that a bundle names as its training data, if all of them are still there."""
    named = training.get("train_manifests") or []
    manifests = [named] if isinstance(named, str) else list(named)
    return manifests if all(map(os.path.isfile, manifests)) else []


def familiarity(reports: Mapping[str, ErrorReport], words: set[str]) -> list[Group]:
    """Count the missed words that training held, and those that it did not."""
    return by_familiarity(merge(reports), words) if words else []


def with_distinct_ids(evaluations: Mapping[str, Evaluation]) -> dict[str, Evaluation]:
    """Put the set's name before all ids where sets share some, for a page to show each its own audio."""
    ids = [utterance for evaluation in evaluations.values() for utterance in evaluation.report.ids]
    if len(set(ids)) == len(ids):
        return dict(evaluations)

    def renamed(name: str, evaluation: Evaluation) -> Evaluation:
        ids = tuple(f"{name} {utterance}" for utterance in evaluation.report.ids)
        return replace(evaluation, report=replace(evaluation.report, ids=ids))

    return {name: renamed(name, evaluation) for name, evaluation in evaluations.items()}


def sounds_and_pictures(
    recognizer: Recognizer, evaluations: Mapping[str, Evaluation], page: Path
) -> tuple[dict[str, str], dict[str, str]]:
    """Return addresses of audio, and pictures, by utterance's id, for a page at `page`.

    The worst utterances' audio goes into the page, with a picture of each; the others' is linked where browsers
    can play the file.
    """
    audio = {
        name: address
        for evaluation in evaluations.values()
        for name, cut in zip(evaluation.report.ids, evaluation.cuts, strict=True)
        if (address := _link(cut, page))
    }
    pictures = {}
    for name, cut, transcript in _worst(evaluations):
        try:
            samples = read_samples(cut, recognizer.sample_rate)
        except AudioError:  # gone since it was read
            continue
        audio[name] = audio_uri(samples, recognizer.sample_rate)
        pictures[name] = utterance_picture(recognizer, samples, transcript)
    return audio, pictures


def _worst(evaluations: Mapping[str, Evaluation]) -> list[tuple[str, Cut, Transcript]]:
    ranked = [
        (-errors, place, name, cut, transcript)
        for place, evaluation in enumerate(evaluations.values())
        for name, cut, transcript, errors in zip(
            evaluation.report.ids,
            evaluation.cuts,
            evaluation.transcripts,
            evaluation.report.utterance_errors[:, :3].sum(axis=1).tolist(),
            strict=True,
        )
        if errors and cut.duration <= SHOWN_SECONDS
    ]
    ranked.sort(key=lambda item: item[:2])
    return [item[2:] for item in ranked[:SHOWN]]


def _link(cut: Cut, page: Path) -> str | None:
    """Return the address of a cut's stretch of its file, relative to the page; None for what browsers do not play."""
    file = file_of(cut)
    if file is None or Path(file).suffix.lower() not in PLAYED:
        return None
    start, end = cut.start, cut.start + cut.duration  # type: ignore[union-attr]
    return f"{address(file, page)}#t={start:.3f},{end:.3f}"


def utterance_picture(model: Recognizer, samples: np.ndarray, transcript: Transcript) -> str:
    """Return an SVG of an utterance: spectrogram, what the model found in each frame, and the words decoded of it."""
    return picture(
        spectrogram(samples, model.bundle.features),
        np.exp(model.log_probs(samples)),
        [token.replace(" ", "␣") for token in model.bundle.tokenizer.tokens],
        [(word.word, word.start, word.end) for word in transcript.words],
        len(samples) / model.sample_rate,
    )
