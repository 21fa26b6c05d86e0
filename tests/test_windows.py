"""Long audio in windows: nothing lost at their seams."""

from dataclasses import dataclass

import numpy as np
import pytest

from asr.windows import OVERLAP_SECONDS, WINDOW_SECONDS, quietest, stitch, windows

RATE = 1000


@dataclass(frozen=True)
class Word:
    word: str
    start: float
    end: float
    confidence: float = 0.9


def words(text, at=0.0):
    return [Word(word, at + i, at + i + 0.5) for i, word in enumerate(text.split())]


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


def test_stitching_joins_at_a_word_that_both_heard():
    before, after = words("one two three four fi"), words("ree four five six", at=2.1)
    assert [word.word for word in stitch(before, after, 3.5)] == "one two three four five six".split()


@pytest.mark.parametrize("seam", [3.0, 3.1, 3.25, 3.4, 3.6, 3.9, 4.2])
def test_words_at_the_seam_are_neither_lost_nor_doubled(seam):
    truth = words("zero one two three four five six seven")
    before = [word for word in truth if word.start < seam + 1 - 0.3]
    after = [Word(w.word, w.start + 0.04, w.end + 0.04) for w in truth if w.end > seam - 1 + 0.3]
    assert [word.word for word in stitch(before, after, seam)] == [word.word for word in truth]


def test_a_word_heard_differently_is_kept_once():
    before, after = [Word("ship", 0.8, 0.98, 0.4)], [Word("sheep", 0.9, 1.2, 0.7)]
    assert [word.word for word in stitch(before, after, 1.0)] == ["sheep"]


def test_a_pause_at_the_seam():
    assert [w.word for w in stitch(words("one two"), words("one", at=9), 5.0)] == ["one", "two", "one"]
