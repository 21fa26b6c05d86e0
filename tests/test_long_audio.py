"""Long audio in windows: nothing lost at their seams."""

from itertools import pairwise

import numpy as np
import pytest

from asr.long_audio import OVERLAP_SECONDS, WINDOW_SECONDS, joint, quietest, windows

RATE = 1000


def test_short_audio_stays_whole():
    samples = np.random.default_rng(0).standard_normal(round(WINDOW_SECONDS * RATE)).astype(np.float32)
    (window,) = windows([samples], RATE)
    assert (window.offset, window.seam, window.seconds, window.last) == (0, 0, WINDOW_SECONDS, True)
    assert np.array_equal(window.samples, samples)


def test_no_audio_is_one_empty_window():
    (window,) = windows([], RATE)
    assert len(window.samples) == 0
    assert window.last


@pytest.mark.parametrize("block", [700, 12345, 10**6])
def test_windows_cover_the_recording_and_do_not_depend_on_the_blocks(block):
    samples = np.random.default_rng(1).standard_normal(200 * RATE).astype(np.float32)
    cut = list(windows((samples[i : i + block] for i in range(0, len(samples), block)), RATE))
    whole = list(windows([samples], RATE))
    assert [window[1:] for window in cut] == [window[1:] for window in whole]
    assert sum(window.seconds for window in cut) == pytest.approx(200)
    assert [window.last for window in cut] == [False] * (len(cut) - 1) + [True]
    for window, following in zip(cut, [*cut[1:], None], strict=True):
        begin = round(window.offset * RATE)
        assert np.array_equal(window.samples, samples[begin : begin + len(window.samples)])
        assert len(window.samples) <= (WINDOW_SECONDS + 2 * OVERLAP_SECONDS) * RATE
        if following is not None:
            assert following.seam == pytest.approx(window.seam + window.seconds)
            assert following.offset == pytest.approx(following.seam - OVERLAP_SECONDS)


def test_seams_lie_in_the_pauses():
    samples = np.random.default_rng(2).standard_normal(300 * RATE).astype(np.float32)
    pauses = list(range(8, 300, 10))
    for second in pauses:
        samples[second * RATE : second * RATE + RATE // 2] *= 0.01
    for window in list(windows([samples], RATE))[1:]:
        assert any(second < window.seam < second + 0.5 for second in pauses), window.seam


def test_quietest_is_the_middle_of_a_pause():
    samples = np.ones(2000, np.float32)
    samples[900:1200] = 0
    assert quietest(samples, RATE) == 1050


def test_windows_begin_with_a_frame():
    samples = np.random.default_rng(3).standard_normal(100 * RATE).astype(np.float32)
    cut = list(windows([samples], RATE, step=40))
    assert all(round(window.offset * RATE) % 40 == 0 for window in cut)
    for window, following in pairwise(cut):
        assert OVERLAP_SECONDS <= following.seam - following.offset < OVERLAP_SECONDS + 0.04
        assert following.seam == pytest.approx(window.seam + window.seconds)


def test_windows_are_joined_in_the_longest_silence_that_both_hear():
    before = np.zeros(80, bool)
    before[[*range(12, 20), *range(30, 50), *range(60, 80)]] = True
    after = np.zeros(80, bool)
    after[[*range(0, 22), *range(34, 54)]] = True
    assert joint(before, after) == 42


def test_windows_that_agree_on_no_silence_are_joined_in_the_middle():
    assert joint(np.zeros(50, bool), np.ones(50, bool)) == 25
    assert joint(np.zeros(0, bool), np.zeros(0, bool)) == 0
