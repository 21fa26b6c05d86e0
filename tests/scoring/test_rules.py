import subprocess

import pytest
from sclite import tool

from asr.errors import TextError
from asr.scoring import score
from asr.scoring.rules import read_rules

GLM = """\
;; NIST's form
* name "test"
* desc "test"
* format = 'NIST1'
* max_nrules = '2500'
* copy_no_hit = 'T'
* case_sensitive = 'F'
[A'S] => [{A IS / A'S }] / [ ] __ [ ] ;; a comment
GOING TO => GONNA / [ ] __ [ ]
GOING => GOES / [ ] __ [ ]
UH => %HESITATION / [ ] __ [ ]
UM => [] / [ ] __ [ ]
B => C / [A ] __
C => D / [ ] __ [ ]
MISTER => MR
"""


def write(path, content):
    path.write_text(content, "utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("colour of the color", "color of the color"),
        ("discolour colour colour", "discolour color color"),
        ("Colour", "Colour"),
        ("uh we uh", "we"),
        ("do n't know", "don't know"),
        ("don't\tknow", "do not know"),
    ],
)
def test_plain_replacements(text, expected, tmp_path):
    rules = "# British\ncolour => color\nuh =>\ndo n't => don't\ndon't\tdo not\n"
    assert read_rules(write(tmp_path / "rules.txt", rules))(text) == expected


@pytest.mark.parametrize(
    "text",
    ["X A'S Y UH", "UH UH HE'S GOING TO GOING XMISTERY", "A B C B", "UM", "UH", "A'S A'S", "GOING UHUH"],
)
def test_a_glm_is_read_as_nist_reads_it(text, tmp_path):
    path = write(tmp_path / "test.glm", GLM)
    done = subprocess.run(
        [tool("rfilter1"), path], input=f" {text} ", capture_output=True, text=True, check=True
    )
    assert read_rules(path)(text) == " ".join(done.stdout.split())


def test_the_case_of_a_glm(tmp_path):
    path = write(tmp_path / "test.glm", GLM)
    assert read_rules(path)("uh UH Uh") == "%hesitation %HESITATION %HESITATION"
    write(path, GLM.replace("case_sensitive = 'F'", "case_sensitive = 'T'"))
    assert read_rules(path)("uh UH") == "uh %HESITATION"


def test_scores_with_alternatives_of_a_glm(tmp_path):
    path = write(tmp_path / "test.glm", GLM)
    report = score(
        ["a's here uh", "a's there"], ["a is here uh", "A'S there"], rules=path, normalizer="basic"
    )
    assert (report.word_errors.errors, report.references) == (0, ("a is here %hesitation", "a is there"))
    assert report.normalizer == "basic, test.glm"
    assert "test.glm " in report.normalizer_version


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rules.txt", "a => b\ncolour\n", "line 2: expected `words => other words`; found 'colour'"),
        ("rules.glm", ";; \n=> b\n", "line 2: expected"),
        ("rules.txt", "# nothing\n", "holds no replacement"),
    ],
)
def test_malformed_rules_are_refused_with_the_line(name, content, message, tmp_path):
    with pytest.raises(TextError, match=message):
        read_rules(write(tmp_path / name, content))


def test_missing_rules(tmp_path):
    with pytest.raises(TextError, match="no file of replacements"):
        read_rules(tmp_path / "absent")
