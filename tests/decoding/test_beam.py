"""Beam search against an exhaustive search, and what lexicons, language models and hotwords change."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import log_probs_of
from torch.nn.functional import one_hot

from asr.decoding import BeamConfig, BeamSearch, align, greedy
from asr.decoding.hotwords import read_hotwords
from asr.errors import DecodingError
from asr.lm.kneser_ney import build
from asr.text import BpeTokenizer, CharacterTokenizer

pytest.importorskip("flashlight.lib.text")
CHARACTERS = CharacterTokenizer(" abcdt")
WIDE = BeamConfig(beam_size=500, beam_threshold=1000.0, nbest=3)


@pytest.fixture(scope="module")
def pieces():
    return BpeTokenizer.train(["the cat sat on the mat", "a cat ate the hat", "noon moon soon"] * 4, 24)


def logits_of(tokenizer, text, instead=None, weight=9.0):
    """Two frames a token and a blank after each; `instead` maps letters to (letter, its share of the score)."""
    frames = []
    for token in tokenizer.encode(text):
        row = one_hot(torch.tensor(token), tokenizer.vocab_size) * weight
        if instead and tokenizer.tokens[token] in instead:
            letter, share = instead[tokenizer.tokens[token]]
            row[tokenizer.encode(letter)[0]] = share * weight
        frames += [row, row, one_hot(torch.tensor(0), tokenizer.vocab_size) * weight]
    return torch.stack(frames)[None].float()


def decode(search, logits):
    (hypothesis,) = search(log_probs_of(logits))
    return " ".join(search.tokenizer.decode(hypothesis.tokens).split())


def write_lm(path, sentences, order=2):
    build(sentences, order).write_arpa(path)
    return path


def test_finds_what_an_exhaustive_search_finds():
    tokenizer = CharacterTokenizer("ab")
    logits = torch.randn(1, 5, 3, generator=torch.Generator().manual_seed(3))
    log_probs = logits.log_softmax(-1)[0]
    totals: dict[tuple, float] = {}
    for path in itertools.product(range(3), repeat=5):
        tokens = tuple(token for token, _ in itertools.groupby(path) if token)
        totals[tokens] = totals.get(tokens, 0.0) + math.exp(
            sum(log_probs[t, k].item() for t, k in enumerate(path))
        )
    expected = sorted(totals.items(), key=lambda item: -item[1])[:3]
    (best,) = BeamSearch(tokenizer, WIDE)(log_probs_of(logits))
    found = [best, *best.alternatives]
    assert [tuple(hypothesis.tokens) for hypothesis in found] == [tokens for tokens, _ in expected]
    assert [math.exp(h.score) for h in found] == pytest.approx([total for _, total in expected], rel=1e-4)


def test_agrees_with_greedy_where_nothing_is_in_doubt():
    logits = logits_of(CHARACTERS, "a cab at bat")
    (expected,), (found,) = (d(log_probs_of(logits)) for d in (greedy, BeamSearch(CHARACTERS)))
    assert (found.tokens, found.frames) == (expected.tokens, expected.frames)
    assert found.confidences == pytest.approx(expected.confidences)


def test_lengths_and_silence():
    logits = torch.cat([logits_of(CHARACTERS, "cab"), torch.zeros(1, 9, 7)])
    search = BeamSearch(CHARACTERS)
    first, second = search(log_probs_of(logits, [3, 0]))
    assert search.tokenizer.decode(first.tokens) == "c"
    assert second.tokens == []
    silence = one_hot(torch.zeros(1, 30, dtype=torch.int64), 7) * 20.0
    assert decode(search, silence) == ""


def test_tokens_lie_where_they_are_most_probable():
    logits = torch.randn(1, 60, 7, generator=torch.Generator().manual_seed(5)) * 2
    (log_probs,) = log_probs_of(logits)
    (found,) = BeamSearch(CHARACTERS)([log_probs])
    placed = align(log_probs, found.tokens)
    assert (found.frames, found.confidences) == (placed.frames, placed.confidences)
    assert found.score > placed.score  # of all alignments together


@pytest.mark.parametrize("text", ["a cab", "bad cab", "cab cab a a", "a"])
def test_lexicon_of_characters(tmp_path, text):
    (tmp_path / "words.txt").write_text("cab c a b |\nbad\na\n\n")
    search = BeamSearch(CHARACTERS, lexicon=tmp_path / "words.txt")
    assert decode(search, logits_of(CHARACTERS, text)) == text
    assert decode(search, logits_of(CHARACTERS, "cat")) in ("cab", "bad", "a")


@pytest.mark.parametrize("text", ["the cat sat", "on the mat", "noon moon soon noon", "a a cat"])
def test_lexicon_of_word_pieces(tmp_path, pieces, text):
    (tmp_path / "words.txt").write_text("\n".join("the cat sat on mat a ate hat noon moon soon".split()))
    search = BeamSearch(pieces, lexicon=tmp_path / "words.txt")
    assert decode(search, logits_of(pieces, text)) == text


def test_a_last_piece_held_to_the_end_is_the_end_of_its_word(tmp_path, pieces):
    """No blank follows where the speech fills the audio to its end."""
    words = "the cat sat on mat a ate hat noon moon soon".split()
    (tmp_path / "words.txt").write_text("\n".join(words))
    search = BeamSearch(pieces, lexicon=tmp_path / "words.txt")
    for text in ("the cat sat", "on the mat", "noon moon soon noon", "a", *words):
        logits = logits_of(pieces, text)[:, :-1]  # the last token for two frames
        for held in (logits, torch.cat([logits, logits[:, -1:]], 1)):
            (found,) = search(log_probs_of(held))
            assert pieces.decode(found.tokens).strip() == text
            assert found.score > -1.0


@pytest.mark.parametrize("text", ["cat ab", "ab", "cat abc cat"])
def test_a_word_that_is_cut_off_is_none(tmp_path, text):
    (tmp_path / "words.txt").write_text("abcd\ncat\n")
    for tokenizer in (CharacterTokenizer(" abcdt"), BpeTokenizer.train(["cat abcd a b c d"] * 4, 12)):
        search = BeamSearch(tokenizer, lexicon=tmp_path / "words.txt")
        (found,) = search(log_probs_of(logits_of(tokenizer, text, weight=40.0)))
        assert set(tokenizer.decode(found.tokens).split()) <= {"abcd", "cat"}
        assert found.score > -1000


def test_logits_that_are_no_numbers_are_no_words():
    (found,) = BeamSearch(CHARACTERS)([np.full((5, 7), math.nan)])
    assert found.tokens == []
    assert math.isnan(found.score)


def test_language_model_over_words_decides(tmp_path):
    logits = logits_of(CHARACTERS, "a bad", {"d": ("t", 0.98)})
    assert decode(BeamSearch(CHARACTERS), logits) == "a bad"
    lm = write_lm(tmp_path / "lm.arpa.gz", ["a bat", "a bat", "a cab", "bad"])
    search = BeamSearch(CHARACTERS, lm=lm)
    assert decode(search, logits) == "a bat"
    search.reweigh(BeamConfig(lm_weight=0.0))
    assert decode(search, logits) == "a bad"


def test_language_model_over_tokens_decides(tmp_path, pieces):
    logits = logits_of(CHARACTERS, "a bad", {"d": ("t", 0.98)})
    lm = write_lm(tmp_path / "lm.arpa", ["a ▁ b a t", "a ▁ c a b"] * 2, 4)
    assert decode(BeamSearch(CHARACTERS, lm=lm, lexicon="none"), logits) == "a bat"
    with pytest.raises(DecodingError, match="not over this model's tokens"):
        BeamSearch(CHARACTERS, lm=write_lm(tmp_path / "words.arpa", ["a bat"]), lexicon="none")


def test_word_bonus_makes_more_words(tmp_path):
    (tmp_path / "words.txt").write_text("a\nb\nab\n")
    logits = logits_of(CHARACTERS, "a b", {" ": ("b", 1.0)})
    logits[0, 3:6] = 0.0  # whether a space is there is open
    few = BeamSearch(CHARACTERS, BeamConfig(word_bonus=-8.0), lexicon=tmp_path / "words.txt")
    many = BeamSearch(CHARACTERS, BeamConfig(word_bonus=8.0), lexicon=tmp_path / "words.txt")
    assert len(decode(few, logits).split()) < len(decode(many, logits).split())


@pytest.mark.parametrize("kind", ["free", "lexicon", "pieces", "lm"])
def test_a_blank_penalty_brings_back_what_the_blank_deleted(tmp_path, pieces, kind):
    (tmp_path / "words.txt").write_text("cat\nsat\na\n")
    tokenizer = pieces if kind == "pieces" else CharacterTokenizer(" acst")
    words = {"lexicon": tmp_path / "words.txt"} if kind in ("lexicon", "pieces") else {}
    if kind == "lm":
        words = {"lm": write_lm(tmp_path / "lm.arpa", ["cat a", "a cat"])}
    logits = logits_of(tokenizer, "cat a")
    logits[0, -3:-1, 0] = 10.0  # a little more than the last word's only token
    search = BeamSearch(tokenizer, BeamConfig(lm_weight=0.1), **words)
    assert decode(search, logits) == "cat"
    search.reweigh(BeamConfig(lm_weight=0.1, blank_penalty=3.0))
    assert decode(search, logits) == "cat a"


def test_a_blank_penalty_is_subtracted_from_the_blank_in_the_search_alone():
    (log_probs,) = log_probs_of(torch.randn(1, 40, 7, generator=torch.Generator().manual_seed(5)) * 2)
    penalized = log_probs.copy()
    penalized[:, 0] -= 1.5
    before = log_probs.copy()
    (found,) = BeamSearch(CHARACTERS, replace(WIDE, blank_penalty=1.5))([log_probs])
    (expected,) = BeamSearch(CHARACTERS, WIDE)([penalized])
    assert (log_probs == before).all()
    assert [h.tokens for h in (found, *found.alternatives)] == [
        h.tokens for h in (expected, *expected.alternatives)
    ]
    assert [h.score for h in (found, *found.alternatives)] == pytest.approx(
        [h.score for h in (expected, *expected.alternatives)]
    )
    placed = align(log_probs, found.tokens)  # where, and how sure, by what the model said
    assert (found.frames, found.confidences) == (placed.frames, placed.confidences)


def test_sure_blanks_stay_sure_under_a_penalty():
    silence = one_hot(torch.zeros(1, 30, dtype=torch.int64), 7) * 20.0
    logits = torch.cat([silence, logits_of(CHARACTERS, "cab"), silence], 1)
    plain, penalized = (
        BeamSearch(CHARACTERS, BeamConfig(blank_penalty=penalty))(log_probs_of(logits))[0]
        for penalty in (0, 3)
    )
    assert penalized.tokens == plain.tokens
    # The blanks that are searched: one behind each letter, and one of the silence around them.
    assert plain.score - penalized.score == pytest.approx(3 * 4, abs=0.2)


@pytest.mark.parametrize("penalty", [-1.0, math.inf, math.nan])
def test_what_is_no_blank_penalty(penalty):
    with pytest.raises(DecodingError, match=f"a blank penalty of {penalty} was asked for; expected a finite"):
        BeamConfig(blank_penalty=penalty)


@pytest.mark.parametrize("with_lm", [False, True])
def test_hotwords_raise_their_own_recall_only(tmp_path, with_lm):
    lm = write_lm(tmp_path / "lm.arpa", ["a bad cab", "a cab", "a bad cab"]) if with_lm else None
    config = BeamConfig(lm_weight=0.5)
    plain = BeamSearch(CHARACTERS, config, lm=lm)
    biased = BeamSearch(CHARACTERS, config, lm=lm, hotwords={"bat": 9.0})
    name = logits_of(CHARACTERS, "a bad", {"d": ("t", 0.9)})
    assert decode(plain, name) == "a bad"
    assert decode(biased, name) == "a bat"
    for text in ("a cab", "bad cab", "a bad cab"):
        assert decode(biased, logits_of(CHARACTERS, text)) == text


def test_false_starts_of_a_hotword_earn_nothing():
    logits = logits_of(CHARACTERS, "bad cab")
    plain, biased = (
        BeamSearch(CHARACTERS, hotwords=words)(log_probs_of(logits))[0] for words in (None, {"badt": 5.0})
    )
    assert biased.score == pytest.approx(plain.score, abs=1e-3)


def test_words_the_model_cannot_write(tmp_path):
    (tmp_path / "words.txt").write_text("cab\nxylophone\n")
    assert BeamSearch(CHARACTERS, lexicon=tmp_path / "words.txt").left_out == ["xylophone"]
    lm = write_lm(tmp_path / "lm.arpa", ["CAB BAD"])
    with pytest.raises(DecodingError, match=r"none of the 2 words.*'BAD'|none of the 2 words.*'CAB'"):
        BeamSearch(CHARACTERS, lm=lm)
    biased = BeamSearch(CHARACTERS, hotwords={"xenia": 1.0, "bat": 2.0})
    assert (biased.left_out, biased.hotwords) == (["xenia"], {"bat": 2.0})


@pytest.mark.parametrize("in_lm", ["a bat", "A BAT"])
@pytest.mark.parametrize("listed", [None, "bat\na\n", "BAT  B A T\nA  A\n<UNK> SPN\n!SIL SIL\n"])
def test_words_in_capitals_are_the_words_of_the_model(tmp_path, in_lm, listed):
    lm = write_lm(tmp_path / "lm.arpa", [in_lm, in_lm, in_lm.replace("A ", "D ").replace("a ", "d ")])
    lexicon = None
    if listed is not None:
        lexicon = tmp_path / "lexicon.txt"
        lexicon.write_text("\ufeff" + listed)
    words = {"lm": lm, "lexicon": lexicon, "normalizer": "basic"}
    logits = logits_of(CHARACTERS, "a bad", {"d": ("t", 0.98)})
    search = BeamSearch(CHARACTERS, **words)
    assert decode(search, logits) == "a bat"
    assert search.left_out == (["<UNK>", "!SIL"] if listed and "!" in listed else [])
    # The language model is asked for the word as it has it, else all words would be unknown to it.
    other = BeamSearch(
        CHARACTERS, **{**words, "lm": write_lm(tmp_path / "same.arpa", ["a bat"] * 2 + ["d bat"])}
    )
    assert search(log_probs_of(logits))[0].score == pytest.approx(
        other(log_probs_of(logits))[0].score, rel=1e-6
    )
    biased = BeamSearch(CHARACTERS, hotwords={"Cab": 9.0}, **words)
    assert decode(biased, logits_of(CHARACTERS, "a cab")) == "a cab"


def test_a_language_model_of_other_words_than_the_lexicon(tmp_path):
    (tmp_path / "words.txt").write_text("cab\n")
    lm = write_lm(tmp_path / "lm.arpa", ["a bat"])
    with pytest.raises(DecodingError, match=r"knows none of the 1 words to be recognized, such as 'cab'"):
        BeamSearch(CHARACTERS, lm=lm, lexicon=tmp_path / "words.txt")


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(DecodingError, match="there is no lexicon"):
        BeamSearch(CHARACTERS, lexicon=tmp_path / "words.txt")
    with pytest.raises(DecodingError, match="there is no language model"):
        BeamSearch(CHARACTERS, lm=tmp_path / "lm.arpa")
    with pytest.raises(DecodingError, match="expected 1 or more"):
        BeamConfig(beam_size=0)


def test_hotwords_are_read_with_their_bonus(tmp_path):
    path = tmp_path / "hotwords.txt"
    path.write_text("nguyen 6.5\nmtšali\n")
    assert read_hotwords(path) == {"nguyen": 6.5, "mtšali": 4.0}
    path.write_text("nguyen high\n")
    with pytest.raises(DecodingError, match=r"line 1: the bonus 'high'"):
        read_hotwords(path)
