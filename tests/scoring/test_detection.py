"""ROC areas of finding wrong words."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.scoring.detection import detection, roc_area


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30))
def test_the_area_is_the_share_of_pairs_in_order(words):
    scores, wrong = zip(*words, strict=True)
    pairs = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for a, bad in words
        if bad
        for b, also_bad in words
        if not also_bad
    ]
    expected = sum(pairs) / len(pairs) if pairs else math.nan
    assert roc_area(scores, wrong) == pytest.approx(expected, nan_ok=True)


def test_both_together_find_more():
    generator = np.random.default_rng(3)
    right = generator.random((200, 6)) < 0.7
    confidence = 1 / (1 + np.exp(-(1.5 * right + generator.standard_normal(right.shape))))
    surprise = 4 - 1.5 * right + generator.standard_normal(right.shape)
    surprise[0, 0] = math.nan
    found = detection(confidence.tolist(), surprise.tolist(), right.tolist())
    assert (found.words, found.wrong) == (1200, int((~right).sum()))
    assert 0.8 < found.confidence < 0.92
    assert 0.8 < found.surprise < 0.92
    assert found.both > max(found.confidence, found.surprise) + 0.03


def test_noise_finds_nothing():
    generator = np.random.default_rng(4)
    right = (generator.random((300, 5)) < 0.5).tolist()
    noise = generator.random((300, 5)).tolist()
    found = detection(noise, noise, right)
    assert abs(found.confidence - 0.5) < 0.05
    assert abs(found.both - 0.5) < 0.05


def test_nothing_to_tell_apart():
    assert math.isnan(detection([[0.5]], [[1.0]], [[True]]).both)
    assert detection([], [], []).words == 0
