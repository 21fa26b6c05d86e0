import csv

import pytest

from asr.scoring import score
from asr.scoring.align import align
from asr.scoring.breakdown import word_confusions
from asr.scoring.table import aligned, confusions, row, table

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
