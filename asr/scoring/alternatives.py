"""NIST's alternatives: where a transcript reads `{ a / b }`, the one that fits the other side counts, as in sclite.

Groups may stand in each other, and `@` is no word at all, so that the word in `{ uh / @ }` is optional. Of equally good
alternatives the first counts.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, product

import numpy as np

from asr.errors import TextError
from asr.wording import short

NULL = "@"
MOST = 1000  # readings of a hypothesis with alternatives
# What a substitution, and a deletion or an insertion, cost each aligner.
COSTS = {"jiwer": (1, 1), "sclite": (4, 3), "sclite-s": (4, 3)}

# A parsed text: runs of words as strings, and groups as lists of such texts.
Parsed = list  # of str | list["Parsed"]; Python has no recursive aliases before 3.12
Arc = tuple[int, int, str | None]  # from, to, and the word between; None for none


def parse(text: str) -> Parsed:
    """Return a text's runs of words and groups of alternatives.

    Raises ValueError for a group that is not closed.

    >>> parse("one { two / too } three")
    ['one', [['two'], ['too']], 'three']
    """
    pieces = re.findall(r"[{}]|[^{}]+", text)
    parsed, rest = _sequence(pieces, inside=False)
    return parsed if not rest else [*parsed, " ".join(rest)]


def _sequence(pieces: Sequence[str], inside: bool) -> tuple[Parsed, Sequence[str]]:
    """Return what is read up to the end, or to the brace that closes a group, and what is left."""
    branches: list[Parsed] = [[]]
    while pieces:
        piece, *pieces = pieces
        if piece == "{":
            group, pieces = _sequence(pieces, inside=True)
            branches[-1].append(group)
        elif piece == "}" and inside:
            return [branch for branch in branches if branch] or [[]], pieces
        else:
            first, *others = piece.split("/") if inside else [piece]
            branches[-1] += [first.strip()] if first.strip() else []
            branches += [[other.strip()] if other.strip() else [] for other in others]
    if inside:
        raise ValueError("alternatives are not closed; expected `{ a / b }`")
    return branches[0], pieces


def normalized(text: str, clean: Callable[[str], str]) -> str:
    """Return a text with `clean` applied to each run of words, its groups as they were. Raises ValueError.

    >>> normalized("ONE { TWO / @ }", str.lower)
    'one { two / @ }'
    """
    return _written(parse(text), clean) if "{" in text else clean(text)


def _written(parsed: Parsed, clean: Callable[[str], str]) -> str:
    parts = [
        (part if part == NULL else clean(part))
        if isinstance(part, str)
        else f"{{ {' / '.join(_written(branch, clean) or NULL for branch in part)} }}"
        for part in parsed
    ]
    return " ".join(filter(None, parts))


def resolve(reference: str, hypothesis: str, aligner: str = "jiwer") -> tuple[str, str]:
    """Return both texts with those alternatives that leave the fewest errors.

    Raises TextError for a hypothesis of more than a thousand readings, ValueError for groups that are not closed.

    >>> resolve("{ i'm / i am } here", "i am here")
    ('i am here', 'i am here')
    """
    arcs = _arcs(parse(reference))
    readings = list(islice(_readings(parse(hypothesis)), MOST + 1))
    if len(readings) > MOST:
        raise TextError(f"{short(hypothesis)!r} has more than {MOST} readings; expected fewer alternatives")
    found = [(*_best(arcs, words, *COSTS[aligner]), words) for words in readings]
    _, chosen, words = min(found, key=lambda item: item[0])
    return " ".join(chosen), " ".join(words)


def _readings(parsed: Parsed) -> Iterator[list[str]]:
    """Yield each way to read a text, as words, the first alternatives first."""
    choices = [
        [_words(part)]
        if isinstance(part, str)
        else [words for branch in part for words in islice(_readings(branch), MOST + 1)]
        for part in parsed
    ]
    for way in product(*choices):
        yield [word for words in way for word in words]


def _words(text: str) -> list[str]:
    """Return the words of a run, without the null word."""
    return [word for word in text.split() if word != NULL]


def _arcs(parsed: Parsed) -> list[Arc]:
    """Return a text as a network from node 0 to the last one; arcs lead to higher nodes, and are in their order."""
    arcs: list[Arc] = []

    def walk(part: Parsed, start: int, free: int) -> tuple[int, int]:
        """Add a sequence from node `start`; return its last node and the next free one."""
        for piece in part:
            if isinstance(piece, str):
                for word in _words(piece):
                    arcs.append((start, free, word))
                    start, free = free, free + 1
                continue
            ends = []
            for branch in piece:
                end, free = walk(branch, start, free)
                ends.append(end)
            arcs.extend((end, free, None) for end in ends)
            start, free = free, free + 1
        return start, free

    walk(parsed, 0, 1)
    return arcs


def _best(
    arcs: Sequence[Arc], hypothesis: Sequence[str], substitution: int, gap: int
) -> tuple[int, list[str]]:
    """Return the least cost of aligning a network with words, and the words of the path that has it.

    `cost[node]` is (hypothesis + 1,): of aligning a path to the node with the first words of the hypothesis.
    """
    tilt = gap * np.arange(len(hypothesis) + 1)
    last = arcs[-1][1] if arcs else 0
    into: dict[int, list[Arc]] = defaultdict(list)
    for arc in arcs:
        into[arc[1]].append(arc)
    cost = np.full((last + 1, len(tilt)), np.iinfo(np.int64).max // 2)
    cost[0] = tilt
    for node in range(1, last + 1):
        for start, _, word in into[node]:
            cost[node] = np.minimum(cost[node], _step(cost[start], word, hypothesis, substitution, gap))
        # A run of insertions, each of which costs `gap` more than the cell before.
        cost[node] = np.minimum.accumulate(cost[node] - tilt) + tilt
    path: list[str] = []
    node, column = last, len(hypothesis)
    while node:
        for start, _, word in into[node]:
            reached = _step(cost[start], word, hypothesis, substitution, gap)
            if reached[column] == cost[node, column]:
                break
        else:
            column -= 1
            continue
        if word is not None:
            path.append(word)
            column -= bool(cost[start, column] + gap != cost[node, column])
        node = start
    return int(cost[last, -1]), path[::-1]


def _step(
    before: np.ndarray, word: str | None, hypothesis: Sequence[str], substitution: int, gap: int
) -> np.ndarray:
    """Return the costs behind an arc: its word deleted, or aligned with the hypothesis's word of each column."""
    if word is None:
        return before
    costs = before + gap
    differs = substitution * np.array([word != other for other in hypothesis], dtype=np.int64)
    costs[1:] = np.minimum(costs[1:], before[:-1] + differs)
    return costs
