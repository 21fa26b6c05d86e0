"""What `asr evaluate` computes: transcripts of a test set, scored, and what a report tells and shows of them."""

import gzip
import json
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from asr.cli.lm import cut_texts
from asr.data.cuts import Cut, file_of, speaker_of, text_of
from asr.data.reading import read_samples
from asr.errors import AudioError, ManifestError
from asr.features.spectrogram import spectrogram
from asr.recognizer import Recognizer
from asr.reports.picture import PLAYED, audio_uri, picture
from asr.reports.render import address
from asr.scoring import ErrorReport, score
from asr.scoring.breakdown import Group, by_familiarity, by_field, by_seam, oracle
from asr.scoring.calibration import Calibration, calibration_if_known
from asr.scoring.html import merge
from asr.scoring.snr import signal_to_noise
from asr.sources import AudioSource
from asr.text import normalize
from asr.transcript import Transcript

SHOWN = 50  # of the worst utterances, with their audio and picture in the page
SHOWN_SECONDS = 40.0  # longer ones would make the page heavy


@dataclass(frozen=True)
class Evaluation:
    """One test set's result.

    Attributes:
        cuts, transcripts: those that could be read, in the manifest's order.
        report: their scores.
        best: scores of the best of each n-best list; None where no list holds two.
        elapsed: seconds of work, reading included.
    """

    cuts: list[Cut]
    transcripts: list[Transcript]
    report: ErrorReport
    best: ErrorReport | None
    elapsed: float

    @property
    def rtf(self) -> float:
        """Real-time factor: seconds of work for a second of audio, reading included."""
        seconds = sum(cut.duration for cut in self.cuts)
        return self.elapsed / seconds if seconds else 0.0

    def by_seam(self) -> list[Group]:
        """Count errors near the seams of long audio and away from them; nothing where no audio is long."""
        times = [[(word.start, word.end) for word in transcript.words] for transcript in self.transcripts]
        return by_seam(self.report, times, [transcript.seams for transcript in self.transcripts])


def evaluate(
    recognizer: Recognizer,
    cuts: Sequence[Cut],
    normalizer: str,
    batch_seconds: float | None,
    failures: list[str],
    progress: Callable[[], object] = lambda: None,
) -> Evaluation:
    """Transcribe and score a set; what cannot be read, or has no reference, goes to `failures` with its reason."""
    snr: list[float | None] = [None] * len(cuts)

    def blocks(index: int) -> Iterator[np.ndarray]:
        samples = read_samples(cuts[index], recognizer.sample_rate)
        snr[index] = signal_to_noise(samples, recognizer.sample_rate)
        yield samples

    texts = list(map(text_of, cuts))
    judged = [index for index, text in enumerate(texts) if text is not None]
    failures += [
        f"{cut.id}: has no transcript to compare with"
        for cut, text in zip(cuts, texts, strict=True)
        if text is None
    ]
    sources = [AudioSource(cuts[i].id, lambda i=i: blocks(i), cuts[i].duration) for i in judged]
    transcripts: dict[int, Transcript] = {}
    began = time.perf_counter()
    for place, outcome in recognizer.transcribe_as_completed(sources, batch_seconds=batch_seconds):
        progress()
        if isinstance(outcome, Transcript):
            transcripts[judged[place]] = outcome
        else:
            failures.append(f"{sources[place].name}: {outcome}")
    elapsed = time.perf_counter() - began

    done = sorted(transcripts)
    heard = [transcripts[i] for i in done]
    n_best = [[one.text, *(other.text for other in one.alternatives)] for one in heard]
    references = [texts[i] or "" for i in done]
    if normalizer == recognizer.bundle.normalizer:
        # The model writes as its normalizer does, and scoring passes that on once more: so do the references, for
        # rules that change what they wrote (English ones make 0351 of "zero three five one", and 351 of that).
        references = [normalize(text, normalizer) for text in references]
    fields = manifest_fields([cuts[i] for i in done])
    options = {
        "ids": [cuts[i].id for i in done],
        "fields": fields | {"snr": fields.get("snr", [snr[i] for i in done])},  # as estimated, if not known
        "normalizer": normalizer,
    }
    return Evaluation(
        cuts=[cuts[i] for i in done],
        transcripts=heard,
        report=score(references, [one.text for one in heard], **options),
        best=oracle(references, n_best, **options) if any(len(texts) > 1 for texts in n_best) else None,
        elapsed=elapsed,
    )


def manifest_fields(cuts: Sequence[Cut]) -> dict[str, list]:
    """Give by column what a manifest says of its utterances in words or numbers, None where it does not."""
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
    """Refuse fields and ranges that errors cannot be broken down by, before hours are spent on transcripts.

    Raises TextError, as `by_field` would on the result.
    """
    judged = [cut for cut in cuts if text_of(cut) is not None]
    texts = [text_of(cut) or "" for cut in judged]
    fields = {"snr": [0.0] * len(judged)} | manifest_fields(judged)
    perfect = score(texts, texts, fields=fields, bootstrap=0)
    for field, edges in asked:
        by_field(perfect, field, edges)


def reliability(evaluations: Mapping[str, Evaluation]) -> Calibration | None:
    """Judge the words' confidences; None where the normalizer joined or cut words, and where there is no word."""
    whole = merge({name: evaluation.report for name, evaluation in evaluations.items()})
    confidences = [
        [word.confidence for word in transcript.words]
        for evaluation in evaluations.values()
        for transcript in evaluation.transcripts
    ]
    return calibration_if_known(whole, confidences)


def training_words(manifests: Sequence[str], normalizer: str) -> set[str]:
    """Give the words of manifests of cuts, normalized. Raises ManifestError."""
    words: set[str] = set()
    for path in map(Path, manifests):
        try:
            with (
                gzip.open(path, "rt", encoding="utf-8")
                if path.suffix == ".gz"
                else path.open(encoding="utf-8") as lines
            ):
                for line in lines:
                    for text in cut_texts(json.loads(line)):
                        words.update(normalize(text, normalizer).split())
        except FileNotFoundError:
            raise ManifestError(f"there is no manifest {path} of training words") from None
        except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
            raise ManifestError(f"{path} is not a manifest of cuts, or is damaged: {error!r}") from error
    return words


def trained_on(training: Mapping[str, Any]) -> list[str]:
    """Give the manifests that a bundle says it was trained on, if all of them are still there."""
    named = training.get("train_manifests") or []
    manifests = [named] if isinstance(named, str) else list(named)
    return manifests if all(map(os.path.isfile, manifests)) else []


def familiarity(reports: Mapping[str, ErrorReport], words: set[str]) -> list[Group]:
    """Count the missed words that training held, and those that it did not."""
    return by_familiarity(merge(reports), words) if words else []


def told_apart(evaluations: Mapping[str, Evaluation]) -> dict[str, Evaluation]:
    """Put the set's name before all ids where sets share some, for a page to show each its own audio."""
    ids = [name for one in evaluations.values() for name in one.report.ids]
    if len(set(ids)) == len(ids):
        return dict(evaluations)
    return {
        name: replace(one, report=replace(one.report, ids=tuple(f"{name} {each}" for each in one.report.ids)))
        for name, one in evaluations.items()
    }


def sounds_and_pictures(
    recognizer: Recognizer, evaluations: Mapping[str, Evaluation], page: Path
) -> tuple[dict[str, str], dict[str, str]]:
    """Give addresses of audio, and pictures, by utterance's id, for a page at `page`.

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
        pictures[name] = _picture(recognizer, samples, transcript)
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
    """Address a cut's stretch of its file, relative to the page; None for what browsers do not play."""
    file = file_of(cut)
    if file is None or Path(file).suffix.lower() not in PLAYED:
        return None
    start, end = cut.start, cut.start + cut.duration  # type: ignore[union-attr]
    return f"{address(file, page)}#t={start:.3f},{end:.3f}"


def _picture(recognizer: Recognizer, samples: np.ndarray, transcript: Transcript) -> str:
    return picture(
        spectrogram(samples, recognizer.bundle.features),
        np.exp(recognizer.log_probs(samples)),
        [token.replace(" ", "␣") for token in recognizer.bundle.tokenizer.tokens],
        [(word.word, word.start, word.end) for word in transcript.words],
        len(samples) / recognizer.sample_rate,
    )
