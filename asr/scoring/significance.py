"""Which of two systems, or of several, is better on the same utterances, and is the difference more than chance?"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from math import copysign, erfc, sqrt
from statistics import NormalDist

import numpy as np

from asr.errors import TextError
from asr.scoring.align import DELETION, EQUAL, INSERTION, SUBSTITUTION, align_kinds
from asr.scoring.intervals import DRAWS, block_sums, blocks
from asr.scoring.intervals import bootstrap as resample
from asr.scoring.report import ErrorReport

LEVEL = 0.05  # of significance
CORRECT_BETWEEN_SEGMENTS = 2  # NIST's choice
FEW_SEGMENTS = 50  # up to which the normal distribution is not yet near; all signs are counted instead
MISSED = (SUBSTITUTION, DELETION)


@dataclass(frozen=True)
class MatchedPairs:
    """The matched-pair sentence-segment test (Gillick & Cox, 1989) of two systems.

    `mean` is of A's errors minus B's per segment, `z` its value in standard errors, `p` two-sided.
    """

    segments: int
    mean: float
    z: float
    p: float


@dataclass(frozen=True)
class Comparison:
    """Two systems A and B on the same references.

    `difference` is A's word error rate minus B's: above zero, B is better; `interval` holds it with 95 %
    confidence, None where there is nothing to resample. `probability_b_better` is the share of resampled test
    sets on which B has fewer errors, ties counting half (Bisani & Ney, 2004).
    """

    a: ErrorReport
    b: ErrorReport
    difference: float
    interval: tuple[float, float] | None
    probability_b_better: float | None
    resampled: str
    blocks: int
    matched_pairs: MatchedPairs

    @property
    def significant(self) -> bool:
        """Whether the matched-pair test finds a difference at the 5 % level."""
        return self.matched_pairs.p < LEVEL

    def utterances(self) -> list[tuple[int, int]]:
        """Return (index, A's errors minus B's) of utterances where they differ, the most first."""
        difference = _errors(self.a) - _errors(self.b)
        order = np.argsort(-np.abs(difference), kind="stable")
        return [(int(index), int(difference[index])) for index in order if difference[index]]

    def words(self) -> list[tuple[str, int, int]]:
        """Return (reference word, times A missed it, times B did) where they differ, the most first."""
        a, b = (
            Counter(str(reference) for _, kind, reference, _ in report.edits() if kind in MISSED)
            for report in (self.a, self.b)
        )
        rows = [(word, a[word], b[word]) for word in a | b if a[word] != b[word]]
        return sorted(rows, key=lambda row: (-abs(row[1] - row[2]), row[0]))

    def to_dict(self) -> dict:
        """Return the comparison as plain values for JSON, each system's report without its transcripts."""
        reports = {name: report.to_dict() for name, report in (("a", self.a), ("b", self.b))}
        for report in reports.values():
            del report["hypotheses"]
        return {
            **reports,
            "difference": self.difference,
            "interval": self.interval,
            "probability_b_better": self.probability_b_better,
            "resampled": self.resampled,
            "blocks": self.blocks,
            "matched_pairs": asdict(self.matched_pairs),
            "significant": self.significant,
            "utterances": [
                {
                    "id": self.a.ids[index],
                    "a_errors_minus_b": errors,
                    "reference": self.a.references[index],
                    "a": self.a.hypotheses[index],
                    "b": self.b.hypotheses[index],
                }
                for index, errors in self.utterances()
            ],
            "words": [{"word": word, "a_missed": a, "b_missed": b} for word, a, b in self.words()],
        }


@dataclass(frozen=True)
class Pairwise:
    """Two of several systems, by name, and the p-value of their comparison as Holm (1979) adjusts it."""

    a: str
    b: str
    comparison: Comparison
    adjusted_p: float

    @property
    def better(self) -> str | None:
        """Return the better system's name; None if the difference is not significant at the 5 % level."""
        if self.adjusted_p >= LEVEL:
            return None
        return self.b if self.comparison.difference > 0 else self.a

    def to_dict(self) -> dict:
        """Return the comparison as plain values for JSON, without the systems' reports."""
        comparison = self.comparison.to_dict()
        for key in ("a", "b", "significant"):
            del comparison[key]
        adjusted = {
            "adjusted_p": self.adjusted_p,
            "significant": self.better is not None,
            "better": self.better,
        }
        return {"a": self.a, "b": self.b, **adjusted, **comparison}


def compare_all(
    reports: Mapping[str, ErrorReport], *, bootstrap: int = DRAWS, alternatives: bool = False
) -> list[Pairwise]:
    """Compare each two of several systems, the lower error rates first; p-values are adjusted for their number.

    Arguments and errors are those of `compare`.
    """
    ranked = sorted(reports, key=lambda name: reports[name].wer)
    pairs = [
        (a, b, compare(reports[a], reports[b], bootstrap=bootstrap, alternatives=alternatives))
        for a, b in combinations(ranked, 2)
    ]
    adjusted = holm([comparison.matched_pairs.p for _, _, comparison in pairs])
    return [Pairwise(*pair, p) for pair, p in zip(pairs, adjusted, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted so that, of all tests, one errs with the chance of a single one (Holm, 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def compare(
    a: ErrorReport, b: ErrorReport, *, bootstrap: int = DRAWS, alternatives: bool = False
) -> Comparison:
    """Compare two systems' reports on the same utterances in the same order.

    Resamples speakers (utterances where speakers are unknown or fewer than five), both systems on the same
    draws. With `alternatives` an utterance's reference may differ where it had some. Raises TextError if the
    reports are of different references.

    >>> from asr.scoring import score
    >>> references = ["one two three", "four five six"] * 20
    >>> a = score(references, ["one to three", "four five six"] * 20)
    >>> b = score(references, ["one two three", "four five six"] * 20)
    >>> comparison = compare(a, b)
    >>> round(comparison.difference, 3), comparison.probability_b_better, comparison.matched_pairs.segments
    (0.167, 1.0, 20)
    """
    if a.ids != b.ids or (a.references != b.references and not alternatives):
        raise TextError(
            "the two reports are of different references; score both systems on the same utterances"
        )
    numbers, resampled = blocks(a.fields.get("speaker"), a.utterances)
    difference = block_sums(numbers, _errors(a) - _errors(b))
    interval = probability = None
    if len(difference) > 1 and a.words and bootstrap > 0:
        drawn = resample(difference, block_sums(numbers, a.utterance_errors[:, 3]), draws=bootstrap)
        interval = drawn.interval
        probability = float((drawn.draws > 0).mean() + (drawn.draws == 0).mean() / 2)
    return Comparison(
        a=a,
        b=b,
        difference=a.wer - b.wer,
        interval=interval,
        probability_b_better=probability,
        resampled=resampled,
        blocks=len(difference),
        matched_pairs=matched_pairs(a, b),
    )


def matched_pairs(a: ErrorReport, b: ErrorReport) -> MatchedPairs:
    """Compare errors segment by segment, as NIST's `sc_stats -t mapsswe` does, on sclite's alignments.

    A segment is a stretch with errors of either system, ended by two words in a row that both have right, or
    by the utterance's end: errors in different segments hardly depend on each other, so that their
    differences are a sample whose mean can be tested. An utterance of which the systems met different alternatives
    is one segment.
    """
    kinds = [
        align_kinds(map(str.split, report.references), map(str.split, report.hypotheses), "sclite")
        for report in (a, b)
    ]
    rows = zip(a.references, b.references, *kinds, strict=True)
    differences = [
        difference
        for reference, other, *pair in rows
        for difference in (_segments(*pair) if reference == other else _one_segment(*pair))
    ]
    count = len(differences)
    mean = float(np.mean(differences)) if count else 0.0
    spread = float(np.std(differences, ddof=1)) if count > 1 else 0.0
    z = mean / (spread / sqrt(count)) if spread else 0.0
    if mean and not spread:  # all agree: as likely as so many heads or tails in a row
        p = min(1.0, 2 * 0.5**count)
        z = copysign(-NormalDist().inv_cdf(max(p / 2, 1e-300)), mean)
    else:
        p = _p_of_signs(differences) if count <= FEW_SEGMENTS else erfc(abs(z) / sqrt(2))
    return MatchedPairs(count, mean, z, p)


def _p_of_signs(differences: list[int]) -> float:
    """Return the share of all ways to swap the systems in segments that differ at least as much (Fisher 1935)."""
    chances = {0: 1.0}
    for size in map(abs, differences):
        grown: dict[int, float] = {}
        for total, chance in chances.items():
            for other in (total - size, total + size):
                grown[other] = grown.get(other, 0.0) + chance / 2
        chances = grown
    return min(1.0, sum(chance for total, chance in chances.items() if abs(total) >= abs(sum(differences))))


def _one_segment(a: str, b: str) -> list[int]:
    """Return A's errors minus B's in one utterance of which they chose other alternatives."""
    errors = [len(kinds) - kinds.count(EQUAL) for kinds in (a, b)]
    return [errors[0] - errors[1]] if any(errors) else []


def _segments(a: str, b: str) -> list[int]:
    """Return, for each segment of an utterance that is aligned for both systems, A's errors minus B's."""
    segments: list[int] = []
    inside, difference, correct = False, 0, 0  # `correct`: words in a row that both have right
    for errors_a, errors_b in zip(_errors_in_turn(a), _errors_in_turn(b), strict=True):
        if errors_a or errors_b:
            inside, difference, correct = True, difference + (errors_a or 0) - (errors_b or 0), 0
        elif inside and errors_a is not None:
            correct += 1
            if correct == CORRECT_BETWEEN_SEGMENTS:
                segments.append(difference)
                inside, difference = False, 0
    return [*segments, difference] if inside else segments


def _errors_in_turn(kinds: str) -> list[int | None]:
    """Return the numbers of errors before the first reference word, in it, before the second, in it, ..., at the end.

    None stands where no word was inserted, which neither opens a segment nor helps to end one.
    """
    turns: list[int | None] = [None]
    for kind in kinds:
        if kind == INSERTION:
            turns[-1] = (turns[-1] or 0) + 1
        else:
            turns += [int(kind != EQUAL), None]
    return turns


def _errors(report: ErrorReport) -> np.ndarray:
    return report.utterance_errors[:, :3].sum(axis=1)
