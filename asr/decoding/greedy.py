"""Greedy CTC decoding: the best token of every frame, repeats merged, blanks removed (Graves et al. 2006)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from asr.text import BLANK


@dataclass(frozen=True)
class Hypothesis:
    """A decoded utterance.

    Attributes:
        tokens: token ids without blanks.
        frames: for each token its first and last frame, in frames of logits.
        confidences: for each token the highest posterior among its frames, in [0, 1].
        score: log probability of the path, the sum over frames; of a beam search, what it ranks by: the language
            model's weighted score, the bonus for words and the blank penalty included.
        alternatives: the next best hypotheses, best first, where several were asked for.
        lm_score: log probability that a recurrent language model gives the text, where one rescored it; None elsewhere.
    """

    tokens: list[int]
    frames: list[tuple[int, int]]
    confidences: list[float]
    score: float
    alternatives: tuple["Hypothesis", ...] = ()
    lm_score: float | None = None


def greedy(log_probs: Sequence[np.ndarray]) -> list[Hypothesis]:
    """Decode utterances greedily.

    Arguments: log_probs (frame, token) of each, blank at 0. Returns one Hypothesis an utterance; one without frames is
    empty.

    >>> path = np.array([0, 1, 1, 0, 1, 2])
    >>> greedy([np.log(np.eye(3, dtype=np.float32)[path] + 1e-9)])[0].tokens
    [1, 1, 2]
    """
    return [_best_path(utterance) for utterance in log_probs]


def _best_path(log_probs: np.ndarray) -> Hypothesis:
    path = log_probs.argmax(-1)
    frames = np.arange(len(path))
    return collapse(path, log_probs[frames, path], frames)


# What was chosen for the stretches before, the first frame of this one, and what was chosen for it.
_Chosen = tuple["_Chosen | None", int, Hypothesis]


def concatenate(parts: Sequence[tuple[int, Hypothesis]]) -> Hypothesis:
    """Join hypotheses of consecutive stretches of one recording, each with the number of its first frame.

    The alternatives are the best combinations of the parts', as many as the part with most of them has.
    """
    most = max((1 + len(part.alternatives) for _, part in parts), default=1)
    best: list[tuple[float, _Chosen | None]] = [(0.0, None)]
    for first, part in parts:
        options = (part, *part.alternatives)
        combined: list[tuple[float, _Chosen | None]] = [
            (score + option.score, (before, first, option)) for score, before in best for option in options
        ]
        best = sorted(combined, key=lambda pair: -pair[0])[:most]
    whole, *alternatives = (_joined(score, chosen) for score, chosen in best)
    return replace(whole, alternatives=tuple(alternatives))


def _joined(score: float, chosen: "_Chosen | None") -> Hypothesis:
    parts = []
    while chosen is not None:
        chosen, first, part = chosen
        parts.append((first, part))
    parts.reverse()
    lm_scores = [part.lm_score for _, part in parts if part.lm_score is not None]
    return Hypothesis(
        tokens=[token for _, part in parts for token in part.tokens],
        frames=[(first + start, first + end) for first, part in parts for start, end in part.frames],
        confidences=[confidence for _, part in parts for confidence in part.confidences],
        score=score,
        lm_score=sum(lm_scores) if lm_scores else None,
    )


def collapse(path: np.ndarray, scores: np.ndarray, frames: np.ndarray) -> Hypothesis:
    """Merge a path's repeats and remove its blanks.

    Arguments: path (frame,) token ids; scores (frame,) their log probabilities; frames (frame,) their numbers.
    """
    starts = np.flatnonzero(np.diff(path, prepend=-1))
    ends = np.append(starts[1:], len(path))[: len(starts)]
    runs = [(s, e) for s, e in zip(starts.tolist(), ends.tolist(), strict=True) if path[s] != BLANK]
    return Hypothesis(
        tokens=[int(path[start]) for start, _ in runs],
        frames=[(int(frames[start]), int(frames[end - 1])) for start, end in runs],
        confidences=[float(np.exp(scores[start:end].max())) for start, end in runs],
        score=float(scores.sum()),
    )
