"""Kneser-Ney estimates against values worked by hand, and against the rules of probability."""

import numpy as np
import pytest

from asr.errors import DecodingError
from asr.lm.kneser_ney import _discounts, build

TEXT = ["a b c", "a c b b", "b a c a b", "c a"] * 2 + ["a a b c a", "c c c a b"]


def probability(model, order, row):
    return 10 ** model.orders[order - 1].log10_probability[row]


def test_unigrams_worked_by_hand():
    # <s> a </s>: two words seen once, discounted by 0.5; what is freed goes evenly to <unk>, </s> and a.
    model = build(["a"], order=1)
    assert model.fallback_orders == (1,)
    assert probability(model, 1, model.words.index("a")) == pytest.approx(0.5 / 2 + 0.5 / 3)
    assert probability(model, 1, model.words.index("<unk>")) == pytest.approx(0.5 / 3)


def test_bigrams_worked_by_hand():
    model = build(["a"], order=2)
    bigrams = model.orders[1]
    row = np.flatnonzero(bigrams.word == model.words.index("a"))[0]
    assert probability(model, 2, row) == pytest.approx(0.5 + 0.5 * 5 / 12)
    assert 10 ** model.orders[0].log10_backoff[model.words.index("<s>")] == pytest.approx(0.5)


def test_discounts_of_chen_and_goodman():
    counts = np.array([1, 1, 1, 1, 2, 2, 3, 4])  # Y = 4 / (4 + 2 * 2)
    assert _discounts(counts) == pytest.approx(
        [0, 1 - 2 * 0.5 * 2 / 4, 2 - 3 * 0.5 * 1 / 2, 3 - 4 * 0.5 * 1 / 1]
    )


def test_a_discount_of_nothing_is_none(tmp_path):
    """What follows <s> would keep all of its share, and nothing would be left for other words."""
    assert _discounts(np.array([1, 1, 2, 2, 2, 3, 3, 3])) is not None
    assert _discounts(np.array([1, 1, 2, 3, 3])) is None
    build(["a a a a b b", "a"], 2).write_arpa(tmp_path / "lm.arpa")
    assert "-inf" not in (tmp_path / "lm.arpa").read_text()


def test_words_count_by_what_they_follow():
    model = build(["san francisco"] * 5 + ["a b", "c b", "d b"], order=2)
    of = {word: probability(model, 1, i) for i, word in enumerate(model.words)}
    assert of["francisco"] < of["b"]


@pytest.mark.parametrize("prune", [(), (0, 1), (0, 0, 1)])
def test_bigrams_sum_to_one(prune):
    model = build(TEXT, 3, prune)
    unigrams, bigrams = model.orders[:2]
    single = 10**unigrams.log10_probability
    single[1] = 0  # <s> is never predicted
    assert single.sum() == pytest.approx(1)
    for context in (1, 3, 4, 5):
        whole = single * 10 ** unigrams.log10_backoff[context]
        mine = bigrams.context == context
        whole[bigrams.word[mine]] = 10 ** bigrams.log10_probability[mine]
        assert whole.sum() == pytest.approx(1)


def test_pruning_leaves_rare_ngrams_out():
    sizes = [[len(ngrams.word) for ngrams in build(TEXT, 3, prune).orders] for prune in ((), (0, 0, 2))]
    assert sizes[0][:2] == sizes[1][:2]
    assert sizes[1][2] < sizes[0][2]


@pytest.mark.parametrize(
    ("sentences", "order", "prune", "message"),
    [
        ([], 3, (), "no text"),
        (["a <s> b"], 3, (), "holds <s>"),
        (["a"], 0, (), "--order is 0"),
        (["a"], 2, (0, 2, 1), "--prune is 0 2 1"),
        (["a b"], 5, (), "lower --order"),
    ],
)
def test_what_cannot_be_built(sentences, order, prune, message):
    with pytest.raises(DecodingError, match=message):
        build(sentences, order, prune)


def test_unwritable(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DecodingError, match="cannot write"):
        build(["a"], 1).write_arpa(tmp_path / "file" / "lm.arpa")
