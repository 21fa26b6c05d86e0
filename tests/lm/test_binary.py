"""KenLM's binary files: KenLM finds in them what it finds in the ARPA file."""

import random

import numpy as np
import pytest

from asr.errors import DecodingError
from asr.lm.binary import write_binary
from asr.lm.kenlm import read_vocabulary, score_text
from asr.lm.kneser_ney import build

pytest.importorskip("flashlight.lib.text.decoder")

WORDS = [f"w{i}" for i in range(60)]


def sentences(count, seed):
    """Return random sentences in which the first words of WORDS are frequent."""
    draw = random.Random(seed)
    return [
        " ".join(draw.choice(WORDS[: draw.randint(2, 60)]) for _ in range(draw.randint(1, 9)))
        for _ in range(count)
    ]


@pytest.mark.parametrize(
    ("order", "prune", "max_words"), [(2, (), None), (3, (0, 0, 1), None), (4, (0, 1, 1), 40), (6, (), None)]
)
def test_it_scores_as_the_arpa_file(tmp_path, order, prune, max_words):
    model = build(sentences(400, 0), order, prune, max_words)
    arpa, binary = tmp_path / "lm.arpa", tmp_path / "lm.bin"
    model.write_arpa(arpa)
    write_binary(model, binary)
    assert sorted(read_vocabulary(arpa)) == sorted(read_vocabulary(binary))
    text = [*sentences(300, 1), *sentences(100, 0), "w1 zebra w2"]
    expected, found = score_text(arpa, text), score_text(binary, text)
    assert found.unknown == expected.unknown > 0
    assert found.log10_probability == pytest.approx(expected.log10_probability, rel=1e-3)


def test_a_few_weights_are_kept_exactly(tmp_path):
    model = build(["a b c", "a b", "c a b a"], 3)
    model.write_arpa(tmp_path / "lm.arpa")
    write_binary(model, tmp_path / "lm.bin")
    for text in ("a b c", "c c", "b a b", "a z"):
        scores = [score_text(tmp_path / name, [text]).log10_probability for name in ("lm.arpa", "lm.bin")]
        assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_it_is_far_smaller_than_text(tmp_path):
    model = build(sentences(3000, 0), 3)
    model.write_arpa(tmp_path / "lm.arpa")
    write_binary(model, tmp_path / "lm.bin")
    assert (tmp_path / "lm.bin").stat().st_size < 0.4 * (tmp_path / "lm.arpa").stat().st_size


def test_what_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DecodingError, match="order 1 was asked for"):
        write_binary(build(["a"], 1), tmp_path / "lm.bin")
    with pytest.raises(DecodingError, match="cannot write"):
        write_binary(build(["a b"], 2), tmp_path / "file" / "lm.bin")


def test_the_words_that_are_kept_are_the_most_frequent():
    model = build(["a a a b b c", "d b a"], 2, max_words=2)
    assert model.words == ["<unk>", "<s>", "</s>", "a", "b"]
    pairs = set(zip(model.orders[1].context.tolist(), model.orders[1].word.tolist(), strict=True))
    assert all(0 not in pair for pair in pairs)
    probabilities = 10 ** model.orders[0].log10_probability
    assert np.delete(probabilities, 1).sum() == pytest.approx(1)  # <s> is never predicted
    assert probabilities[0] > 0.1
