"""Recurrent language models without PyTorch, which is the oracle here."""

import math
import random
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_lms import random_lm, token_log_probs, units_of

from asr.errors import BundleError, TextError
from asr.language_model import CHUNK, load_lm
from asr.lm.network import NetworkConfig
from asr.lm.units import MOST_LETTERS, WordUnits
from asr.lm_bundle import LmBundle
from asr.recurrent.cells import CELLS

TEXTS = ["the cats were full", "full", "a dog was here", "the the the"]
NETWORKS = [
    *({"cell": cell} for cell in CELLS),
    {"proj_size": 5},
    {"layer_norm": True},
    {"proj_size": 6, "tied": True},
    {"softmax": "adaptive", "cutoffs": (3, 6), "hidden_size": 16},
]


@pytest.mark.parametrize("options", NETWORKS, ids=str)
def test_every_network_scores_as_pytorch_does(options):
    model, lm = random_lm("words", **options)
    for sentence in lm.score(TEXTS):
        expected = token_log_probs(model, lm.units.encode(sentence.words).ids)
        np.testing.assert_allclose(sentence.log_probs, expected, atol=1e-4)


@pytest.mark.parametrize(
    "options", [{}, {"softmax": "adaptive", "cutoffs": (3, 6), "hidden_size": 16}], ids=str
)
def test_probabilities_of_all_tokens(options):
    model, lm = random_lm("words", **options)
    hidden, _ = lm.network.read(np.array([[0, 2, 3]]), np.array([3]), lm.network.start(1))
    log_probs = lm.network.output.log_probs(hidden[0])
    np.testing.assert_allclose(np.exp(log_probs).sum(-1), 1.0, atol=1e-5)
    every = np.arange(lm.units.size)
    repeated = np.repeat(hidden[0][-1:], len(every), axis=0)
    np.testing.assert_allclose(lm.network.output.log_probs_of(repeated, every), log_probs[-1], atol=1e-5)
    with torch.no_grad():
        expected = model.log_probs(model(torch.tensor([[0, 2, 3]]))[0])[0].numpy()
    np.testing.assert_allclose(log_probs, expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["characters", "pieces"])
def test_words_are_the_sums_of_their_tokens(kind):
    model, lm = random_lm(kind)
    for sentence in lm.score(TEXTS):
        encoded = lm.units.encode(sentence.words)
        expected = token_log_probs(model, encoded.ids)
        assert len(sentence.log_probs) == len(sentence.words) + 1
        assert sentence.total == pytest.approx(float(expected.sum()), abs=1e-4)
        last = [place for place, word in enumerate(encoded.words) if word == len(sentence.words) - 1]
        assert sentence.log_probs[-2] == pytest.approx(float(expected[last].sum()), abs=1e-4)


def test_the_state_is_carried_over_long_sentences():
    model, lm = random_lm("characters")
    words = ["cat", "dogs"] * (CHUNK // 5)
    assert len(lm.units.encode(words).ids) > CHUNK
    short, long = lm.score(["a", " ".join(words)])
    expected = token_log_probs(model, lm.units.encode(words).ids)
    assert long.total == pytest.approx(float(expected.sum()), rel=1e-5)
    assert short.total == pytest.approx(lm.log_prob(["a"])[0], abs=1e-5)


def test_shared_beginnings_are_read_once(monkeypatch):
    _, lm = random_lm("words")
    texts = ["the cat was full", "the cat was", "the cat sat", "a cat", "", "the cat was full", "was the cat"]
    alone = [lm.log_prob([text])[0] for text in texts]
    rows, read = [], lm.network.read
    monkeypatch.setattr(lm.network, "read", lambda ids, *rest: rows.append(len(ids)) or read(ids, *rest))
    assert lm.log_prob(texts) == pytest.approx(alone, abs=1e-4)
    beginnings = {tuple(text.split()[:n]) for text in texts for n in range(len(text.split()) + 1)}
    assert sum(rows) == len(beginnings)


def test_unknown_words():
    _, words = random_lm("words")
    judged = words.judge("the xylophone was full")
    assert [word.unknown for word in judged] == [False, True, False, False]
    assert judged[1].log_prob < 0
    _, letters = random_lm("characters")
    sentence = letters.score(["the xylophone was"])[0]
    assert list(sentence.unknown) == [False, True, False]
    assert math.isnan(sentence.log_probs[1])
    assert math.isfinite(sentence.total)
    assert letters.judge("xylophone")[0].rank == 0


@pytest.mark.parametrize("kind", ["words", "characters", "pieces"])
def test_judging(kind):
    _, lm = random_lm(kind)
    judged = lm.judge("The cats were full.")
    assert [word.word for word in judged] == ["the", "cats", "were", "full"]
    assert judged == lm.judge(["the", "cats", "were", "full"])
    np.testing.assert_allclose(
        [word.log_prob for word in judged], lm.score(["the cats were full"])[0].log_probs[:-1]
    )
    for word in judged:
        assert 1 <= word.rank <= lm.units.size
        probabilities = [probability for _, probability in word.expected]
        assert probabilities == sorted(probabilities, reverse=True)
        assert 0 < sum(probabilities) <= 1 + 1e-6
    if kind == "words":
        best = judged[0].expected[0]
        assert lm.score([best[0]])[0].log_probs[0] == pytest.approx(math.log(best[1]), abs=1e-4)
        assert lm.judge(best[0])[0].rank == 1


def test_continuations():
    _, lm = random_lm("words")
    first = lm.complete("the cat", 4, seed=3)
    assert first == lm.complete("the cat", 4, seed=3)
    assert first != lm.complete("the cat", 4, seed=4)
    greedy = lm.complete("the cat", 3, top_k=1)
    assert len(set(greedy)) == 1
    assert greedy == lm.complete("the cat", 3, temperature=1e-9)
    assert all(len(text.split()) <= 2 for text in lm.complete("the", 5, most_words=2, temperature=9.0))
    assert "<unk>" not in " ".join(lm.complete("", 20, temperature=9.0))


def test_words_that_are_too_long_or_missing():
    _, lm = random_lm("words")
    with pytest.raises(TextError, match=r"a word of 10000 letters \(x+…\); expected words of at most 1000"):
        lm.judge("the " + "x" * 10_000)
    lm.judge("x" * MOST_LETTERS)
    with pytest.raises(TextError, match="no word to judge; expected"):
        lm.judge(" . ")


@pytest.mark.parametrize("kind", ["words", "characters", "pieces"])
def test_bundles_come_back(tmp_path, kind):
    _, lm = random_lm(kind, proj_size=6, tied=True)
    lm.bundle.save(tmp_path / "run" / "bundle")
    for folder in (tmp_path / "run" / "bundle", tmp_path / "run"):
        again = load_lm(folder)
        np.testing.assert_allclose(again.log_prob(TEXTS), lm.log_prob(TEXTS))
        assert again.bundle.network == lm.bundle.network


def test_damaged_and_foreign_bundles(tmp_path):
    _, lm = random_lm("words")
    lm.bundle.save(tmp_path / "lm")
    shutil.copytree(tmp_path / "lm", tmp_path / "lacking")
    (tmp_path / "lacking" / "vocabulary.txt").write_text("the\ncat\n")
    with pytest.raises(BundleError, match="its vocabulary has 4 tokens, its network"):
        load_lm(tmp_path / "lacking")
    config = (tmp_path / "lm" / "config.json").read_text()
    (tmp_path / "lm" / "config.json").write_text(config.replace('"embedding_size": 6', '"embedding_size": 7'))
    with pytest.raises(BundleError, match=r"does not fit config\.json: embedding\.weight is"):
        load_lm(tmp_path / "lm")
    with pytest.raises(BundleError, match="there is no bundle"):
        load_lm(tmp_path / "nowhere")
    from asr.bundle import SHIPPED, Bundle

    with pytest.raises(BundleError, match="the bundle of a recognizer; expected that of a language model"):
        load_lm(SHIPPED)
    lm.bundle.save(tmp_path / "again")
    with pytest.raises(BundleError, match="the bundle of a language model; expected that of a recognizer"):
        Bundle.load(tmp_path / "again")


@settings(deadline=None, max_examples=30)
@given(st.lists(st.text("ab c", min_size=0, max_size=12), min_size=1, max_size=6))
def test_units_spell_words_back(texts):
    units = units_of("characters")
    for text in texts:
        words = units.split(text)
        encoded = units.encode(words)
        assert len(encoded.ids) == len(encoded.words)
        known = [word for i, word in enumerate(words) if i not in encoded.unknown]
        assert units.tokenizer.decode(encoded.ids).split() == known


def test_the_most_frequent_words_come_first():
    texts = [["b"] * 3 + ["a"] * 3 + ["c"] * 2 + ["d"]]
    random.Random(1).shuffle(texts[0])
    assert WordUnits.from_texts(texts, 5).names == ["</s>", "<unk>", "a", "b", "c"]
    assert WordUnits.from_texts(texts, 99, min_count=3).names[2:] == ["a", "b"]
    with pytest.raises(TextError, match="the text holds <s>, which the model adds itself"):
        WordUnits.from_texts([["<s>"]], 9)


def test_networks_that_cannot_be():
    for options, message in (
        ({"tied": True}, "expected the same width"),
        (
            {"tied": True, "softmax": "adaptive", "hidden_size": 8, "embedding_size": 8},
            "expected one of them",
        ),
        ({"cutoffs": (5, 3)}, "expected rising ranks"),
        ({"dropout": 1.0}, "less than 1"),
    ):
        with pytest.raises(Exception, match=message):
            NetworkConfig(**options)


def test_no_bundle_holds_weights_twice(tmp_path):
    _, lm = random_lm("words", proj_size=6, tied=True)
    lm.bundle.save(tmp_path / "lm")
    assert "output.weight" not in LmBundle.load(tmp_path / "lm").weights
