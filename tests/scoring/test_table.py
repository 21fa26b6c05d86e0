import csv

import pytest

from asr.scoring import score
from asr.scoring.align import align
from asr.scoring.breakdown import word_confusions
from asr.scoring.table import aligned, confusions, per_utterance, results, row, table

ROWS = [{"set": "a|b & c_d", "WER %": "9.50"}, {"set": "e", "WER %": "10.00"}]


def test_text_and_markdown_line_up():
    assert table(ROWS) == "set        WER %\na|b & c_d   9.50\ne          10.00"
    lines = table(ROWS, "markdown").splitlines()
    assert len(set(map(len, lines))) == 1
    assert lines[2].startswith(r"| a\|b & c_d |")


def test_csv_is_read_back():
    assert list(csv.DictReader(table(ROWS, "csv").splitlines())) == ROWS


def test_latex_is_escaped():
    text = table(ROWS, "latex")
    assert r"a|b \& c\_d & 9.50 \\" in text
    assert r"WER \%" in text
    assert text.startswith(r"\begin{tabular}{lr}")


@pytest.mark.parametrize("form", ["text", "markdown", "csv", "latex"])
def test_reports_in_every_form(form, sentences):
    report = score(*sentences)
    text = table([row("an4", report, {"RTF": "0.01"})], form)
    assert f"{100 * report.wer:.2f}" in text
    assert "0.01" in text


def test_wide_and_combining_letters_line_up():
    lines = aligned("u", align(["東京", "cafe\u0301", "x"], ["東", "cafe\u0301", "y"])).splitlines()
    assert lines[1] == "  reference   東京 cafe\u0301 x"
    assert lines[2] == "  hypothesis  東   cafe\u0301 y"
    assert lines[3] == "              S         S"


def test_confusions_are_listed_side_by_side():
    text = confusions(word_confusions(score(["a b c", "a d"], ["x b", "x d y"])), 3)
    assert text.splitlines()[1].split() == ["a", "→", "x", "2", "c", "1", "y", "1"]
    assert confusions(word_confusions(score("a", "a")), 3) == "none"


@pytest.mark.parametrize("form", ["text", "markdown", "csv", "latex"])
def test_tables_of_every_form_tell_how_they_were_counted(form, sentences):
    references = sentences[0]
    speakers = [f"s{i % 4}" for i in range(len(references))]
    a, b = (score(references, side, speakers=speakers, normalizer="basic") for side in sentences)
    drawn = results({"a": a, "b": b}, form, {"a": {"RTF": "0.1"}, "b": {"RTF": "0.2"}}, "system")
    assert "basic" in drawn
    assert "jiwer" in drawn
    assert f"{len(references)} utterances" in drawn
    if form == "csv":
        first, *_ = csv.DictReader(drawn.splitlines())
        assert list(first)[-4:] == ["normalizer", "aligner", "intervals over", "RTF"]
        assert (first["normalizer"], first["RTF"]) == ("basic", "0.1")
    else:
        assert "not for other speakers" in drawn
        assert drawn.count("aligned as jiwer") == 1
    if form == "latex":
        assert drawn.splitlines()[-1].startswith("% normalizer basic")


def test_sets_that_were_counted_in_other_ways_have_a_note_each(sentences):
    a, b = score(*sentences), score(*sentences, aligner="sclite")
    notes = results({"a": a, "b": b}).splitlines()[-2:]
    assert [note.split(",")[1] for note in notes] == [" aligned as jiwer", " aligned as sclite"]
    assert [note.split(":")[0] for note in notes] == ["a", "b"]


def test_every_utterance_as_kaldi_writes_it():
    report = score(["go to bed", "", "yes"], ["go two bed now", "a", "yes"], ids=["u1", "u2", "u3"])
    assert per_utterance(report).splitlines() == [
        "u1 ref  go to  bed ***",
        "u1 hyp  go two bed now",
        "u1 op   C   S   C   I",
        "u1 #csid 2 1 1 0",
        "u2 ref  ***",
        "u2 hyp  a",
        "u2 op    I",
        "u2 #csid 0 0 1 0",
        "u3 ref  yes",
        "u3 hyp  yes",
        "u3 op    C",
        "u3 #csid 1 0 0 0",
    ]
