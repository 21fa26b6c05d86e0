"""Greedy decoding of paths written by hand."""

import pytest
import torch
from torch.nn.functional import one_hot

from asr.decoding import greedy


def test_repeats_merge_and_blanks_part():
    path = torch.tensor([[0, 1, 1, 0, 1, 2], [2, 2, 1, 0, 0, 0]])
    first, second = greedy(one_hot(path, 3) * 9.0, torch.tensor([6, 2]))
    assert first.tokens == [1, 1, 2]
    assert first.frames == [(1, 2), (4, 4), (5, 5)]
    assert second.tokens == [2]


def test_confidence_is_the_highest_posterior_of_the_frames():
    logits = torch.tensor([[[0.3, 0.7], [0.1, 0.9]]]).log()
    (hypothesis,) = greedy(logits, torch.tensor([2]))
    assert hypothesis.confidences == pytest.approx([0.9])
    assert hypothesis.score == pytest.approx(torch.tensor(0.7 * 0.9).log().item())


def test_silence_is_empty():
    for hypothesis in greedy(torch.zeros(2, 3, 4), torch.tensor([0, 3])):
        assert hypothesis.tokens == []
