"""How well do numbers of words, such as confidences, find the wrong ones? The area under the ROC curve."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FOLDS = 2
ROUNDS, RIDGE = 25, 1e-3  # of Newton's method, and what keeps weights finite where classes can be told apart


def roc_area(scores: Sequence[float] | np.ndarray, wrong: Sequence[bool] | np.ndarray) -> float:
    """Return the chance that a wrong word has a higher score than a right one, ties counting half; NaN for one kind.

    Arguments: scores (word,); wrong (word,). This is the Mann-Whitney statistic (Hanley & McNeil 1982).

    >>> roc_area([0.1, 0.4, 0.35, 0.8], [False, False, True, True])
    0.75
    """
    scores, wrong = np.asarray(scores, float), np.asarray(wrong, bool)
    positives, negatives = int(wrong.sum()), int((~wrong).sum())
    if not positives or not negatives:
        return float("nan")
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # the mean rank of equal scores, from 1
    return float((ranks[wrong].sum() - positives * (positives + 1) / 2) / (positives * negatives))


@dataclass(frozen=True)
class Detection:
    """ROC areas of finding wrong words: by low confidence, by a language model's surprise, and by both.

    `both` is a logistic regression that is fitted on every other utterance and measured on the rest, in turns.
    """

    words: int
    wrong: int
    confidence: float
    surprise: float
    both: float


def detection(
    confidences: Sequence[Sequence[float]],
    surprises: Sequence[Sequence[float]],
    right: Sequence[Sequence[bool]],
) -> Detection:
    """Return how well confidences in [0, 1] and surprises, in nats, find wrong words: a list for each utterance.

    A surprise of NaN, of a word that the language model cannot spell, counts as the mean one.
    """
    utterance = np.repeat(np.arange(len(right)), [len(words) for words in right])
    confidence, surprise, correct = (
        np.concatenate([np.asarray(words, float) for words in side] or [np.zeros(0)])
        for side in (confidences, surprises, right)
    )
    wrong = correct == 0
    known = np.isfinite(surprise)
    surprise = np.where(known, surprise, surprise[known].mean() if known.any() else 0.0)
    clipped = np.clip(confidence, 1e-4, 1 - 1e-4)
    features = np.stack([np.log(clipped / (1 - clipped)), surprise], 1)
    both = np.zeros(len(wrong))
    for fold in range(FOLDS):
        held = utterance % FOLDS == fold
        both[held] = _logistic(features[~held], wrong[~held], features[held])
    areas = (roc_area(-confidence, wrong), roc_area(surprise, wrong), roc_area(both, wrong))
    return Detection(len(wrong), int(wrong.sum()), *areas)


def _logistic(features: np.ndarray, wrong: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Fit a logistic regression by Newton's method; return its chances of being wrong for other features."""
    if not len(features):
        return np.zeros(len(of))
    mean, scale = features.mean(0), features.std(0) + 1e-9
    x, other = (np.column_stack([np.ones(len(rows)), (rows - mean) / scale]) for rows in (features, of))
    weights = np.zeros(x.shape[1])
    for _ in range(ROUNDS):
        chance = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        gradient = x.T @ (wrong - chance) - RIDGE * weights
        curvature = (x * (chance * (1 - chance))[:, None]).T @ x + RIDGE * np.eye(len(weights))
        weights = weights + np.linalg.solve(curvature, gradient)
    return 1 / (1 + np.exp(-np.clip(other @ weights, -30, 30)))
