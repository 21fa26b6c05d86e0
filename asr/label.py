"""Pseudo-labels: transcripts of untranscribed speech to train on, kept where the model is sure (Lee 2013)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from asr.data.corpora.utterances import Utterance
from asr.errors import AsrError
from asr.evaluation import Evaluation
from asr.recognizer import Recognizer
from asr.transcript import Segment, Transcript

MARGIN = 0.2  # seconds around a segment's words, where the pause beside it has them
THRESHOLDS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99)


@dataclass(frozen=True)
class Label:
    """A stretch of speech, what was recognized in it, and how sure that is.

    Attributes:
        id: of the file, with the number of the stretch.
        audio: the file.
        start, end: in seconds of it.
        text: the words.
        confidence: the mean of the words' confidences.
        words: how many there are.
    """

    id: str
    audio: Path
    start: float
    end: float
    text: str
    confidence: float
    words: int

    @property
    def doubt(self) -> float:
        """Return the wrong words that are expected in a second: what transcribing it by hand would mend.

        >>> Label("a-0", Path("a.wav"), 0.0, 2.0, "one two", 0.5, 2).doubt
        0.5
        """
        return (1 - self.confidence) * self.words / (self.end - self.start)

    def utterance(self) -> Utterance:
        """Return what a manifest has of it; its confidence stands beside the text."""
        traits = {"confidence": f"{self.confidence:.4f}"}
        return Utterance(
            self.id,
            self.audio,
            self.text,
            start=self.start,
            duration=round(self.end - self.start, 3),
            traits=traits,
        )


def label(
    model: Recognizer,
    paths: Sequence[str | Path],
    batch_seconds: float | None = None,
    progress: Callable[[float], object] | None = None,
) -> Iterator[tuple[str, list[Label] | AsrError]]:
    """Transcribe files; yield each with the labels of its segments, or with the reason why it cannot be read.

    Long files are divided at their pauses. Arguments: batch_seconds and progress as in `Recognizer.transcribe_many`.
    """
    outcomes = model.transcribe_many(
        list(paths), errors="return", batch_seconds=batch_seconds, progress=progress
    )
    for path, outcome in zip(paths, outcomes, strict=True):
        yield str(path), outcome if isinstance(outcome, AsrError) else labels_of(Path(path), outcome)


def labels_of(path: Path, transcript: Transcript) -> list[Label]:
    """Return the labels of a transcript's segments, each with as much of the pauses around it as MARGIN.

    >>> from asr.transcript import Word
    >>> words = (Word("one", 1.0, 1.5, 0.9), Word("two", 3.0, 3.5, 0.7))
    >>> [(x.id, x.start, x.end, x.text) for x in labels_of(Path("a/b.wav"), Transcript("one two", words, 3.6))]
    [('b-000', 0.8, 1.7, 'one'), ('b-001', 2.8, 3.6, 'two')]
    """
    segments = transcript.segments
    middles = [(left.end + right.start) / 2 for left, right in pairwise(segments)]
    bounds = zip([0.0, *middles], [*middles, transcript.duration], strict=True) if segments else ()
    return [
        _label(f"{path.stem}-{index:03}", path, segment, first, last)
        for index, (segment, (first, last)) in enumerate(zip(segments, bounds, strict=True))
    ]


def _label(name: str, path: Path, segment: Segment, first: float, last: float) -> Label:
    start, end = max(first, segment.start - MARGIN), min(last, segment.end + MARGIN)
    confidence = float(np.mean([word.confidence for word in segment.words]))
    return Label(name, path, round(start, 3), round(end, 3), segment.text, confidence, len(segment.words))


@dataclass(frozen=True)
class Bound:
    """What a least confidence keeps of a held-out set: the share of its words, and their WER."""

    confidence: float
    share: float
    wer: float


def held_out(evaluation: Evaluation) -> list[Bound]:
    """Return what each of THRESHOLDS keeps of an evaluated set, by the mean confidence of an utterance's words.

    A bound that keeps nothing is left out. The first keeps everything.
    """
    errors = evaluation.report.utterance_errors
    confidences = np.array([mean_confidence(transcript) for transcript in evaluation.transcripts])
    bounds = []
    for threshold in (0.0, *THRESHOLDS):
        kept = errors[confidences >= threshold]
        if len(kept) and (words := int(kept[:, 3].sum())):
            share = words / max(1, int(errors[:, 3].sum()))
            bounds.append(Bound(threshold, share, float(kept[:, :3].sum()) / words))
    return bounds


def mean_confidence(transcript: Transcript) -> float:
    """Return the mean confidence of a transcript's words, 0 for one without words."""
    return float(np.mean([word.confidence for word in transcript.words])) if transcript.words else 0.0


def least_confidence(bounds: Sequence[Bound], max_wer: float) -> float:
    """Return the least confidence that keeps the WER of a held-out set at or below `max_wer`.

    Raises AsrError where none does.

    >>> least_confidence([Bound(0.0, 1.0, 0.3), Bound(0.8, 0.6, 0.09), Bound(0.9, 0.4, 0.05)], 0.1)
    0.8
    """
    good = [bound.confidence for bound in bounds if bound.wer <= max_wer]
    if not good:
        lowest = min((bound.wer for bound in bounds), default=float("nan"))
        raise AsrError(
            f"no confidence keeps the held-out WER at {100 * max_wer:.1f} %; the lowest is {100 * lowest:.1f} %. Allow "
            "more, or train a better model first"
        )
    return min(good)


def most_worth_transcribing(labels: Sequence[Label], count: int) -> list[Label]:
    """Return the labels in which a second of work by hand mends the most words, the best first."""
    return sorted(labels, key=lambda item: -item.doubt)[:count]
