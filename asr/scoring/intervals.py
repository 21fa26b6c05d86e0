"""Confidence intervals of error rates by resampling blocks: speakers, or utterances where speakers are
unknown.

Utterances of one speaker are alike, so resampling utterances (Bisani & Ney, 2004) promises too much; whole
speakers are drawn instead (blockwise: Liu et al., 2020). The interval is the bootstrap-t (Efron, 1982; Hall,
1988): each draw's deviation is measured in its own standard error, which keeps the promised coverage with the
ten to forty speakers of a usual test set, where plain percentiles of the draws come out too narrow.
`scripts/interval_coverage.py` shows both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

DRAWS = 2000
LEVEL = 0.95
SEED = 2004  # any; the same, so that the same transcripts give the same interval
FEWEST_SPEAKERS = 5  # with fewer, a draw too often holds one speaker alone and says nothing of the spread
FEW_ERRORS = 10
_CELLS = 10_000_000  # draws are made in pieces of at most so many counts (80 MB)


@dataclass(frozen=True)
class Bootstrap:
    """The bootstrap of a ratio sum(errors) / sum(lengths): the draws' ratios, and the interval."""

    draws: np.ndarray  # (draw,)
    interval: tuple[float, float]


def bootstrap(
    errors: np.ndarray, lengths: np.ndarray, draws: int = DRAWS, level: float = LEVEL, seed: int = SEED
) -> Bootstrap:
    """Resample blocks with replacement and return the bootstrap-t interval of sum(errors) / sum(lengths).

    `errors` and `lengths` are (block,) and whole: a speaker's errors and reference words, or, for two
    systems, the difference of their errors. Needs two blocks and one word at least.

    >>> errors, lengths = np.array([1, 9, 4, 3, 6, 2, 8, 5]), np.full(8, 50)
    >>> low, high = bootstrap(errors, lengths).interval
    >>> 0.05 < low < 38 / 400 < high < 0.16
    True
    """
    # Equal blocks are drawn together: one multinomial over the distinct ones is the same draw, and a million
    # utterances have only some hundred distinct pairs of errors and words.
    kinds, counts = np.unique(np.stack([errors, lengths], axis=1), axis=0, return_counts=True)
    estimate, spread = (float(value[0]) for value in _ratios(counts[None], kinds))
    generator = np.random.default_rng(seed)
    piece = max(1, _CELLS // len(counts))
    pieces = [
        _ratios(generator.multinomial(len(errors), counts / len(errors), min(piece, draws - done)), kinds)
        for done in range(0, draws, piece)
    ]
    ratios = np.concatenate([ratio for ratio, _ in pieces])
    deviations = (ratios - estimate) / np.concatenate([error for _, error in pieces])
    lower, upper = np.quantile(deviations, [(1 - level) / 2, (1 + level) / 2])
    return Bootstrap(ratios, (estimate - float(upper) * spread, estimate - float(lower) * spread))


def rate_interval(
    errors: np.ndarray, lengths: np.ndarray, draws: int = DRAWS, level: float = LEVEL
) -> tuple[float, float] | None:
    """Return the interval of an error rate, which cannot be negative; None where there are not two blocks or no
    word.

    With fewer than ten errors the draws know too little of what could have gone wrong (none at all, with
    none); the upper end is then no lower than for errors that fall independently (Poisson: Breslow & Day,
    1987).
    """
    if len(errors) < 2 or lengths.sum() == 0 or draws < 1:
        return None
    low, high = bootstrap(errors, lengths, draws, level).interval
    if (total := int(errors.sum())) < FEW_ERRORS:
        from statistics import NormalDist

        z = NormalDist().inv_cdf((1 + level) / 2)
        high = max(
            high, (total + 1) * (1 - 1 / (9 * (total + 1)) + z / (3 * sqrt(total + 1))) ** 3 / lengths.sum()
        )
    return max(0.0, low), float(high)


def _ratios(counts: np.ndarray, kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (draw,) ratios and their linearized standard errors; counts (draw, kind), kinds (kind, 2)."""
    errors, lengths = kinds.T.astype(float)
    blocks = counts[0].sum()
    total = np.maximum(counts @ lengths, 1)  # a draw may hold empty references only
    ratio = (counts @ errors) / total
    residual = (
        counts @ errors**2 - 2 * ratio * (counts @ (errors * lengths)) + ratio**2 * (counts @ lengths**2)
    )
    # No total is known better than to one error: the floor matters for draws without a spread of their own.
    return ratio, np.sqrt(np.maximum(residual * blocks / (blocks - 1), 1)) / total


def blocks(speakers: Sequence[str | None] | None, utterances: int) -> tuple[np.ndarray, str]:
    """Return the number of each utterance's block, and what the blocks are: "speakers", or "utterances" without enough
    of them.

    >>> blocks(["ann", "bob", "ann", "cy", "di", "eve"], 6)
    (array([0, 1, 0, 2, 3, 4]), 'speakers')
    """
    if speakers is not None and None not in speakers:
        names, numbers = np.unique(np.array(speakers, dtype=object).astype(str), return_inverse=True)
        if len(names) >= FEWEST_SPEAKERS:
            return numbers, "speakers"
    return np.arange(utterances), "utterances"


def block_sums(numbers: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the sums of (utterance,) whole values over their blocks: (block,) int64."""
    return np.bincount(numbers, weights=values).astype(np.int64)
