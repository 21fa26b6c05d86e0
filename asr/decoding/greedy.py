"""Greedy CTC decoding: the best token of every frame, repeats merged, blanks removed (Graves et al. 2006)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from asr.text import BLANK


@dataclass(frozen=True)
class Hypothesis:
    """A decoded utterance.

    Attributes:
        tokens: token ids without blanks.
        frames: for each token its first and last frame, in frames of logits.
        confidences: for each token the highest posterior among its frames, in [0, 1].
        score: log probability of the path, the sum over frames.
    """

    tokens: list[int]
    frames: list[tuple[int, int]]
    confidences: list[float]
    score: float


def greedy(logits: Tensor, lengths: Tensor) -> list[Hypothesis]:
    """Decode a batch greedily.

    Arguments: logits (batch, frame, token), unnormalised or log probabilities, blank at 0; lengths (batch,) int64.
    Returns one Hypothesis an utterance; one of length 0 is empty.

    >>> path = torch.tensor([[0, 1, 1, 0, 1, 2]])
    >>> greedy(torch.nn.functional.one_hot(path, 3) * 9.0, torch.tensor([6]))[0].tokens
    [1, 1, 2]
    """
    scores, path = logits.float().log_softmax(-1).max(-1)
    scores, path, lengths = scores.cpu(), path.cpu(), lengths.cpu()
    return [_collapse(scores[i, :n], path[i, :n]) for i, n in enumerate(lengths.tolist())]


def _collapse(scores: Tensor, path: Tensor) -> Hypothesis:
    tokens, counts = torch.unique_consecutive(path, return_counts=True)
    ends = counts.cumsum(0)
    starts = ends - counts
    spoken = tokens != BLANK
    runs = list(zip(starts[spoken].tolist(), ends[spoken].tolist(), strict=True))
    return Hypothesis(
        tokens=tokens[spoken].tolist(),
        frames=[(start, end - 1) for start, end in runs],
        confidences=[scores[start:end].max().exp().item() for start, end in runs],
        score=scores.sum().item(),
    )
