"""`recipes/an4/sentences.py`: variants keep the classes of their words."""

import random
import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "recipes" / "an4" / "sentences.py"
TRAINING = ["rubout g m e three nine", "p i t t s", "october third nineteen sixty nine", "yes", "a b"]


@pytest.fixture
def script():
    return runpy.run_path(str(SCRIPT))


@pytest.fixture
def variants(script):
    return script["Variants"](TRAINING, ["smith", "jones"], random.Random(1))


def test_words_are_replaced_by_others_of_their_class(variants):
    found = {variants.of("rubout g m e three nine") for _ in range(50)}
    assert len(found) > 40
    for sentence in found:
        first, *code, ten, one = sentence.split()
        assert first == "rubout"
        assert len(code) == 3
        assert all(len(letter) == 1 for letter in code)
        assert {ten, one} <= {"three", "nine"}  # no digit that the training sentences lack
    assert {variants.of("p i t t s") for _ in range(50)} == {"s m i t h", "j o n e s"}
    assert {variants.of("yes") for _ in range(5)} == {"yes"}
    assert len(variants.of("a b").split()) == 2  # letters, but no name


def test_every_sentence_is_written_as_it_is_and_in_variants(script, tmp_path, monkeypatch, capsys):
    (tmp_path / "train.txt").write_text("Yes\nP I T T S\n")
    (tmp_path / "words.dict").write_text("smith S M IH1 TH\nit's IH T S\nat AE1 T\n")
    arguments = ["sentences.py", "train.txt", "-o", "out.txt", "--words", "words.dict"]
    monkeypatch.setattr("sys.argv", arguments)
    monkeypatch.chdir(tmp_path)
    assert script["main"]() == 0
    lines = (tmp_path / "out.txt").read_text().splitlines()
    assert (lines.count("yes"), lines.count("p i t t s"), lines.count("s m i t h")) == (40, 10, 30)
    (tmp_path / "words.dict").unlink()
    assert script["main"]() == 1
    assert "words.dict" in capsys.readouterr().err
