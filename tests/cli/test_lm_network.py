"""`asr lm score`, `judge` and `complete` of recurrent models, and n-grams of their vocabulary."""

import json
import re

import numpy as np
import pytest
from helpers import run_asr
from random_lms import SENTENCES, random_lm

from asr.errors import DecodingError
from asr.lm.kenlm import read_vocabulary, score_text
from asr.lm.scored import ScoredSentence, mix, summarize

pytest.importorskip("flashlight.lib.text")


@pytest.fixture
def place(tmp_path):
    """A folder with a recurrent model `lm`, a text, and an n-gram over the model's words."""
    random_lm("words")[1].bundle.save(tmp_path / "lm")
    text = [*SENTENCES, "a xylophone was red", "The cat's full!"]
    (tmp_path / "text.txt").write_text("\n".join(text) + "\n\n")
    line = "lm build {dir}/text.txt -o {dir}/lm.arpa --order 2 --vocabulary {dir}/lm"
    assert run_asr(line, dir=tmp_path) == 0
    return tmp_path


def test_an_n_gram_of_the_same_vocabulary(place, capsys):
    _, lm = random_lm("words")
    assert set(read_vocabulary(place / "lm.arpa")) == set(lm.units.names[2:])
    # <unk> was seen in training, as other words were.
    unknown = score_text(place / "lm.arpa", ["a xylophone was red"])
    assert unknown.unknown == 1
    assert unknown.log10_unknown > -2
    (place / "words.txt").write_text("the\ncat\n")
    assert (
        run_asr("lm build {dir}/text.txt -o {dir}/few.arpa --order 2 --vocabulary {dir}/words.txt", dir=place)
        == 0
    )
    assert set(read_vocabulary(place / "few.arpa")) == {"the", "cat"}
    random_lm("characters")[1].bundle.save(place / "letters")
    capsys.readouterr()
    assert run_asr("lm build {dir}/text.txt -o {dir}/x.arpa --vocabulary {dir}/letters", dir=place) == 1
    assert "has no vocabulary of words; expected one of words" in capsys.readouterr().err


def test_scores_and_mixtures(place, capsys):
    _, lm = random_lm("words")
    assert run_asr("lm score {dir}/lm {dir}/text.txt --interpolate {dir}/lm.arpa", dir=place) == 0
    printed = capsys.readouterr().out
    result = summarize(lm.score((place / "text.txt").read_text().splitlines()))
    assert f"perplexity {result.perplexity:.2f}, of known words {result.known_perplexity:.2f}" in printed
    assert f"({result.unknown} of {result.words} words in {result.sentences} sentences)" in printed
    first, second, mixed = (float(x) for x in re.findall(r"  perplexity ([\d.]+)", printed))
    assert mixed <= min(first, second) + 0.01
    assert run_asr("lm score {dir}/lm {dir}/text.txt --interpolate {dir}/lm.arpa --share 1", dir=place) == 0
    fixed = [float(x) for x in re.findall(r"  perplexity ([\d.]+)", capsys.readouterr().out)]
    assert fixed[2] == pytest.approx(first, abs=0.01)


def test_what_cannot_be_scored(place, capsys):
    (place / "empty.txt").write_text("...\n")
    (place / "one.txt").write_text("zebra\n")
    assert run_asr("lm build {dir}/one.txt -o {dir}/zebra.arpa --order 2", dir=place) == 0
    for line, message in (
        (
            "lm score {dir}/lm {dir}/text.txt --interpolate {dir}/zebra.arpa",
            "no word of the text is known to both models; expected models of the same words",
        ),
        (
            "lm train {dir}/one.txt -o {dir}/run",
            "the training text has one sentence, which is held out as dev; expected more text",
        ),
        ("lm score {dir}/lm {dir}/empty.txt", "there is no text to score; expected sentences of words"),
        (
            "lm score {dir}/lm.arpa {dir}/text.txt --interpolate {dir}/lm.arpa",
            "is no recurrent model; expected the",
        ),
        ("lm judge '...' --lm {dir}/lm", "there is no word to judge; expected a sentence"),
        ("lm judge yes --lm {dir}/nowhere", "there is no bundle"),
        (
            "lm tune any --model {dir}/lm",
            "no language model was given; expected --lm FILE or --rescore-lm DIR",
        ),
    ):
        assert run_asr(line, dir=place) == 1
        assert message in capsys.readouterr().err
    assert run_asr("lm judge {word} --lm {dir}/lm", dir=place, word="x" * 10_000) == 1
    assert "a word of 10000 letters" in capsys.readouterr().err


def test_judge_and_complete(place, capsys):
    assert run_asr("lm judge 'The cats was full' full --lm {dir}/lm", dir=place) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line] == [
        "word",
        "the",
        "cats",
        "was",
        "full",
        "word",
        "full",
    ]
    assert run_asr("lm judge 'a zebra' --json --lm {dir}/lm", dir=place) == 0
    judged = json.loads(capsys.readouterr().out)
    assert [word["unknown"] for word in judged] == [False, True]
    line = "lm complete 'the cat' -n 3 --top-k 4 --temperature 0.7 --words 4 --lm {dir}/lm"
    printed = []
    for seed in ("", " --seed 1", " --seed 2"):
        assert run_asr(line + seed, dir=place) == 0
        printed.append(capsys.readouterr().out.splitlines())
    assert printed[0] == printed[1] != printed[2]
    assert all(text.startswith("the cat") and len(text.split()) <= 6 for text in printed[0])
    with pytest.raises(SystemExit):
        run_asr("lm complete x --temperature 0 --lm y")
    with pytest.raises(SystemExit):
        run_asr("lm score x y --share 2")


@pytest.mark.parametrize("seed", range(8))
def test_the_best_share_is_the_best(seed):
    log_probs = np.log(np.random.default_rng(seed).uniform(0.01, 1, (2, 12)))
    a, b = (ScoredSentence(["x"] * 11, row, np.zeros(11, bool)) for row in log_probs)
    best = mix([a], [b])
    for share in np.linspace(0, 1, 11):
        assert best.mixed <= mix([a], [b], float(share)).mixed * 1.001


def test_words_that_one_model_lacks_are_left_out_of_mixtures():
    a = ScoredSentence(["x", "y"], np.log([0.5, 0.5, 0.5]), np.array([False, True]))
    b = ScoredSentence(["x", "y"], np.array([np.log(0.25), np.nan, np.log(0.25)]), np.array([False, False]))
    found = mix([a], [b], 0.0)
    assert found.events == 2
    assert (found.first, found.second, found.mixed) == pytest.approx((2.0, 4.0, 4.0))
    with pytest.raises(DecodingError, match="there is no text to score"):
        mix([], [])
