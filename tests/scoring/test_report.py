import json

import jiwer
import pytest

from asr.errors import TextError
from asr.scoring import ErrorReport, score
from asr.scoring.table import summary, worst


@pytest.mark.parametrize(
    ("reference", "hypothesis"),
    [
        ("", ""),
        ("", "silence is golden"),
        ("a", ""),
        ("a", "b"),
        ("привет мир", "привет мир!"),
        ("x  y", "x y"),
    ],
)
def test_rates_are_jiwers_at_the_edges(reference, hypothesis):
    report = score(reference, hypothesis)
    assert report.wer == jiwer.wer(reference, hypothesis)
    if (
        "  " not in reference
    ):  # jiwer counts a second space as a character, which no recognizer is to blame for
        assert report.cer == jiwer.cer(reference, hypothesis)


def test_an_empty_reference_among_others_adds_its_insertions():
    references, hypotheses = ["one two", ""], ["one two", "three"]
    assert score(references, hypotheses).wer == jiwer.wer(references, hypotheses) == 0.5


def test_counts_of_utterances_and_sentences():
    report = score(["a b", "c", "d"], ["a b", "x", ""], ids=["u1", "u2", "u3"])
    assert (report.utterances, report.words, report.sentence_errors) == (3, 4, 2)
    assert report.sentence_error_rate == pytest.approx(2 / 3)
    assert report.utterance_errors.tolist() == [[0, 0, 0, 2], [1, 0, 0, 1], [0, 1, 0, 1]]
    assert list(report.edits()) == [(1, "S", "c", "x"), (2, "D", "d", None)]


@pytest.mark.parametrize("aligner", ["jiwer", "sclite"])
def test_json_there_and_back(sentences, aligner):
    references, hypotheses = sentences
    speakers = [f"s{i % 30}" for i in range(len(references))]
    fields = {"duration": [float(i) for i in range(len(references))]}
    report = score(references, hypotheses, speakers=speakers, fields=fields, aligner=aligner)
    text = report.to_json()
    back = ErrorReport.from_json(text)
    assert back == report
    assert (back.utterance_errors == report.utterance_errors).all()
    values = json.loads(text)
    assert values["wer"] == report.wer
    assert values["hypotheses"][0].keys() == {
        "id",
        "reference",
        "hypothesis",
        "errors",
        "speaker",
        "duration",
    }
    counts = report.utterance_errors[0].tolist()
    assert list(values["hypotheses"][0]["errors"].items()) == list(
        zip(("substitutions", "deletions", "insertions", "words"), counts, strict=True)
    )
    assert values["resampled"] == "speakers"
    assert values["blocks"] == 30


def test_nothing_to_score():
    report = score([], [])
    assert (report.wer, report.utterances, report.wer_interval, worst(report)) == (0.0, 0, None, "")
    assert ErrorReport.from_json(report.to_json()) == report
    assert "0" in summary(report)


@pytest.mark.parametrize("what", ["hypotheses", "ids", "speakers"])
def test_columns_of_other_lengths_are_refused(what):
    arguments = {"references": ["a", "b"], "hypotheses": ["a", "b"]} | {what: ["a"]}
    with pytest.raises(TextError, match=f"2 references but 1 {what.rstrip('s')[:6]}"):
        score(**arguments)


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"hypotheses": 3}'])
def test_json_that_is_no_report(text):
    with pytest.raises(TextError, match="not"):
        ErrorReport.from_json(text)


def test_unknown_aligner():
    with pytest.raises(TextError, match="jiwer, sclite"):
        score("a", "a", aligner="nist")


def test_worst_utterances_come_first_and_are_aligned():
    report = score(["a b c", "d e", "f"], ["a b c", "x y z", "g"], ids=["u1", "u2", "u3"])
    first, second = worst(report).split("\n\n")
    assert first.splitlines() == [
        "u2: 3 errors in 2 words (2 substitutions, 1 insertion)",
        "  reference   * d e",
        "  hypothesis  x y z",
        "              I S S",
    ]
    assert second.startswith("u3: 1 error in 1 word (1 substitution)")
    assert worst(report, 1) == first


def test_table_says_how_it_was_counted(sentences):
    references, hypotheses = sentences
    report = score(references, hypotheses, speakers=[f"s{i % 9}" for i in range(len(references))])
    table = summary(report)
    assert f"{100 * report.wer:.2f}" in table
    assert "normalizer none, aligned as jiwer, intervals over 9 speakers" in table


def test_few_speakers_are_not_resampled(sentences):
    references, hypotheses = sentences
    report = score(references, hypotheses, speakers=[f"s{i % 4}" for i in range(len(references))])
    assert (report.resampled, report.blocks) == ("utterances", len(references))


def test_sclite_takes_no_notice_of_case_or_of_its_null_word():
    references, hypotheses = ["One @ two", "É"], ["ONE two @", "é"]
    assert score(references, hypotheses, aligner="sclite").utterance_errors.tolist() == [
        [0, 0, 0, 2],
        [1, 0, 0, 1],
    ]
    assert score(references, hypotheses, aligner="sclite-s").utterance_errors[0].tolist() == [1, 0, 0, 2]
    assert score(references, hypotheses).words == 4


def test_in_one_line(sentences):
    report = score(["a b c"] * 2, ["a b c", "a b"])
    assert str(report).startswith("WER 16.67 % [0.00, ")
    assert str(report).endswith("], 6 words")
