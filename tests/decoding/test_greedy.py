"""Greedy decoding of paths written by hand."""

import itertools
from dataclasses import replace

import pytest
import torch
from helpers import log_probs_of
from torch.nn.functional import one_hot

from asr.decoding import Hypothesis, concatenate, greedy


def test_repeats_merge_and_blanks_part():
    path = torch.tensor([[0, 1, 1, 0, 1, 2], [2, 2, 1, 0, 0, 0]])
    first, second = greedy(log_probs_of(one_hot(path, 3) * 9.0, [6, 2]))
    assert first.tokens == [1, 1, 2]
    assert first.frames == [(1, 2), (4, 4), (5, 5)]
    assert second.tokens == [2]


def test_confidence_is_the_highest_posterior_of_the_frames():
    logits = torch.tensor([[[0.3, 0.7], [0.1, 0.9]]]).log()
    (hypothesis,) = greedy(log_probs_of(logits))
    assert hypothesis.confidences == pytest.approx([0.9])
    assert hypothesis.score == pytest.approx(torch.tensor(0.7 * 0.9).log().item())


def test_silence_is_empty():
    for hypothesis in greedy(log_probs_of(torch.zeros(2, 3, 4), [0, 3])):
        assert hypothesis.tokens == []


def test_parts_of_a_recording_are_concatenated():
    path = torch.tensor([0, 1, 1, 0, 0, 2, 0, 1])
    (log_probs,) = log_probs_of(one_hot(path, 3)[None] * 9.0)
    (whole,) = greedy([log_probs])
    parts = [(first, greedy([log_probs[first:last]])[0]) for first, last in [(0, 4), (4, 8)]]
    joined = concatenate(parts)
    assert (joined.tokens, joined.frames, joined.confidences) == (
        whole.tokens,
        whole.frames,
        whole.confidences,
    )
    assert joined.score == pytest.approx(whole.score)
    assert concatenate([]).tokens == []


def test_the_n_best_of_the_parts_give_the_n_best_of_the_whole():
    def ranked(*scored):
        first, *others = (Hypothesis([token], [(0, 0)], [1.0], score) for token, score in scored)
        return replace(first, alternatives=tuple(others))

    lists = [[(1, -1.0), (2, -1.5), (3, -9.0)], [(4, 0.0), (5, -0.2)], [(6, -2.0), (7, -2.1), (8, -2.4)]]
    joined = concatenate([(i, ranked(*options)) for i, options in enumerate(lists)])
    every = sorted(itertools.product(*lists), key=lambda options: -sum(score for _, score in options))
    assert [one.tokens for one in (joined, *joined.alternatives)] == [
        [token for token, _ in options] for options in every[:3]
    ]
    assert joined.alternatives[1].frames == [(0, 0), (1, 1), (2, 2)]
