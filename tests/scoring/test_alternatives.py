import itertools
import random

import pytest
from sclite import sclite_counts

from asr.errors import TextError
from asr.scoring import score
from asr.scoring.align import count_errors
from asr.scoring.alternatives import parse, resolve


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [  # as sclite prints them
        ("one { two / too } three", "one too three", "one too three"),
        ("one { two / @ } three", "one three", "one three"),
        ("one { two / @ } three", "one four three", "one three"),
        ("one { gonna / going to } three", "one going three", "one going to three"),
        ("one { gonna / going to } three", "one x three", "one gonna three"),
        ("one { a b c / d } three", "one three", "one d three"),
        ("one { @ / a } three", "one b three", "one three"),
        ("one { a / { b / c } d } three", "one c d three", "one c d three"),
        ("one { a / b } { c / d } three", "one b c three", "one b c three"),
        ("one {uh/um} three", "one um three", "one um three"),
        ("one { a / b }", "", "one a"),
        ("one {laugh} two", "one laugh two", "one laugh two"),
        ("and/or { a / b }", "and/or b", "and/or b"),
        ("x { / a } y", "x y", "x a y"),
        ("one } two", "one two", "one } two"),
    ],
)
def test_the_alternative_that_fits_counts(reference, hypothesis, expected):
    assert resolve(reference, hypothesis, "sclite") == (expected, hypothesis)


def test_hypotheses_may_have_alternatives_too():
    assert resolve("one two", "{ one / two } { three / two }") == ("one two", "one two")
    assert resolve("{ a / b } c", "{ b / d } c") == ("b c", "b c")


def test_a_normalizer_sees_each_alternative():
    report = score("{ Two / TOO }!", "too", normalizer="basic", alternatives=True)
    assert (report.references, report.wer) == (("too",), 0.0)


def test_groups_that_are_not_closed_are_refused():
    with pytest.raises(ValueError, match="not closed"):
        parse("one { two / three")


def test_too_many_readings_are_refused():
    with pytest.raises(TextError, match="more than 1000 readings"):
        resolve("a", "{ a / b } " * 12)


def sentences(rng):
    """Yield a reference with alternatives, and a hypothesis."""
    while True:
        words = [rng.choice("abcd") for _ in range(rng.randint(1, 6))]
        for place in range(len(words)):
            if rng.random() < 0.4:
                branches = [
                    " ".join(rng.choices("abcd", k=rng.randint(1, 2))) for _ in range(rng.randint(1, 2))
                ]
                words[place] = f"{{ {words[place]} / {' / '.join([*branches, *rng.choice([[], ['@']])])} }}"
        yield " ".join(words), " ".join(rng.choices("abcd", k=rng.randint(0, 7)))


def expand(text):
    parts = [
        [part] if isinstance(part, str) else [" ".join(branch) for branch in part] for part in parse(text)
    ]
    return [" ".join(way).replace("@", " ").split() for way in itertools.product(*parts)]


@pytest.mark.parametrize(("aligner", "weights"), [("jiwer", (1, 1, 1)), ("sclite", (4, 3, 3))])
def test_no_reading_costs_less(aligner, weights):
    for reference, hypothesis in itertools.islice(sentences(random.Random(5)), 200):
        found = resolve(reference, hypothesis, aligner)[0].split()
        readings = expand(reference)
        assert found in readings
        counts = count_errors([*readings, found], [hypothesis.split()] * (len(readings) + 1), aligner)
        *costs, cost = (counts[:, :3] * weights).sum(axis=1).tolist()
        assert cost == min(costs)


def test_counts_are_sclites(tmp_path):
    pairs = list(itertools.islice(sentences(random.Random(6)), 150))
    for name, texts in zip(("ref", "hyp"), zip(*pairs, strict=True), strict=True):
        lines = (f"{text} (s_{i:05d})\n" for i, text in enumerate(texts))
        (tmp_path / f"{name}.trn").write_text("".join(lines))
    counts = score(*zip(*pairs, strict=True), aligner="sclite", alternatives=True).word_errors
    expected = sclite_counts(tmp_path / "ref.trn", tmp_path / "hyp.trn")
    total = counts.substitutions + counts.deletions + counts.insertions
    assert total == sum(expected[:3])
