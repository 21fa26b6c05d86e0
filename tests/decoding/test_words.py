"""Words of a hypothesis: times of their tokens or of their sound, with letters where asked for."""

import numpy as np
import pytest

from asr.decoding import Hypothesis, words_of
from asr.decoding.alignment import HOP_SECONDS
from asr.text import BpeTokenizer, CharacterTokenizer

TOKENIZER = CharacterTokenizer(" abc")
# "ab c" in frames of 40 ms.
HYPOTHESIS = Hypothesis([2, 3, 1, 4], [(10, 10), (15, 16), (20, 20), (30, 31)], [0.9, 0.5, 0.3, 0.8], -2.0)


def test_without_the_sound_words_have_the_frames_of_their_tokens():
    first, second = words_of(HYPOTHESIS, TOKENIZER, 0.04)
    assert (first.word, first.start, first.end, first.confidence) == ("ab", 0.4, 0.68, 0.5)
    assert (second.word, second.start, second.end, second.confidence) == ("c", 1.2, 1.28, 0.8)
    assert words_of(Hypothesis([1], [(0, 0)], [1.0], 0.0), TOKENIZER, 0.04) == ()


def test_with_the_sound_words_start_and_end_in_the_pauses_but_never_behind_the_audio():
    loud = np.zeros(200, bool)
    loud[35:80] = loud[110:] = True
    first, second = words_of(HYPOTHESIS, TOKENIZER, 0.04, loud, duration=1.5)
    assert (first.start, first.end) == pytest.approx((35 * HOP_SECONDS, 80 * HOP_SECONDS))
    assert (second.start, second.end) == pytest.approx((110 * HOP_SECONDS, 1.5))


def test_letters_divide_their_word():
    loud = np.zeros(200, bool)
    loud[35:80] = loud[110:150] = True
    first, second = words_of(HYPOTHESIS, TOKENIZER, 0.04, loud, character_times=True)
    assert [letter.character for letter in first.characters] == ["a", "b"]
    assert (first.start, first.end) == (first.characters[0].start, first.characters[1].end)
    assert first.characters[0].end == first.characters[1].start
    assert [letter.character for letter in second.characters] == ["c"]


def test_letters_of_one_piece_share_its_time():
    pieces = BpeTokenizer.train(["noon moon soon"] * 4, 12)
    ids = pieces.encode("noon")
    frames = [(10 * i, 10 * i + 1) for i in range(len(ids))]
    (word,) = words_of(Hypothesis(ids, frames, [1.0] * len(ids), 0.0), pieces, 0.04, character_times=True)
    assert "".join(letter.character for letter in word.characters) == word.word == "noon"
    times = [letter.start for letter in word.characters]
    assert times == sorted(times)
