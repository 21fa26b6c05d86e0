"""Align hypotheses with their references and count what differs, as jiwer does or as NIST's sclite does.

jiwer takes the fewest errors, each of cost 1 (Levenshtein, 1966), and of equally good alignments the one its
engine rapidfuzz finds. Alignments are jiwer's; counts come from rapidfuzz directly, for a million utterances have to
be counted in seconds, and jiwer's objects take five times as long.
sclite weighs a substitution 4 and a deletion or an insertion 3, so that it prefers three deletions with three
insertions to five substitutions: its totals can exceed the fewest errors. ("sclite-s" aligns as "sclite"; that its
option -s lets case count is a matter of cleaning.py.)
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from rapidfuzz.distance import Levenshtein

EQUAL, SUBSTITUTION, DELETION, INSERTION = "=SDI"
ALIGNERS = ("jiwer", "sclite", "sclite-s")
# Cells of cost matrices that are filled together: 2 MB of steps, some 50 MB of costs.
_CELLS = 2_000_000


class Column(NamedTuple):
    """One column of an alignment: `kind` is =, S, D or I; None stands where a side has no word."""

    kind: str
    reference: str | None
    hypothesis: str | None


def align(reference: Sequence[str], hypothesis: Sequence[str], aligner: str = "jiwer") -> list[Column]:
    """Return the alignment of two sequences of words, or of two strings by character.

    >>> [column.kind for column in align("yes no maybe".split(), "yes now may be".split())]
    ['=', 'I', 'S', 'S']
    """
    return columns(reference, hypothesis, align_kinds([reference], [hypothesis], aligner)[0])


def columns(reference: Sequence[str], hypothesis: Sequence[str], kinds: str) -> list[Column]:
    """Return the columns of an alignment whose kinds are known, a letter each.

    >>> columns(["a"], ["a", "b"], "=I")
    [Column(kind='=', reference='a', hypothesis='a'), Column(kind='I', reference=None, hypothesis='b')]
    """
    found, r, h = [], 0, 0
    for kind in kinds:
        left = None if kind == INSERTION else reference[r]
        right = None if kind == DELETION else hypothesis[h]
        found.append(Column(kind, left, right))
        r += left is not None
        h += right is not None
    return found


def align_kinds(
    references: Iterable[Sequence[str]], hypotheses: Iterable[Sequence[str]], aligner: str = "jiwer"
) -> list[str]:
    """Return each pair's alignment as a string with a letter per column: =, S, D, I.

    >>> align_kinds(["cat", "dogs"], ["cut", "do"])
    ['=S=', '==DD']
    """
    pairs = list(zip(references, hypotheses, strict=True))
    differ = [index for index, (reference, hypothesis) in enumerate(pairs) if reference != hypothesis]
    kinds = [EQUAL * len(reference) for reference, _ in pairs]
    if not differ:
        return kinds
    find = _jiwer_kinds if aligner == "jiwer" else _sclite_kinds
    for index, line in zip(differ, find([pairs[index] for index in differ]), strict=True):
        kinds[index] = line
    return kinds


def count_errors(
    references: Iterable[Sequence[str]], hypotheses: Iterable[Sequence[str]], aligner: str = "jiwer"
) -> np.ndarray:
    """Return (pair, 4) int64 counts of substitutions, deletions, insertions and the reference's length.

    >>> count_errors(["cat", "dogs"], ["cut", "do"]).tolist()
    [[1, 0, 0, 3], [0, 2, 0, 4]]
    """
    if aligner == "jiwer":
        counts = [_count(*pair) for pair in zip(references, hypotheses, strict=True)]
    else:
        kinds = align_kinds(references, hypotheses, aligner)
        counts = [(*map(line.count, "SDI"), len(line) - line.count(INSERTION)) for line in kinds]
    return np.array(counts, dtype=np.int64).reshape(-1, 4)


def _count(reference: Sequence[str], hypothesis: Sequence[str]) -> tuple[int, int, int, int]:
    length = len(reference)
    if reference == hypothesis:
        return 0, 0, 0, length
    errors = [edit[0] for edit in Levenshtein.editops(*_spell(reference, hypothesis)).as_list()]
    substitutions = errors.count("replace")
    # Deletions less insertions are what the hypothesis is shorter by.
    deletions = (len(errors) - substitutions + length - len(hypothesis)) // 2
    return substitutions, deletions, len(errors) - substitutions - deletions, length


def _spell(reference: Sequence[str], hypothesis: Sequence[str]) -> tuple[str, str]:
    """Return words as strings, a character for each distinct word: rapidfuzz is fastest on narrow strings."""
    if isinstance(reference, str):
        return reference, hypothesis  # type: ignore[return-value]
    letters: dict[str, str] = {}
    left = "".join([letters.setdefault(word, chr(len(letters))) for word in reference])
    return left, "".join([letters.setdefault(word, chr(len(letters))) for word in hypothesis])


def _jiwer_kinds(pairs: Sequence[tuple[Sequence[str], Sequence[str]]]) -> list[str]:
    import jiwer

    letters = {"equal": EQUAL, "substitute": SUBSTITUTION, "delete": DELETION, "insert": INSERTION}
    characters = isinstance(pairs[0][0], str)
    parts = jiwer.ReduceToListOfListOfChars() if characters else jiwer.ReduceToListOfListOfWords()
    references, hypotheses = (
        [side if isinstance(side, str) else " ".join(side) for side in sides]
        for sides in ([reference for reference, _ in pairs], [hypothesis for _, hypothesis in pairs])
    )
    return [
        "".join(
            letters[chunk.type]
            * max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
            for chunk in chunks
        )
        for chunks in jiwer.process_words(references, hypotheses, parts, parts).alignments
    ]


def _sclite_kinds(pairs: Sequence[tuple[Sequence[str], Sequence[str]]]) -> list[str]:
    """Return each pair's kinds, pairs of like length aligned together."""
    spelled = [_spell(*pair) for pair in pairs]
    kinds = [""] * len(spelled)
    order = sorted(range(len(spelled)), key=lambda index: tuple(map(len, spelled[index])))
    for batch in _batches(order, spelled):
        for index, line in zip(batch, _sclite_batch([spelled[index] for index in batch]), strict=True):
            kinds[index] = line
    return kinds


def _batches(order: Iterable[int], spelled: Sequence[tuple[str, str]]) -> Iterator[list[int]]:
    batch: list[int] = []
    rows = columns = 1
    for index in order:
        reference, hypothesis = spelled[index]
        rows, columns = max(rows, len(reference) + 1), max(columns, len(hypothesis) + 1)
        if batch and (len(batch) + 1) * rows * columns > _CELLS:
            yield batch
            batch, rows, columns = [], len(reference) + 1, len(hypothesis) + 1
        batch.append(index)
    if batch:
        yield batch


def _sclite_batch(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Fill the pairs' cost matrices row by row and trace each back from its end.

    Of equal costs a substitution goes first, then an insertion. A row's insertions, each costing 3 more than
    the cell before, are the running minimum of cost - 3 * column.
    """
    left, right = (
        _pad(texts, filler) for texts, filler in zip(zip(*pairs, strict=True), (-1, -2), strict=True)
    )
    tilt = 3 * np.arange(right.shape[1] + 1, dtype=np.int32)
    cost = np.tile(tilt, (len(pairs), 1))  # against no reference: insertions only
    steps = np.full((left.shape[1] + 1, *cost.shape), ord(INSERTION), dtype=np.uint8)  # (row, pair, column)
    for row in range(left.shape[1]):
        equal = right == left[:, row, None]
        substitution = cost[:, :-1] + np.where(equal, 0, 4).astype(np.int32)
        deletion = cost + 3
        cost = deletion.copy()
        np.minimum(substitution, deletion[:, 1:], out=cost[:, 1:])
        cost = np.minimum.accumulate(cost - tilt, axis=1) + tilt
        insertion = cost[:, :-1] + 3
        step = steps[row + 1]
        step[:, 0] = ord(DELETION)
        step[:, 1:][deletion[:, 1:] < insertion] = ord(DELETION)
        diagonal = (substitution <= deletion[:, 1:]) & (substitution <= insertion)
        step[:, 1:][diagonal] = np.where(equal, ord(EQUAL), ord(SUBSTITUTION))[diagonal]

    pair = np.arange(len(pairs))
    row, column = (np.array(list(map(len, texts))) for texts in zip(*pairs, strict=True))
    trace = []
    while (unfinished := (row > 0) | (column > 0)).any():
        step = np.where(unfinished, steps[row, pair, column], 0)
        trace.append(step.astype(np.uint8))
        row, column = (
            row - (unfinished & (step != ord(INSERTION))),
            column - (unfinished & (step != ord(DELETION))),
        )
    return [line.tobytes().decode().lstrip("\0") for line in np.stack(trace[::-1], axis=1)]


def _pad(texts: Sequence[str], filler: int) -> np.ndarray:
    """Return (text, letter) int32 of the letters' numbers."""
    padded = np.full((len(texts), max(map(len, texts))), filler, dtype=np.int32)
    for line, text in zip(padded, texts, strict=True):
        line[: len(text)] = list(map(ord, text))
    return padded
