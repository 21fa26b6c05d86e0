"""Which of two systems is better on the same utterances, and is the difference more than chance?"""

from collections import Counter
from dataclasses import asdict, dataclass
from math import copysign, erfc, sqrt
from statistics import NormalDist

import numpy as np

from asr.errors import TextError
from asr.scoring.align import DELETION, EQUAL, INSERTION, SUBSTITUTION, align_kinds
from asr.scoring.intervals import DRAWS, block_sums, blocks
from asr.scoring.intervals import bootstrap as resample
from asr.scoring.report import ErrorReport

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
        """Tell whether the matched-pair test finds a difference at the 5 % level."""
        return self.matched_pairs.p < 0.05

    def utterances(self) -> list[tuple[int, int]]:
        """Give (index, A's errors minus B's) of utterances where they differ, the most first."""
        difference = _errors(self.a) - _errors(self.b)
        order = np.argsort(-np.abs(difference), kind="stable")
        return [(int(index), int(difference[index])) for index in order if difference[index]]

    def words(self) -> list[tuple[str, int, int]]:
        """Give (reference word, times A missed it, times B did) where they differ, the most first."""
        a, b = (
            Counter(str(reference) for _, kind, reference, _ in report.edits() if kind in MISSED)
            for report in (self.a, self.b)
        )
        rows = [(word, a[word], b[word]) for word in a | b if a[word] != b[word]]
        return sorted(rows, key=lambda row: (-abs(row[1] - row[2]), row[0]))

    def to_dict(self) -> dict:
        """Give the comparison as plain values for JSON, each system's report without its transcripts."""
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


def compare(a: ErrorReport, b: ErrorReport, *, bootstrap: int = DRAWS) -> Comparison:
    """Compare two systems' reports on the same utterances in the same order.

    Resamples speakers (utterances where speakers are unknown or fewer than five), both systems on the same
    draws. Raises TextError if the reports are of different references.

    >>> from asr.scoring import score
    >>> references = ["one two three", "four five six"] * 20
    >>> a = score(references, ["one to three", "four five six"] * 20)
    >>> b = score(references, ["one two three", "four five six"] * 20)
    >>> comparison = compare(a, b)
    >>> round(comparison.difference, 3), comparison.probability_b_better, comparison.matched_pairs.segments
    (0.167, 1.0, 20)
    """
    if a.ids != b.ids or a.references != b.references:
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
    differences are a sample whose mean can be tested.
    """
    words = list(map(str.split, a.references))
    kinds = [align_kinds(words, map(str.split, report.hypotheses), "sclite") for report in (a, b)]
    differences = [difference for pair in zip(*kinds, strict=True) for difference in _segments(*pair)]
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
    """Give the share of all ways to swap the systems in segments that differ at least as much (Fisher 1935)."""
    chances = {0: 1.0}
    for size in map(abs, differences):
        grown: dict[int, float] = {}
        for total, chance in chances.items():
            for other in (total - size, total + size):
                grown[other] = grown.get(other, 0.0) + chance / 2
        chances = grown
    return min(1.0, sum(chance for total, chance in chances.items() if abs(total) >= abs(sum(differences))))


def _segments(a: str, b: str) -> list[int]:
    """Cut one utterance, aligned for both systems, into segments; give A's errors minus B's in each."""
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
    """Count errors before the first reference word, in it, before the second, in it, ..., after the last.

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
