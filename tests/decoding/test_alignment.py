"""Forced alignment, and word edges found in the sound."""

import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers import log_probs_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import one_hot

from asr.decoding import align, greedy, loud_hops, word_edges
from asr.decoding.greedy import collapse
from asr.errors import AlignmentError

RATE = 16000


def test_agrees_with_greedy_on_what_greedy_heard():
    logits = torch.randn(1, 40, 6, generator=torch.Generator().manual_seed(1)) * 4
    (log_probs,) = log_probs_of(logits)
    (heard,) = greedy([log_probs])
    aligned = align(log_probs, heard.tokens)
    assert (aligned.tokens, aligned.frames) == (heard.tokens, heard.frames)
    assert aligned.confidences == pytest.approx(heard.confidences)


def test_the_text_decides_against_the_model():
    (log_probs,) = log_probs_of(one_hot(torch.tensor([[1, 0, 2, 0, 3]]), 4) * 9.0)
    aligned = align(log_probs, [1, 1, 3])
    assert (aligned.tokens, aligned.frames) == ([1, 1, 3], [(0, 0), (2, 2), (4, 4)])
    assert aligned.confidences[1] < 0.01 < aligned.confidences[0]


def test_texts_that_cannot_fit():
    with pytest.raises(AlignmentError, match=r"needs 3 frames for its 2 tokens and the audio has 2"):
        align(np.zeros((2, 3)), [1, 1])
    with pytest.raises(AlignmentError, match="no word"):
        align(np.zeros((2, 3)), [])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_agrees_with_torchaudio(data):
    """In the path, where no two have the same probability, and in what the path is worth, however it is."""
    forced_align = pytest.importorskip("torchaudio.functional").forced_align
    vocabulary = data.draw(st.integers(2, 6))
    tokens = data.draw(st.lists(st.integers(1, vocabulary - 1), min_size=1, max_size=12))
    needed = len(tokens) + sum(a == b for a, b in pairwise(tokens))
    frames = needed + data.draw(st.integers(0, 30))
    seed = data.draw(st.integers(0, 10**6))
    logits = torch.randn(1, frames, vocabulary, generator=torch.Generator().manual_seed(seed)) * 3
    (log_probs,) = log_probs_of(logits)
    with warnings.catch_warnings():  # of its end
        warnings.simplefilter("ignore")
        path, scores = forced_align(torch.from_numpy(log_probs)[None], torch.tensor([tokens]), blank=0)
    aligned = align(log_probs, tokens)
    assert aligned == collapse(path[0].numpy(), scores[0].numpy(), np.arange(frames))


def test_long_texts():
    tokens = np.random.default_rng(3).integers(1, 3, 400).tolist()
    path = np.repeat(tokens, 2).reshape(-1, 2)
    path[:, 1] = 0
    assert align(np.log(np.eye(3)[path.ravel()] + 1e-6), tokens).frames == [
        (2 * i, 2 * i) for i in range(400)
    ]


def test_what_is_impossible_or_no_number_aligns_all_the_same():
    log_probs = np.full((5, 3), -np.inf, np.float32)
    assert align(log_probs, [1, 2]).tokens == [1, 2]
    log_probs[:] = np.nan
    assert align(log_probs, [1, 1, 2]).tokens == [1, 1, 2]


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_edges_of_words_between_pauses(noise):
    truth = [(0.30, 0.62), (0.80, 1.10), (1.70, 2.05)]
    generator = np.random.default_rng(2)
    samples = noise * generator.standard_normal(int(2.6 * RATE))
    for start, end in truth:
        samples[int(start * RATE) : int(end * RATE)] += 0.3 * generator.standard_normal(
            int(end * RATE) - int(start * RATE)
        )
    cores = [(0.44, 0.48), (0.92, 0.96), (1.88, 1.92)]  # one frame each, somewhere inside
    edges = word_edges(loud_hops(samples.astype(np.float32), RATE), cores)
    assert np.abs(np.array(edges) - truth).max() < 0.025


def test_noise_in_a_long_pause_is_no_words():
    """Ten seconds of dishes between two words are neither's."""
    samples = np.random.default_rng(0).standard_normal(12 * RATE).astype(np.float32) * 0.1
    samples[: RATE // 2] *= 1e-3
    (first, second) = word_edges(loud_hops(samples, RATE), [(0.9, 1.0), (11.0, 11.1)])
    assert first == pytest.approx((0.5, 1.6), abs=0.03)
    assert second == pytest.approx((10.4, 11.7), abs=0.03)


def test_words_without_a_pause_share_the_time_between_them():
    samples = np.random.default_rng(0).standard_normal(RATE).astype(np.float32) * 0.1
    (first, second) = word_edges(loud_hops(samples, RATE), [(0.2, 0.24), (0.64, 0.68)])
    assert 0.24 < first[1] == second[0] < 0.64
    assert word_edges(loud_hops(samples, RATE), []) == []
    assert word_edges(loud_hops(samples[:0], RATE), [(0.0, 0.04)]) == [(0.0, 0.04)]
