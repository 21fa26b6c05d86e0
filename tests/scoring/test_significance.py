import json
import re

import pytest
from sclite import mapsswe, write_trn
from systems import mishear

from asr.errors import TextError
from asr.scoring import score
from asr.scoring.significance import compare, compare_all, holm


@pytest.fixture(scope="module")
def systems(sentences):
    references, hypotheses = sentences
    return references, hypotheses, mishear(references, 0.10, seed=5)


@pytest.mark.parametrize("texts", ["ties", "sentences"])
def test_matched_pairs_are_nists(texts, request, tmp_path):
    references, first = request.getfixturevalue(texts)
    second = mishear(references, 0.2, seed=4)
    paths = [
        write_trn(tmp_path / f"{name}.trn", side)
        for name, side in (("r", references), ("a", first), ("b", second))
    ]
    report = mapsswe(paths[0], paths[1:], tmp_path)
    segments = int(re.search(r"# segs: (\d+)", report)[1])
    mean, z = (float(re.search(rf"{name}: *(-?[\d.]+)", report)[1]) for name in ("mean", "Z Stat"))
    test = compare(score(references, first), score(references, second)).matched_pairs
    assert test.segments == segments
    assert test.mean == pytest.approx(mean, abs=6e-4)
    assert test.z == pytest.approx(z, abs=6e-4)


def test_the_better_system_is_found(systems):
    references, worse, better = systems
    a, b = score(references, worse), score(references, better)
    comparison = compare(a, b)
    assert comparison.difference == a.wer - b.wer > 0
    assert comparison.significant
    assert comparison.probability_b_better > 0.99
    low, high = comparison.interval
    assert 0 < low < comparison.difference < high


def test_systems_change_places(systems):
    references, worse, better = systems
    a, b = score(references, worse), score(references, better)
    there, back = compare(a, b), compare(b, a)
    assert there.difference == -back.difference
    assert there.matched_pairs.z == -back.matched_pairs.z
    assert there.matched_pairs.segments == back.matched_pairs.segments


def test_a_system_does_not_differ_from_itself(systems):
    references, hypotheses, _ = systems
    report = score(references, hypotheses)
    comparison = compare(report, report)
    assert (comparison.difference, comparison.matched_pairs.p) == (0, 1)
    assert comparison.probability_b_better == 0.5
    assert not comparison.significant
    assert comparison.utterances() == comparison.words() == []


def test_chance_is_not_called_significant(sentences):
    """Two systems equally bad: at the 5 % level, about one in twenty pairs may look different."""
    references = sentences[0]
    reports = [score(references, mishear(references, 0.1, seed), bootstrap=0) for seed in range(40)]
    pairs = [compare(a, b, bootstrap=100) for a, b in zip(reports[::2], reports[1::2], strict=True)]
    assert sum(pair.significant for pair in pairs) <= 4


@pytest.mark.parametrize(("errors", "p"), [(1, 1), (2, 0.5), (5, 0.0625), (6, 0.03125)])
def test_few_segments_leave_doubt(errors, p):
    """Equal systems would share out n errors so unevenly as often as n coins fall alike."""
    references = ["a b c"] * errors
    comparison = compare(score(references, ["a x c"] * errors), score(references, references))
    assert comparison.matched_pairs.p == pytest.approx(p)
    json.loads(json.dumps(comparison.to_dict(), allow_nan=False))


def test_without_resampling_there_is_no_interval(sentences):
    references, hypotheses = sentences
    comparison = compare(score(references, hypotheses), score(references, references), bootstrap=0)
    assert comparison.interval is None
    assert comparison.significant


def test_what_made_the_difference():
    references = ["the cat sat", "on the mat"]
    a = score(references, ["the cut sat", "on mat"], ids=["u1", "u2"])
    b = score(references, ["the cat sat", "in the mat"], ids=["u1", "u2"])
    comparison = compare(a, b)
    assert comparison.utterances() == [(0, 1)]
    assert comparison.words() == [("cat", 1, 0), ("on", 0, 1), ("the", 1, 0)]
    values = json.loads(json.dumps(comparison.to_dict()))
    assert values["utterances"][0] == {
        "id": "u1",
        "a_errors_minus_b": 1,
        "reference": "the cat sat",
        "a": "the cut sat",
        "b": "the cat sat",
    }


def test_reports_of_other_references_are_refused():
    with pytest.raises(TextError, match="different references"):
        compare(score("a", "a"), score("b", "b"))


def test_holm_is_its_definition():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_several_systems_are_compared_in_pairs(systems):
    references, worse, better = systems
    reports = {
        name: score(references, side) for name, side in zip("wbr", (worse, better, references), strict=True)
    }
    pairs = compare_all(reports, bootstrap=100)
    assert [(pair.a, pair.b, pair.better) for pair in pairs] == [
        ("r", "b", "r"),
        ("r", "w", "r"),
        ("b", "w", "b"),
    ]
    expected = holm([compare(reports[pair.a], reports[pair.b]).matched_pairs.p for pair in pairs])
    assert [pair.adjusted_p for pair in pairs] == expected
    values = json.loads(json.dumps(pairs[0].to_dict(), allow_nan=False))
    assert (values["a"], values["better"], values["significant"]) == ("r", "r", True)
    same = compare_all({"a": reports["b"], "b": reports["b"]}, bootstrap=0)[0]
    assert (same.better, same.adjusted_p) == (None, 1.0)


def test_systems_that_met_different_alternatives():
    references = ["{ one / two } three"] * 9
    a, b = (score(references, [f"{word} three"] * 9, alternatives=True) for word in ("one", "two"))
    assert a.references != b.references
    with pytest.raises(TextError, match="different references"):
        compare(a, b)
    comparison = compare(a, b, alternatives=True)
    assert (comparison.matched_pairs.segments, comparison.difference) == (0, 0.0)
    wrong = score(references, ["four three"] * 9, alternatives=True)
    assert compare(wrong, b, alternatives=True).matched_pairs.segments == 9
