"""Searches by the phones of words: what spelling hides, and the joint search against scores of every text."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from asr.decoding import BeamConfig, BeamSearch, align
from asr.decoding.choice import choose_decoder, reads_phones
from asr.decoding.greedy import greedy
from asr.decoding.pronouncing import JointSearch, PronouncingSearch, search_of
from asr.errors import DecodingError
from asr.lm.kenlm import score_text
from asr.lm.kneser_ney import build
from asr.text import BpeTokenizer, CharacterTokenizer

pytest.importorskip("flashlight.lib.text")
TOKENIZER = CharacterTokenizer(" abcdefghijklmnopqrstuvwxyz'")
PHONES = "AH AY DH EH IY K N OW R S T UW W".split()
WORDS = """
# as cmudict
one W AH N
won W AH N
the DH AH
the(2) DH IY  # before a vowel
knight N AY T
no N OW
two T UW
"""


@pytest.fixture
def lexicon(tmp_path):
    (tmp_path / "lexicon.txt").write_text(WORDS)
    return tmp_path / "lexicon.txt"


def write_lm(path, sentences, order=2):
    build(sentences, order).write_arpa(path)
    return path


def spoken(names, symbols, weight=9.0):
    """Log-probabilities (frame, 1 + symbol) of three frames for each symbol and a blank behind it."""
    places = [0]
    for name in names:
        places += [symbols.index(name) + 1] * 3 + [0]
    return normalized(weight * np.eye(1 + len(symbols))[places])


def normalized(logits):
    return (logits - np.logaddexp.reduce(logits, -1, keepdims=True)).astype(np.float32)


def heard(phones, text=None, weight=9.0):
    """Log-probabilities (frame, token + 1 + phone): phones, and what is spelled so surely, or nothing certain."""
    of_phones = spoken(phones.split(), PHONES)
    of_tokens = normalized(np.zeros((len(of_phones), TOKENIZER.vocab_size)))
    if text is not None:
        spelled = spoken(text, TOKENIZER.tokens[1:], weight)
        of_tokens = np.concatenate(
            [spelled, np.repeat(spelled[:1], max(0, len(of_phones) - len(spelled)), 0)]
        )
        silence = np.repeat(of_phones[:1], max(0, len(spelled) - len(of_phones)), 0)
        of_phones = np.concatenate([of_phones, silence])
    return np.concatenate([of_tokens, of_phones], 1)


def texts_of(search, log_probs):
    (found,) = search([log_probs])
    return [" ".join(search.tokenizer.decode(h.tokens).split()) for h in (found, *found.alternatives)]


@pytest.mark.parametrize("words", ["knight", "two", "no two knight the", "the the"])
def test_words_spelled_unlike_they_sound(lexicon, words):
    search = PronouncingSearch(TOKENIZER, phones=PHONES, lexicon=lexicon)
    ways = {"knight": "N AY T", "two": "T UW", "no": "N OW", "the": "DH AH"}
    log_probs = heard(" ".join(ways[word] for word in words.split()))
    (found,) = search([log_probs])
    assert TOKENIZER.decode(found.tokens) == words + " "  # more of a recording may follow
    assert found.score > -1.0
    placed = align(log_probs[:, : TOKENIZER.vocab_size], found.tokens)
    assert (found.frames, found.confidences) == (placed.frames, placed.confidences)


def test_every_pronunciation_counts(lexicon):
    for search in (PronouncingSearch, JointSearch):
        decode = search(TOKENIZER, phones=PHONES, lexicon=lexicon)
        assert texts_of(decode, heard("DH IY T UW", "the two")) == ["the two"]


def test_the_language_model_decides_between_words_that_sound_alike(lexicon, tmp_path):
    for text in ("the knight won", "the one knight"):
        lm = write_lm(tmp_path / "lm.arpa", [text, "the one knight won", "the knight won", text, text])
        search = PronouncingSearch(TOKENIZER, phones=PHONES, lexicon=lexicon, lm=lm)
        ways = {"the": "DH AH", "knight": "N AY T", "won": "W AH N", "one": "W AH N"}
        assert texts_of(search, heard(" ".join(ways[word] for word in text.split()))) == [text]


def test_words_that_cannot_be_searched_are_left_out(lexicon, tmp_path):
    lm = write_lm(tmp_path / "lm.arpa", ["the knight was won", "no übermut"])
    for kind in (PronouncingSearch, JointSearch):
        search = kind(TOKENIZER, phones=PHONES, lexicon=lexicon, lm=lm, hotwords={"was": 2.0, "two": 3.0})
        # The language model lacks "two", which the lexicon and the hotwords have.
        assert sorted(search.left_out) == ["two", "was", "was", "übermut"]
        assert "4 words are left out" in search.describe_left_out()


def test_a_lexicon_without_a_language_model_leaves_no_word_out(lexicon):
    """Second pronunciations and comments are no words."""
    search = JointSearch(TOKENIZER, phones=PHONES, lexicon=lexicon)
    assert search.left_out == []
    assert list(search.pronounced.words) == list(search.spelled.words) == "one won the knight no two".split()


def test_hotwords_are_preferred(lexicon):
    for kind in (PronouncingSearch, JointSearch):
        for word, other in (("one", "won"), ("won", "one")):
            search = kind(TOKENIZER, phones=PHONES, lexicon=lexicon, hotwords={word: 3.0})
            assert texts_of(search, heard("W AH N", other, 0.2)) == [word]


def test_files_that_do_not_fit(lexicon, tmp_path):
    for kind in (PronouncingSearch, JointSearch):
        with pytest.raises(
            DecodingError, match=r"lexicon\.txt has the phone 'W', which the model lacks; it has AH"
        ):
            kind(TOKENIZER, phones=PHONES[:-1], lexicon=lexicon)
        with pytest.raises(DecodingError, match=r"none\.txt"):
            kind(TOKENIZER, phones=PHONES, lexicon=tmp_path / "none.txt")
        other = write_lm(tmp_path / "lm.arpa", ["hello world"])
        with pytest.raises(
            DecodingError, match=r"none of the 2 words of the language model .*'hello'|knows none"
        ):
            kind(TOKENIZER, phones=PHONES, lexicon=lexicon, lm=other)


def test_what_holds_no_word(lexicon):
    """No audio, silence, sure and less so, and log-probabilities that are no numbers."""
    lexicon.write_text(WORDS + "a AH\ni AY\n")  # which are cheap to put anywhere
    width = TOKENIZER.vocab_size + 1 + len(PHONES)
    nothing = [np.zeros((0, width), np.float32), np.full((5, width), math.nan, np.float32)]
    for weight in (9.0, 12.0, 20.0):
        parts = [spoken([], symbols, weight) for symbols in (TOKENIZER.tokens[1:], PHONES)]
        nothing.append(np.repeat(np.concatenate(parts, 1), 30, 0))
    for kind in (PronouncingSearch, JointSearch):
        search = kind(TOKENIZER, BeamConfig(nbest=3), phones=PHONES, lexicon=lexicon)
        for found in search(nothing):
            assert (found.tokens, found.frames) == ([], [])


def test_a_text_whose_letters_need_more_frames_than_there_are_is_skipped(lexicon):
    """Six frames hold the phones of "knight", and not its letters."""
    log_probs = heard("N AY T")[1::2][:6]
    assert texts_of(PronouncingSearch(TOKENIZER, phones=PHONES, lexicon=lexicon), log_probs) == ["knight"]
    short = log_probs[:5]
    for kind in (PronouncingSearch, JointSearch):
        search = kind(TOKENIZER, BeamConfig(nbest=40, beam_threshold=100), phones=PHONES, lexicon=lexicon)
        found = texts_of(search, short)
        assert found
        assert not any("knight" in text for text in found)


def test_the_best_are_listed_in_their_order(lexicon):
    config = BeamConfig(beam_size=200, nbest=6, beam_threshold=100)
    for kind in (PronouncingSearch, JointSearch):
        search = kind(TOKENIZER, config, phones=PHONES, lexicon=lexicon)
        (found,) = search([heard("W AH N T UW", "one two")])
        scores = [h.score for h in (found, *found.alternatives)]
        assert len(scores) == 6
        assert scores == sorted(scores, reverse=True)
        texts = texts_of(search, heard("W AH N T UW", "one two"))
        assert len(set(texts)) == 6
        assert texts[0] == "one two" or kind is PronouncingSearch  # to which "won two" is as good


def total_by_torch(log_probs, symbols):
    loss = functional.ctc_loss(
        torch.from_numpy(log_probs.astype(np.float64))[:, None],
        torch.tensor([symbols], dtype=torch.int64),
        [len(log_probs)],
        [len(symbols)],
        reduction="sum",
    )
    return -loss.item()


def lm_score(lm, text):
    """Give a text's log10-probability, by KenLM; that of no words, which it does not score, by the file's figures."""
    if text:
        return score_text(lm, [text]).log10_probability
    columns = [line.split("\t") for line in lm.read_text().splitlines()]
    figures = {line[1]: [float(line[0]), float(line[2]) if line[2:] else 0.0] for line in columns if line[1:]}
    return figures["<s> </s>"][0] if "<s> </s>" in figures else figures["<s>"][1] + figures["</s>"][0]


TINY = {"ab": "A B", "ba": "E", "cab": "K A B"}


@pytest.mark.parametrize("with_lm", [False, True])
@pytest.mark.parametrize("kind", ["characters", "pieces"])
def test_the_joint_search_finds_the_best_of_all_texts(tmp_path, kind, with_lm):
    """Texts of none to two words: no longer one has its letters in seven frames."""
    tokenizer = (
        CharacterTokenizer(" abc") if kind == "characters" else BpeTokenizer.train(["ab ba cab"] * 3, 5)
    )
    phones = sorted({phone for way in TINY.values() for phone in way.split()})
    (tmp_path / "lexicon.txt").write_text("".join(f"{word} {way}\n" for word, way in TINY.items()))
    lm = write_lm(tmp_path / "lm.arpa", ["ab ba", "cab", "ba ba cab"]) if with_lm else None
    config = BeamConfig(beam_size=3000, beam_threshold=1e4, lm_weight=0.7, word_bonus=0.4, nbest=5)
    search = JointSearch(tokenizer, config, phones=phones, lexicon=tmp_path / "lexicon.txt", lm=lm)
    for seed in range(8):
        generator = np.random.default_rng(seed)
        of_tokens = normalized(2 * generator.standard_normal((7, tokenizer.vocab_size)))
        of_phones = normalized(2 * generator.standard_normal((7, 1 + len(phones))))
        scores = {}
        for words in (row for count in (0, 1, 2) for row in itertools.product(TINY, repeat=count)):
            text = " ".join(words)
            symbols = [phones.index(phone) + 1 for word in words for phone in TINY[word].split()]
            acoustic = total_by_torch(of_tokens, tokenizer.encode(text)) + total_by_torch(of_phones, symbols)
            language = math.log(10) * lm_score(lm, text) if with_lm else 0.0
            scores[text] = acoustic / 2 + 0.7 * language + 0.4 * len(words)
        expected = sorted(scores, key=lambda text: -scores[text])[:5]
        log_probs = np.concatenate([of_tokens, of_phones], 1)
        (found,) = search([log_probs])
        assert texts_of(search, log_probs) == expected
        assert [h.score for h in (found, *found.alternatives)] == pytest.approx(
            [scores[text] for text in expected], abs=1e-4
        )
        if found.tokens:
            assert found.frames == align(of_tokens, found.tokens).frames


def test_weights_are_taken_anew(lexicon, tmp_path):
    lm = write_lm(tmp_path / "lm.arpa", ["won", "won", "one two"])
    search = JointSearch(TOKENIZER, BeamConfig(lm_weight=0.0), phones=PHONES, lexicon=lexicon, lm=lm)
    log_probs = heard("W AH N", "one", 0.5)
    assert texts_of(search, log_probs) == ["one"]
    search.reweigh(BeamConfig(lm_weight=5.0, nbest=2))
    assert texts_of(search, log_probs) == ["won", "one"]


def test_the_lexicon_chooses_the_search(lexicon, tmp_path):
    (tmp_path / "words.txt").write_text("\none\ntwo\n")
    options = {"phones": PHONES, "lexicon": lexicon}
    assert isinstance(search_of(TOKENIZER, BeamConfig(), **options), JointSearch)
    for changed in (
        {"phones": ()},
        {"lexicon": None},
        {"lexicon": "none"},
        {"lexicon": tmp_path / "words.txt"},
    ):
        search = search_of(TOKENIZER, BeamConfig(), **options | changed)
        assert isinstance(search, BeamSearch)
        assert not reads_phones(search)
    with pytest.raises(DecodingError, match="there is no lexicon"):
        search_of(TOKENIZER, BeamConfig(), phones=PHONES, lexicon=tmp_path / "none.txt")


def test_a_models_own_lexicon_goes_with_its_own_language_model(lexicon, tmp_path):
    own, other = (write_lm(tmp_path / name, ["one two", "no knight"]) for name in ("lm.arpa", "other.arpa"))
    (tmp_path / "words.txt").write_text("one\nno\n")

    def search_for(own_lm=own, **options):
        decoder = choose_decoder(
            TOKENIZER, "basic", {}, own_lm, phones=PHONES, own_lexicon=lexicon, **options
        )
        return decoder if decoder is greedy else decoder.search

    for options in ({}, {"beam_size": 4}, {"nbest": 2}, {"lm": other, "lexicon": lexicon}):
        assert isinstance(search_for(**options), JointSearch), options
    assert isinstance(search_for(lexicon=lexicon, hotwords={"two": 2.0}), JointSearch)
    assert isinstance(search_for(own_lm=None, lexicon=lexicon), JointSearch)
    for options in (
        {"lm": other},
        {"hotwords": {"two": 2.0}},
        {"lexicon": tmp_path / "words.txt"},
        {"lexicon": "none", "nbest": 2},
        {"lm": "none", "nbest": 2},
        {"own_lm": None, "nbest": 2},
    ):
        assert isinstance(search_for(**options), BeamSearch), options
    assert search_for(lm="none") is search_for(own_lm=None) is greedy
    assert search_for(lexicon="none").is_free
    decoder = choose_decoder(TOKENIZER, own_lm=own, phones=PHONES, own_lexicon=lexicon, processes=2)
    assert reads_phones(decoder)
    log_probs = [heard("N OW N AY T", "no knight"), heard("W AH N"), heard("W AH N T UW", "one two")] * 2
    assert decoder(log_probs) == decoder.search(log_probs)
    decoder.close()
