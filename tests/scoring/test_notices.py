import pytest

from asr.scoring import score
from asr.scoring.notices import writing_notice


@pytest.mark.parametrize(
    ("reference", "hypothesis", "habit"),
    [
        ("HELLO THERE", "hello there", "case"),
        ("well, yes. no?", "well yes no", "punctuation"),
        ("i paid one hundred and five", "i paid 105", "numbers in digits or words"),
        ("caf\u00e9", "cafe\u0301", "Unicode's forms"),
        (
            "Mr. Smith has twenty one dogs",
            "mr smith has 21 dogs",
            "numbers in digits or words, case, punctuation",
        ),
    ],
)
def test_differences_of_writing_are_named(reference, hypothesis, habit):
    assert f"without regard to {habit}:" in str(writing_notice(score([reference] * 5, [hypothesis] * 5)))


@pytest.mark.parametrize(
    ("reference", "hypothesis"), [("one two three", "one five four"), ("a b", "a b"), ("room 12", "room 20")]
)
def test_differences_of_what_was_said_are_not(reference, hypothesis):
    assert writing_notice(score([reference] * 5, [hypothesis] * 5)) is None
