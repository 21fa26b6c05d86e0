import json
import pickle
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from asr.errors import TextError
from asr.text import (
    BLANK,
    BpeTokenizer,
    CharacterTokenizer,
    load_tokenizer,
)

SENTENCES = [
    "the quick brown fox jumps over the lazy dog",
    "it's ten o'clock and the dog isn't home",
    "she sells sea shells by the sea shore",
    "the shells she sells are sea shells i'm sure",
]


@pytest.fixture(scope="module")
def bpe() -> BpeTokenizer:
    return BpeTokenizer.train(SENTENCES, 60)


@pytest.fixture(scope="module", params=["characters", "bpe"])
def tokenizer(request, bpe):
    return bpe if request.param == "bpe" else CharacterTokenizer.from_texts(SENTENCES)


class TestEveryTokenizer:
    def test_blank_is_0_and_no_text(self, tokenizer):
        assert BLANK == 0
        assert tokenizer.tokens[BLANK] == "<blank>"
        assert tokenizer.vocab_size == len(tokenizer.tokens) == len(set(tokenizer.tokens))
        for text in SENTENCES:
            ids = tokenizer.encode(text)
            assert all(isinstance(token, int) and 0 < token < tokenizer.vocab_size for token in ids)
            assert tokenizer.decode(ids) == text

    @settings(max_examples=200, deadline=None)
    @given(st.text(alphabet=sorted(set("".join(SENTENCES)) | {" "}), max_size=60))
    def test_round_trip_of_any_text_of_the_alphabet(self, bpe, text):
        for tokenizer in (bpe, CharacterTokenizer.from_texts(SENTENCES)):
            ids = tokenizer.encode(text)
            assert BLANK not in ids
            assert tokenizer.decode(ids) == text

    @settings(max_examples=200, deadline=None)
    @given(st.text(alphabet="abcdefghi ", max_size=60))
    def test_words_and_where_they_are(self, bpe, text):
        for tokenizer in (bpe, CharacterTokenizer.from_texts(SENTENCES)):
            ids = tokenizer.encode(text)
            spans = tokenizer.word_spans(ids)
            words = [tokenizer.decode([ids[i] for i in span]) for span in spans]
            assert words == text.split()
            assert all(one.stop <= other.start for one, other in pairwise(spans))

    def test_letters_outside_the_alphabet(self, tokenizer):
        with pytest.raises(TextError) as caught:
            tokenizer.encode("caffè 9")
        message = str(caught.value)
        assert "'caffè 9'" in message
        assert "'9' (DIGIT NINE), 'è' (LATIN SMALL LETTER E WITH GRAVE)" in message
        assert "normalize" in message

    def test_a_long_transcript_of_strange_letters_has_a_short_message(self, tokenizer):
        with pytest.raises(TextError) as caught:
            tokenizer.encode("\n".join(map(chr, range(0x400, 0x450))) * 10)
        message = str(caught.value)
        assert len(message) < 600
        assert "and 76 more" in message
        assert "\n" not in message

    @pytest.mark.parametrize("wrong", [0, -1, 1000])
    def test_what_is_no_token_of_text(self, tokenizer, wrong):
        with pytest.raises(ValueError, match="no token of text"):
            tokenizer.decode([1, wrong])

    def test_nothing(self, tokenizer):
        assert tokenizer.encode("") == []
        assert tokenizer.decode([]) == ""
        assert tokenizer.word_spans([]) == []

    def test_saved_and_loaded(self, tokenizer, tmp_path):
        tokenizer.save(tmp_path)
        loaded = load_tokenizer(tmp_path)
        assert type(loaded) is type(tokenizer)
        assert loaded.kind == json.loads((tmp_path / "tokenizer.json").read_text("utf-8"))["kind"]
        assert loaded.tokens == tokenizer.tokens
        assert [loaded.encode(text) for text in SENTENCES] == [tokenizer.encode(text) for text in SENTENCES]

    def test_travels_to_other_processes(self, tokenizer):
        copy = pickle.loads(pickle.dumps(tokenizer))
        assert copy.encode(SENTENCES[0]) == tokenizer.encode(SENTENCES[0])


class TestCharacters:
    def test_alphabet_in_the_order_of_unicode(self):
        tokenizer = CharacterTokenizer.from_texts(["cab", "bé a"])
        assert tokenizer.tokens == ["<blank>", " ", "a", "b", "c", "é"]
        assert tokenizer.encode("é b") == [5, 1, 3]

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.text(max_size=20), min_size=1, max_size=5))
    def test_round_trip_of_any_unicode(self, tmp_path_factory, texts):
        assume(any(texts))
        tokenizer = CharacterTokenizer.from_texts(texts)
        folder = tmp_path_factory.mktemp("tokenizer")
        tokenizer.save(folder)
        loaded = load_tokenizer(folder)
        assert loaded.tokens == tokenizer.tokens
        for text in texts:
            assert loaded.decode(tokenizer.encode(text)) == text

    @pytest.mark.parametrize(
        ("alphabet", "said"),
        [
            ([], "is empty"),
            (["a", "bc"], "'bc'"),
            (["a", ""], "''"),
            (["a", "b", "a"], r"'a' \(LATIN SMALL LETTER A\)"),
        ],
    )
    def test_refuses_alphabets(self, alphabet, said):
        with pytest.raises(TextError, match=said):
            CharacterTokenizer(alphabet)
        with pytest.raises(TextError, match="is empty"):
            CharacterTokenizer.from_texts(["", ""])


class TestBpe:
    def test_has_the_asked_for_size_and_joins_what_is_frequent(self, bpe):
        assert bpe.vocab_size == 60
        assert "▁the" in bpe.tokens
        assert len(bpe.encode(SENTENCES[0])) < len(SENTENCES[0]) / 1.5
        assert bpe.tokens[bpe.encode("the")[0]].startswith("▁")

    def test_is_the_same_each_time(self, bpe):
        assert BpeTokenizer.train(iter(SENTENCES), 60).tokens == bpe.tokens

    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=15), min_size=1, max_size=4)
    )
    @example([" <unk> <s> ", "  two  spaces "])
    def test_round_trip_of_any_unicode_it_was_trained_on(self, texts):
        letters = set().union(*texts)
        assume(letters - {" "} and "▁" not in letters)
        tokenizer = BpeTokenizer.train(texts, len(letters | {" "}) + 1)
        for text in texts:
            ids = tokenizer.encode(text)
            assert BLANK not in ids
            assert tokenizer.decode(ids) == text

    def test_long_transcripts_are_learned_from_too(self):
        assert "q" in BpeTokenizer.train(["word " * 2000 + "q", "word"], 8).tokens

    def test_sizes_that_do_not_fit_the_text(self):
        letters = len(set("".join(SENTENCES)))
        with pytest.raises(TextError, match=rf"^5 word pieces .* expected at least {letters + 1}$"):
            BpeTokenizer.train(SENTENCES, 5)
        assert BpeTokenizer.train(SENTENCES, letters + 1).vocab_size == letters + 1
        with pytest.raises(TextError, match=r"^5000 word pieces .* expected at most \d+$"):
            BpeTokenizer.train(SENTENCES, 5000)

    @pytest.mark.parametrize("texts", [[], [""], ["  ", " "]])
    def test_nothing_to_learn_from(self, texts):
        with pytest.raises(TextError, match="no letter"):
            BpeTokenizer.train(texts, 100)

    @pytest.mark.parametrize("character", ["▁", "\n", "\0"])
    def test_what_sentencepiece_keeps_for_itself(self, character):
        with pytest.raises(TextError, match=r"which sentencepiece keeps for itself"):
            BpeTokenizer.train([f"a{character}b"], 10)

    def test_the_mark_of_a_space_is_no_letter(self, bpe):
        with pytest.raises(TextError, match="LOWER ONE EIGHTH BLOCK"):
            bpe.encode("a▁b")

    def test_a_model_made_otherwise(self):
        import io

        from sentencepiece import SentencePieceTrainer

        model = io.BytesIO()
        SentencePieceTrainer.Train(
            sentence_iterator=iter(SENTENCES),
            model_writer=model,
            model_type="bpe",
            vocab_size=60,
            minloglevel=2,
        )
        with pytest.raises(TextError, match="piece 0 is '<unk>'"):
            BpeTokenizer(model.getvalue())


class TestDamagedFiles:
    def test_missing(self, tmp_path):
        with pytest.raises(TextError, match=r"there is no tokenizer file .*tokenizer\.json"):
            load_tokenizer(tmp_path)

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"[]",
            b"\xff\xfe",
            b"{}",
            b'{"kind": "characters"}',
            b'{"kind": "characters", "alphabet": "abc"}',
            b'{"kind": "characters", "alphabet": []}',
            b'{"kind": "characters", "alphabet": ["a", 5]}',
            b'{"kind": "characters", "alphabet": ["a", "a"]}',
            b'{"kind": "bpe"}',
            b'{"kind": "bpe", "model_sha256": "e3b0c442", "pieces": 5}',
            b'{"kind": "words", "alphabet": ["a"]}',
        ],
    )
    def test_json(self, tmp_path, content):
        (tmp_path / "tokenizer.json").write_bytes(content)
        with pytest.raises(TextError, match=r"tokenizer\.json (is damaged|describes no tokenizer)"):
            load_tokenizer(tmp_path)

    def test_a_tokenizer_model_lost_or_changed(self, bpe, tmp_path):
        bpe.save(tmp_path)
        path = tmp_path / "tokenizer.model"
        content = path.read_bytes()
        path.write_bytes(content[:100] + b"x" + content[101:])
        with pytest.raises(TextError, match=r"tokenizer\.model is damaged"):
            load_tokenizer(tmp_path)
        path.unlink()
        with pytest.raises(TextError, match=r"there is no tokenizer file .*tokenizer\.model"):
            load_tokenizer(tmp_path)

    @settings(max_examples=100, deadline=None)
    @given(place=st.integers(0, 10**6), byte=st.integers(0, 255), length=st.integers(0, 10**6))
    def test_bytes_that_are_no_model(self, bpe, place, byte, length):
        content = bytearray(bpe.model)
        content[place % len(content)] = byte
        with suppress(TextError):  # and nothing else
            BpeTokenizer(bytes(content[: length % (len(content) + 1)]))
