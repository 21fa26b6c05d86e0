"""Notices where references and hypotheses differ in writing rather than in words."""

import re
import unicodedata
from collections.abc import Callable, Iterable

import numpy as np

from asr.scoring.align import count_errors
from asr.scoring.report import ErrorReport

NUMBER_WORDS = frozenset(
    word
    for line in (
        "zero oh one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen",
        "sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred",
        "thousand million billion first second third fourth fifth sixth seventh eighth ninth tenth",
    )
    for word in line.split()
)
SHARE = 0.5  # of the errors: "mostly"
ALONE = 0.9  # of what vanishes: nearly all
FEWEST = 5  # errors below which there is no notice
SAMPLE = 10_000  # utterances with errors that are looked at


def writing_notice(report: ErrorReport) -> str | None:
    """Return a notice if at least half of the errors vanish without regard to habits of writing.

    The habits are case, punctuation, the forms of Unicode, and numbers in digits or in (English) words.

    >>> from asr.scoring.report import score
    >>> writing_notice(score(["go there"] * 5, ["Go There"] * 5))
    '10 of 10 word errors vanish without regard to case: choose a normalizer that evens it out'
    """
    wrong = np.flatnonzero(report.utterance_errors[:, :3].any(axis=1))[:SAMPLE].tolist()
    pairs = [(report.references[index], report.hypotheses[index]) for index in wrong]
    errors = _errors(pairs)
    if errors < FEWEST:
        return None

    def vanished(habits: Iterable[str]) -> int:
        return errors - _errors([_without(habits, *pair) for pair in pairs])

    most = vanished(HABITS)
    if most < SHARE * errors:
        return None
    # Named are the habits that count: without any of the others nearly as many errors vanish.
    named = list(HABITS)
    for habit in HABITS:
        others = [other for other in named if other != habit]
        if vanished(others) >= ALONE * most:
            named = others
    share = f"{most} of {errors} word errors vanish"
    return f"{share} without regard to {', '.join(named)}: choose a normalizer that evens it out"


def _errors(pairs: list[tuple[str, str]]) -> int:
    references, hypotheses = (
        ((text.split() for text in side) for side in zip(*pairs, strict=True)) if pairs else ((), ())
    )
    return int(count_errors(references, hypotheses)[:, :3].sum())


def _case(reference: str, hypothesis: str) -> tuple[str, str]:
    return reference.casefold(), hypothesis.casefold()


def _punctuation(reference: str, hypothesis: str) -> tuple[str, str]:
    return re.sub(r"[^\w\s]|_", "", reference), re.sub(r"[^\w\s]|_", "", hypothesis)


def _unicode(reference: str, hypothesis: str) -> tuple[str, str]:
    return unicodedata.normalize("NFKC", reference), unicodedata.normalize("NFKC", hypothesis)


def _numbers(reference: str, hypothesis: str) -> tuple[str, str]:
    """Return both texts with each run of numbers as one sign, where one side writes digits and the other does not."""
    if bool(re.search(r"\d", reference)) == bool(re.search(r"\d", hypothesis)):
        return reference, hypothesis
    return _sign(reference), _sign(hypothesis)


def _sign(text: str) -> str:
    words = ((word, re.sub(r"\W", " ", word).split() or [word]) for word in text.split())
    signs = ("#" if _is_number(parts) else word for word, parts in words)
    return re.sub(r"#( and #| #)+", "#", " ".join(signs))


def _is_number(parts: list[str]) -> bool:
    return all(part[:1].isdigit() or part.casefold() in NUMBER_WORDS for part in parts)


def _without(habits: Iterable[str], reference: str, hypothesis: str) -> tuple[str, str]:
    for name in habits:
        reference, hypothesis = HABITS[name](reference, hypothesis)
    return reference, hypothesis


HABITS: dict[str, Callable[[str, str], tuple[str, str]]] = {  # in the order in which they are evened out
    "numbers in digits or words": _numbers,
    "Unicode's forms": _unicode,
    "case": _case,
    "punctuation": _punctuation,
}
