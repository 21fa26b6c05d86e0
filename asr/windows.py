"""Audio of any length in pieces: overlapping windows, cut where it is quiet, and their words stitched together."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

WINDOW_SECONDS = 20.0  # from one seam to the next, at most
SEARCH_SECONDS = 15.0  # at the end of which the quietest place becomes the seam
OVERLAP_SECONDS = 2.0  # that both windows hear beyond their seam
QUIET_SECONDS = (
    0.3  # over which energy is averaged: a pause between words, not the closure of a stop inside one
)
SAME_WORD_SECONDS = 0.25  # two windows put the same word no further apart than this


class Window(NamedTuple):
    """A piece of a recording.

    Attributes:
        samples: (time,) float32, up to OVERLAP_SECONDS beyond the seams included.
        offset: second of the recording at which the samples begin.
        seam: second at which this window takes over from the one before.
        seconds: from this seam to the next, or to the end.
        last: whether the recording ends with it.
    """

    samples: np.ndarray
    offset: float
    seam: float
    seconds: float
    last: bool


class TimedWord(Protocol):
    """What `stitch` needs to know of a word: its spelling, its times in seconds, its confidence."""

    @property
    def word(self) -> str: ...  # noqa: D102
    @property
    def start(self) -> float: ...  # noqa: D102
    @property
    def end(self) -> float: ...  # noqa: D102
    @property
    def confidence(self) -> float: ...  # noqa: D102


AnyWord = TypeVar("AnyWord", bound=TimedWord)


def windows(blocks: Iterable[np.ndarray], sample_rate: int) -> Iterator[Window]:
    """Cut a recording, read block by block, into windows; no more than a block and a window is held.

    Arguments: blocks, (time,) float32 each, consecutive; sample_rate in Hz. What is no longer than WINDOW_SECONDS
    stays whole.

    >>> [round(window.offset) for window in windows([np.zeros(16000 * 30, np.float32)] * 2, 16000)]
    [0, 3, 8, 13, 19, 24, 29, 34, 39]
    """
    longest, search, overlap = (
        round(seconds * sample_rate) for seconds in (WINDOW_SECONDS, SEARCH_SECONDS, OVERLAP_SECONDS)
    )
    held = np.zeros(0, np.float32)
    offset = seam = 0  # samples: where `held` begins in the recording, and the last seam in `held`
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) > seam + longest + overlap:
            cut = (
                seam
                + longest
                - search
                + quietest(held[seam + longest - search : seam + longest], sample_rate)
            )
            times = (offset / sample_rate, (offset + seam) / sample_rate, (cut - seam) / sample_rate)
            yield Window(held[: cut + overlap], *times, last=False)
            begin = cut - overlap
            held, offset, seam = held[begin:], offset + begin, overlap
    times = (offset / sample_rate, (offset + seam) / sample_rate, (len(held) - seam) / sample_rate)
    yield Window(held, *times, last=True)


def quietest(samples: np.ndarray, sample_rate: int) -> int:
    """Find the middle of the QUIET_SECONDS with the least energy, as an index of samples (time,)."""
    width = round(QUIET_SECONDS * sample_rate)
    energy = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    return int(np.argmin(energy[width:] - energy[:-width])) + width // 2


def stitch(before: Sequence[AnyWord], after: Sequence[AnyWord], seam: float) -> list[AnyWord]:
    """Join the words of two windows that overlap around `seam`; times in seconds of the recording.

    They are joined at the word nearest to the seam that both heard. Where they share none, each keeps its own
    side, and of two words heard at the same moment the more confident stays.
    """
    near = [i for i, word in enumerate(before) if word.end >= seam - OVERLAP_SECONDS]
    shared = [
        (abs(_middle(before[i]) - seam), i, j)
        for i in near
        for j, word in enumerate(after)
        if word.word == before[i].word and abs(_middle(word) - _middle(before[i])) < SAME_WORD_SECONDS
    ]
    if shared:
        _, i, j = min(shared)
        return [*before[: i + 1], *after[j + 1 :]]
    left = [word for word in before if _middle(word) < seam]
    right = [word for word in after if _middle(word) >= seam]
    if left and right and _middle(right[0]) - _middle(left[-1]) < SAME_WORD_SECONDS:
        if left[-1].confidence >= right[0].confidence:
            right.pop(0)
        else:
            left.pop()
    return left + right


def _middle(word: TimedWord) -> float:
    return (word.start + word.end) / 2
