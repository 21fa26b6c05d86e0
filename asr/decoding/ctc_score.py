"""How probable a text is by CTC, over all its paths."""

from collections.abc import Sequence

import numpy as np

from asr.text import BLANK


def ctc_scores(log_probs: np.ndarray, texts: Sequence[Sequence[int]]) -> np.ndarray:
    """Return the log-probability (text,) of each text, summed over its paths (Graves et al. 2006).

    Arguments: log_probs (frame, token), blank at 0; texts, token ids. One that needs more frames than there are has
    -inf. The texts go through the frames together, with probabilities that are scaled in every frame.

    >>> log_probs = np.log(np.full((2, 3), 1 / 3, np.float32))
    >>> np.exp(ctc_scores(log_probs, [[1], [1, 2], [1, 1]])).round(3)
    array([0.333, 0.111, 0.   ])
    """
    states = 2 * max(map(len, texts)) + 1
    labels = np.full((len(texts), states), BLANK)
    for row, text in zip(labels, texts, strict=True):
        row[1 : 2 * len(text) : 2] = text
    skips = np.zeros(labels.shape)
    skips[:, 3::2] = labels[:, 3::2] != labels[:, 1:-2:2]
    probs = np.exp(log_probs.astype(np.float64))
    # Two states in front that no path reaches make the moves slices.
    paths = np.zeros((len(texts), states + 2))
    paths[:, 2] = 1.0  # as before the first frame
    scores = np.zeros(len(texts))
    with np.errstate(divide="ignore", invalid="ignore"):
        for place, frame in enumerate(probs):
            moved = paths[:, 2:] + paths[:, 1:-1] + skips * paths[:, :-2]
            if place == 0:
                moved[:, 2:] = 0.0
            moved *= frame[labels]
            scale = moved.max(1)
            scores += np.log(scale)
            paths[:, 2:] = moved / np.where(scale > 0, scale, 1.0)[:, None]
        ends = np.array(
            [paths[row, 2 * len(text) + 1 : 2 * len(text) + 3].sum() for row, text in enumerate(texts)]
        )
        return np.where(np.isfinite(scores), scores + np.log(ends), -np.inf)
