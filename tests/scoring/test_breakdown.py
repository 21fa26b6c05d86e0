import pytest

from asr.errors import TextError
from asr.scoring import score
from asr.scoring.breakdown import (
    by_familiarity,
    by_field,
    by_letters,
    by_place,
    by_seam,
    character_confusions,
    fields_of,
    oracle,
    word_confusions,
)


def test_groups_add_up_to_the_whole(sentences):
    references, hypotheses = sentences
    fields = {
        "speaker": [f"s{i % 20}" for i in range(len(references))],
        "duration": [0.3 * len(text.split()) + i % 5 for i, text in enumerate(references)],
        "snr": [None if i % 3 == 0 else i % 40 for i in range(len(references))],
        "note": [f"note {i}" for i in range(len(references))],
        "corpus": ["an4"] * len(references),
    }
    report = score(references, hypotheses, fields=fields, bootstrap=0)
    assert fields_of(report) == ["speaker", "duration", "snr", "words", "words per second"]
    for name in fields_of(report):
        groups = by_field(report, name)
        assert sum(group.utterances for group in groups) == report.utterances
        for part in ("substitutions", "deletions", "insertions", "length"):
            assert sum(getattr(group.errors, part) for group in groups) == getattr(report.word_errors, part)


def test_yes_and_no_are_names():
    report = score(["a", "b", "c"], ["a", "x", "c"], fields={"noisy": [True, False, None]})
    assert [group.name for group in by_field(report, "noisy")] == ["False", "True", "unknown"]


def test_ranges_that_differ_little_have_names_that_do():
    values = [1000.1 + 0.01 * i for i in range(50)]
    groups = by_field(score(["a"] * 50, ["a"] * 50, fields={"hertz": values}), "hertz")
    assert sum(group.utterances for group in groups) == 50
    assert len({group.name for group in groups}) == len(groups) > 1


def test_order_of_groups():
    report = score(
        ["a", "b", "c"], ["a", "x", "c"], fields={"who": ["ann", "bob", "ann"], "floor": [10, 9, 10]}
    )
    assert [group.name for group in by_field(report, "who")] == ["bob", "ann"]  # the worst first
    assert [group.name for group in by_field(report, "floor")] == ["9", "10"]  # as numbers go


def test_ranges_of_whole_numbers_do_not_overlap():
    report = score(["a"] * 100, ["a"] * 100, fields={"age": list(range(100))})
    assert [(group.name, group.utterances) for group in by_field(report, "age")] == [
        ("0 to 19", 20),
        ("20 to 39", 20),
        ("40 to 59", 20),
        ("60 to 79", 20),
        ("80 to 99", 20),
    ]


def test_a_field_of_numbers_is_parted_where_asked():
    report = score(
        ["a"] * 5, ["a", "b", "b", "a", "a"], fields={"age": [9, 15.5, 16, None, 40], "who": list("abcde")}
    )
    parted = [(group.name, group.utterances, group.errors.errors) for group in by_field(report, "age", [16])]
    assert parted == [("below 16", 2, 1), ("from 16", 2, 1), ("unknown", 1, 0)]
    assert [group.name for group in by_field(report, "age", [30, 10])] == [
        "below 10",
        "10 to below 30",
        "from 30",
        "unknown",
    ]
    with pytest.raises(TextError, match="the field 'who' cannot be parted at 3: it holds 'a', not a number"):
        by_field(report, "who", [3])


def test_unknown_field_is_refused():
    with pytest.raises(TextError, match="expected one of gender, words"):
        by_field(score(["a", "b c"], ["a", "b"], fields={"gender": ["f", "m"]}), "age")


def test_confusions():
    report = score(["a b c", "a d"], ["x b", "x d b"])
    words = word_confusions(report)
    assert dict(words.substitutions) == {("a", "x"): 2}
    assert dict(words.deletions) == {"c": 1}
    assert dict(words.insertions) == {"b": 1}
    characters = character_confusions(report)
    assert dict(characters.substitutions) == {("a", "x"): 2}
    assert dict(characters.deletions) == {"␣": 1, "c": 1}
    assert dict(characters.insertions) == {"␣": 1, "b": 1}


def test_places():
    report = score(["a b c d e f", "a b"], ["x b c d e g h", "b"])
    places = {group.name: group.errors for group in by_place(report)}
    assert places["first word"].substitutions == 1
    assert places["in between"].length == 2
    assert places["last word"].errors == 2
    assert sum(place.length for place in places.values()) == 6  # the short utterance has no such places


def test_words_never_seen():
    seen, unseen = by_familiarity(score(["the cat sat"], ["the dog"]), {"the", "sat"})
    assert (seen.errors.errors, seen.errors.length) == (1, 2)
    assert (unseen.errors.errors, unseen.errors.length) == (1, 1)


def test_oracle_is_the_best_of_each_list():
    report = oracle(["a b", "c d"], [["a x", "a b"], ["c", "x d e"]], ids=["u1", "u2"])
    assert report.hypotheses == ("a b", "c")
    assert report.wer == 0.25


def test_lengths_of_words():
    groups = by_letters(score(["a bb ccc dddddddddd a"], ["x bb x a"]))
    assert [(group.name, group.errors.errors, group.errors.length) for group in groups] == [
        ("1 letter", 1, 2),
        ("2 letters", 0, 1),
        ("3 letters", 1, 1),
        ("9 and more letters", 1, 1),
    ]


def test_seams():
    report = score(["a b c d", "e f"], ["a c d x", "g"])
    times = [[(1, 2), (19, 20), (21, 22), (39, 40)], [(0, 1)]]
    near, away = by_seam(report, times, [[20.5, 38.0], []])
    # b, missed between 2 and 19 s, stands at 10.5; c and d are near the first seam, x near the second.
    assert (near.errors.insertions, near.errors.deletions, near.errors.length) == (1, 0, 2)
    assert (away.errors.deletions, away.errors.length) == (1, 2)
    assert near.utterances == 1
    assert by_seam(report, times, [[], []]) == []
    assert by_seam(report, [[], []], [[20.5], []]) == []  # the normalizer changed how many words there are
