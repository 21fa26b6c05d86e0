"""Where the errors are: by any field, by length and speaking rate, by word, by character, by place."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from asr.errors import TextError
from asr.scoring.align import DELETION, EQUAL, INSERTION, SUBSTITUTION, align
from asr.scoring.report import ErrorCounts, ErrorReport, score

MOST_GROUPS = 8  # distinct numbers beyond which a field is cut into ranges
RANGES = 5  # of about as many utterances each
SEAM_SECONDS = 2.0  # that the windows of long audio overlap, and so can differ
LETTERS = (1, 2, 3, 4, 6, 9)  # of a word, from which a group begins
PLACES = ("first word", "second word", "in between", "last but one", "last word")


@dataclass(frozen=True)
class Group:
    """A part of the test set and its errors."""

    name: str
    utterances: int
    errors: ErrorCounts


def by_field(report: ErrorReport, name: str, edges: Sequence[float] = ()) -> list[Group]:
    """Return the errors for each value of a field, or for each range of a field of many numbers.

    The ranges hold about as many utterances each, or are parted at `edges`: 16 tells children from adults.

    Beside the report's fields there are "words" (the reference's length) and, where there is a "duration" in
    seconds, "words per second". Raises TextError for a field that there is not, or that has edges and no numbers.

    >>> report = score(["a b", "c d"], ["a x", "c d"], fields={"gender": ["f", "m"]})
    >>> [(group.name, group.errors.rate) for group in by_field(report, "gender")]
    [('f', 0.5), ('m', 0.0)]
    """
    values = [str(value) if isinstance(value, bool) else value for value in _column(report, name)]
    known = {value for value in values if value is not None}
    numeric = all(isinstance(value, int | float) for value in known)
    if edges and not numeric:
        raise TextError(
            f"the field {name!r} cannot be parted at {edges[0]:g}: it holds {min(map(str, known))!r}, not a number"
        )
    if edges:
        return _parted(report, values, sorted(edges))
    if numeric and len(known) > MOST_GROUPS:
        return _by_range(report, values)
    groups = _group(report, ["unknown" if value is None else value for value in values])
    if numeric:
        return sorted(
            groups, key=lambda group: (group.name == "unknown", group.name != "unknown" and float(group.name))
        )
    return sorted(groups, key=lambda group: -group.errors.rate)


def fields_of(report: ErrorReport) -> list[str]:
    """Return the fields worth a breakdown: of more than one value, not a text of its own for each utterance."""
    names = []
    for name in [*report.fields, *_derived(report)]:
        values = set(_column(report, name))
        numeric = all(isinstance(value, int | float) for value in values if value is not None)
        if len(values) > 1 and (numeric or len(values) <= report.utterances / 2):
            names.append(name)
    return names


def _derived(report: ErrorReport) -> dict[str, Callable[[], list]]:
    """Return the fields that follow from the transcripts."""
    words = report.utterance_errors[:, 3].tolist()
    derived = {"words": lambda: words}
    if "duration" in report.fields:
        seconds = report.fields["duration"]
        derived["words per second"] = lambda: [
            n / s if isinstance(s, int | float) and s > 0 else None
            for n, s in zip(words, seconds, strict=True)
        ]
    return derived


def _column(report: ErrorReport, name: str) -> Sequence:
    derived = _derived(report)
    if name in report.fields:
        return report.fields[name]
    if name in derived:
        return derived[name]()
    names = ", ".join([*report.fields, *derived])
    raise TextError(f"there is no field {name!r} to break errors down by; expected one of {names}")


def _by_range(report: ErrorReport, values: Sequence) -> list[Group]:
    known = np.array([np.nan if value is None else value for value in values], dtype=float)
    cuts = np.nanquantile(known, np.linspace(0, 1, RANGES + 1))
    whole = all(isinstance(value, int) for value in values if value is not None)
    cuts = np.unique(np.ceil(cuts) if whole else cuts)
    places = np.clip(np.searchsorted(cuts, known, side="right") - 1, 0, len(cuts) - 2)
    digits = next(n for n in range(3, 18) if n == 17 or len({f"{cut:.{n}g}" for cut in cuts}) == len(cuts))
    names = [f"{low:.{digits}g} to {high:.{digits}g}" for low, high in pairwise(cuts)]
    if whole:  # a range ends before the next begins
        ends = [*cuts[:-1], cuts[-1] + 1]
        names = [
            f"{low:.0f}" if high - low == 1 else f"{low:.0f} to {high - 1:.0f}"
            for low, high in pairwise(ends)
        ]
    labels = [
        "unknown" if np.isnan(value) else names[place] for value, place in zip(known, places, strict=True)
    ]
    groups = {group.name: group for group in _group(report, labels)}
    return [groups[name] for name in [*names, "unknown"] if name in groups]


def _parted(report: ErrorReport, values: Sequence, edges: Sequence[float]) -> list[Group]:
    between = [f"{low:g} to below {high:g}" for low, high in pairwise(edges)]
    names = [f"below {edges[0]:g}", *between, f"from {edges[-1]:g}", "unknown"]
    labels = [names[-1] if value is None else names[bisect_right(edges, value)] for value in values]
    return sorted(_group(report, labels), key=lambda group: names.index(group.name))


def _group(report: ErrorReport, labels: Sequence[Hashable]) -> list[Group]:
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    place = np.array([numbers[label] for label in labels], dtype=np.int64)
    sums = np.zeros((len(numbers), 4), dtype=np.int64)
    np.add.at(sums, place, report.utterance_errors)
    sizes = np.bincount(place, minlength=len(numbers))
    names = {label: f"{label:.4g}" if isinstance(label, float) else str(label) for label in numbers}
    return [
        Group(names[label], int(sizes[n]), ErrorCounts(*sums[n].tolist())) for label, n in numbers.items()
    ]


@dataclass(frozen=True)
class Confusions:
    """Substitutions, deletions and insertions, each with its count."""

    substitutions: Counter[tuple[str, str]]  # (reference, hypothesis)
    deletions: Counter[str]
    insertions: Counter[str]


def word_confusions(report: ErrorReport) -> Confusions:
    """Return the errors by their words.

    >>> word_confusions(score(["two to two"], ["to to too a"])).substitutions.most_common(1)
    [(('two', 'to'), 1)]
    """
    confusions = Confusions(Counter(), Counter(), Counter())
    for _, kind, reference, hypothesis in report.edits():
        _add(confusions, kind, reference, hypothesis)
    return confusions


def character_confusions(report: ErrorReport) -> Confusions:
    """Return the errors by their characters, utterances aligned character by character; a space is shown as ␣."""
    confusions = Confusions(Counter(), Counter(), Counter())
    for index in np.flatnonzero(report.utterance_errors[:, :3].any(axis=1)).tolist():
        sides = ("␣".join(texts[index].split()) for texts in (report.references, report.hypotheses))
        for kind, reference, hypothesis in align(*sides):
            _add(confusions, kind, reference, hypothesis)
    return confusions


def _add(confusions: Confusions, kind: str, reference: str | None, hypothesis: str | None) -> None:
    if kind == SUBSTITUTION:
        confusions.substitutions[str(reference), str(hypothesis)] += 1
    elif kind == DELETION:
        confusions.deletions[str(reference)] += 1
    elif kind == INSERTION:
        confusions.insertions[str(hypothesis)] += 1


def by_place(report: ErrorReport) -> list[Group]:
    """Return the errors by their place in utterances of five words at least, where each has one of every place.

    An insertion belongs to the word before which it stands, at the end to the last.
    """
    counts = np.zeros((len(PLACES), 4), dtype=np.int64)
    long = np.flatnonzero(report.utterance_errors[:, 3] >= len(PLACES)).tolist()
    for index in long:
        length = int(report.utterance_errors[index, 3])
        counts[[0, 1, 3, 4], 3] += 1
        counts[2, 3] += length - 4
        if report.utterance_errors[index, :3].any():
            word = 0
            for kind, _, _ in report.alignment(index):
                at = min(word, length - 1)
                place = at if at < 2 else max(2, at - length + 5)
                if kind != EQUAL:
                    counts[place, "SDI".index(kind)] += 1
                word += kind != INSERTION
    return [
        Group(name, len(long), ErrorCounts(*row)) for name, row in zip(PLACES, counts.tolist(), strict=True)
    ]


def by_seam(
    report: ErrorReport, times: Sequence[Sequence[tuple[float, float]]], seams: Sequence[Sequence[float]]
) -> list[Group]:
    """Return the errors of long audio near the seams of the windows it was recognized in, and away from them.

    `times` are the start and end, in seconds, of each hypothesis's words; `seams` the seconds at which a window
    took over in each utterance. A missed word is taken to stand between its neighbors. Utterances without
    seams, or with other than one time for each word, are left out; no group is returned where none is left.

    >>> report = score("a b c", "a x c")
    >>> [(group.name, group.errors.errors) for group in by_seam(report, [[(0, 1), (8, 9), (15, 16)]], [[8.5]])]
    [('within 2 s of a seam', 1), ('elsewhere in long audio', 0)]
    """
    counts = np.zeros((2, 4), dtype=np.int64)
    long = 0
    for index, (spoken, cuts) in enumerate(zip(times, seams, strict=True)):
        if not cuts or len(spoken) != len(report.hypotheses[index].split()):
            continue
        long += 1
        place = 0
        for kind, *_ in report.alignment(index):
            before = spoken[place - 1] if place else (0.0, 0.0)
            here = spoken[place] if place < len(spoken) else before
            moment = (before[1] + here[0]) / 2 if kind == DELETION else sum(here) / 2
            away = min(abs(moment - cut) for cut in cuts) > SEAM_SECONDS
            counts[int(away)] += [
                kind == SUBSTITUTION,
                kind == DELETION,
                kind == INSERTION,
                kind != INSERTION,
            ]
            place += kind != DELETION
    names = (f"within {SEAM_SECONDS:.0f} s of a seam", "elsewhere in long audio")
    return [
        Group(name, long, ErrorCounts(*row)) for name, row in zip(names, counts.tolist(), strict=True) if long
    ]


def by_letters(report: ErrorReport) -> list[Group]:
    """Return the missed words (substituted or deleted) by their number of letters; insertions are left out."""
    bounds = np.array(LETTERS)
    names = [
        ("1 letter" if low == 1 else f"{low} letters") if high - low == 1 else f"{low} to {high - 1} letters"
        for low, high in pairwise(LETTERS)
    ]

    def place(word: str) -> int:
        return int(np.searchsorted(bounds, len(word), side="right")) - 1

    return _by_word(report, place, [*names, f"{LETTERS[-1]} and more letters"])


def by_familiarity(report: ErrorReport, vocabulary: Collection[str]) -> list[Group]:
    """Return the missed words (substituted or deleted) among those of the vocabulary and those never seen.

    `vocabulary` holds the training transcripts' words. Insertions have no reference word and are left out.
    """
    seen = set(vocabulary)
    return _by_word(report, lambda word: int(word not in seen), ["seen in training", "never seen"])


def _by_word(report: ErrorReport, place: Callable[[str], int], names: Sequence[str]) -> list[Group]:
    """Return reference words, and those missed, by `place(word)`, an index of `names`; groups without words go."""
    words = Counter(word for text in report.references for word in text.split())
    missed = Counter((kind, word) for _, kind, word, _ in report.edits() if word is not None)
    counts = np.zeros((len(names), 4), dtype=np.int64)
    for word, count in words.items():
        row = counts[place(word)]
        row += [missed[SUBSTITUTION, word], missed[DELETION, word], 0, count]
    utterances = Counter(n for text in report.references for n in {place(word) for word in text.split()})
    return [
        Group(name, utterances[n], ErrorCounts(*counts[n].tolist()))
        for n, name in enumerate(names)
        if counts[n, 3]
    ]


def oracle(references: Sequence[str], n_best: Sequence[Sequence[str]], **options) -> ErrorReport:
    """Return the score of each utterance's best hypothesis, which perfect rescoring of the n-best lists would reach.

    `options` are those of `score`. Every list needs one hypothesis at least.

    >>> oracle(["a b"], [["a", "a b", "b"]]).wer
    0.0
    """
    places = [number for number, hypotheses in enumerate(n_best) for _ in hypotheses]
    every = score(
        [references[place] for place in places],
        [hypothesis for hypotheses in n_best for hypothesis in hypotheses],
        normalizer=options.get("normalizer", "none"),
        bootstrap=0,
    )
    best: dict[int, tuple[int, str]] = {}
    for place, errors, hypothesis in zip(
        places, every.utterance_errors[:, :3].sum(axis=1).tolist(), every.hypotheses, strict=True
    ):
        if place not in best or errors < best[place][0]:
            best[place] = errors, hypothesis
    return score(references, [best[place][1] for place in range(len(references))], **options)
