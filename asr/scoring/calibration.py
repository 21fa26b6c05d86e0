"""Do confidences mean what they say? Of the words given 0.8, eight in ten should be right."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from asr.scoring.align import DELETION, EQUAL
from asr.scoring.report import ErrorReport

BINS = 10


@dataclass(frozen=True)
class Calibration:
    """The expected calibration error (Naeini et al., 2015), and the bins it comes from.

    `bins` are (words, mean confidence, share that is right), the least confident first, empty ones left out;
    `error` is the mean gap between the last two, weighted by words.
    """

    error: float
    words: int
    bins: tuple[tuple[int, float, float], ...]


def expected_calibration_error(
    confidences: Sequence[float] | np.ndarray, correct: Sequence[bool] | np.ndarray, bins: int = BINS
) -> Calibration:
    """Return how well confidences in [0, 1], (word,), fit which words are right, (word,), in bins of equal width.

    >>> round(expected_calibration_error([0.9, 0.9, 0.2, 0.2], [True, True, False, True]).error, 3)
    0.2
    """
    confidence, right = np.asarray(confidences, dtype=float), np.asarray(correct, dtype=float)
    if confidence.shape != right.shape or confidence.ndim != 1:
        raise ValueError(f"{confidence.shape} confidences for {right.shape} words; expected one each")
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError("confidences must lie in [0, 1]")
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    sizes = np.bincount(place, minlength=bins)
    kept = np.flatnonzero(sizes)
    means = np.bincount(place, confidence, minlength=bins)[kept] / sizes[kept]
    shares = np.bincount(place, right, minlength=bins)[kept] / sizes[kept]
    error = float((sizes[kept] * np.abs(means - shares)).sum() / max(1, len(confidence)))
    rows = zip(sizes[kept].tolist(), means.tolist(), shares.tolist(), strict=True)
    return Calibration(error, len(confidence), tuple(rows))


def calibration(report: ErrorReport, confidences: Sequence[Sequence[float]]) -> Calibration:
    """Return how well confidences fit, of the hypotheses' words: a list for each utterance, a number for each word."""
    right = [correct_words(report, index) for index in range(report.utterances)]
    for index, (given, known) in enumerate(zip(confidences, right, strict=True)):
        if len(given) != len(known):
            name = report.ids[index]
            raise ValueError(f"{name}: {len(given)} confidences for {len(known)} words; expected one each")
    return expected_calibration_error(
        list(chain.from_iterable(confidences)), list(chain.from_iterable(right))
    )


def calibration_if_known(
    report: ErrorReport, confidences: Sequence[Sequence[float]] | None
) -> Calibration | None:
    """Return how well confidences fit; None unless each word has one, as where normalizing joined words."""
    counts = [len(text.split()) for text in report.hypotheses]
    if confidences is None or not sum(counts) or list(map(len, confidences)) != counts:
        return None
    return calibration(report, confidences)


def correct_words(report: ErrorReport, index: int) -> list[bool]:
    """Return for each word of a hypothesis whether it is aligned with the same word of the reference."""
    return [column.kind == EQUAL for column in report.alignment(index) if column.kind != DELETION]
