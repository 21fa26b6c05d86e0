"""The log-probability of texts over all paths against that of PyTorch's loss."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from asr.decoding.ctc_score import ctc_scores


def log_probs_of(frames, tokens, seed):
    logits = 3 * np.random.default_rng(seed).standard_normal((frames, tokens))
    return (logits - np.logaddexp.reduce(logits, 1, keepdims=True)).astype(np.float32)


def by_torch(log_probs, text):
    return -functional.ctc_loss(
        torch.from_numpy(log_probs.astype(np.float64))[:, None],
        torch.tensor([text], dtype=torch.int64),
        [len(log_probs)],
        [len(text)],
        reduction="sum",
    ).item()


@pytest.mark.parametrize("frames", [1, 2, 5, 40, 600])
def test_scores_are_those_of_torch(frames):
    """Texts of any length together, with tokens that repeat; those that need more frames cannot be."""
    log_probs, generator = log_probs_of(frames, 4, frames), np.random.default_rng(frames)
    texts = [generator.integers(1, 4, length).tolist() for length in (0, 1, 2, 3, 5, 12, 30)]
    texts += [[2, 2], [1, 1, 1], [3, 1, 1, 3]]
    expected = [by_torch(log_probs, text) for text in texts]
    np.testing.assert_allclose(ctc_scores(log_probs, texts), expected, rtol=1e-6)


def test_each_text_has_the_score_that_it_has_alone():
    log_probs, texts = log_probs_of(20, 5, 0), [[1], [4, 4, 2, 1, 3], [], [2] * 12]
    together = ctc_scores(log_probs, texts)
    alone = [ctc_scores(log_probs, [text])[0] for text in texts]
    np.testing.assert_allclose(together, alone, rtol=1e-12)
    assert together[3] == -np.inf  # twelve tokens and eleven blanks in twenty frames


def test_what_no_path_can_spell():
    log_probs = np.full((2, 3), -np.inf, np.float32)
    log_probs[:, :2] = np.log([[0.5, 0.5], [0.25, 0.75]])
    scores = ctc_scores(log_probs, [[2], [1], [1, 2], []])
    np.testing.assert_allclose(np.exp(scores), [0, 0.5 * 0.25 + 0.5 * 0.75 + 0.5 * 0.75, 0, 0.125], rtol=1e-6)
    assert (ctc_scores(np.full((3, 2), np.nan, np.float32), [[1], []]) == -np.inf).all()
