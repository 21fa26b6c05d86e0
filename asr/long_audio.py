"""Audio of any length: overlapping windows, cut where it is quiet, and their log-probabilities joined again."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from asr.decoding.alignment import HOP_SECONDS, loud_hops
from asr.decoding.greedy import Hypothesis, concatenate
from asr.text import BLANK

# From one seam to the next, at most.
WINDOW_SECONDS = 20.0
# At the end of a window, the stretch whose quietest place becomes the seam.
SEARCH_SECONDS = 15.0
# What both windows hold beyond their seam.
OVERLAP_SECONDS = 2.0
# The time over which energy is averaged: a pause between words, not the closure of a stop inside one.
QUIET_SECONDS = 0.3


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


def windows(blocks: Iterable[np.ndarray], sample_rate: int, step: int = 1) -> Iterator[Window]:
    """Cut a recording, read block by block, into windows; no more than a block and a window is held.

    Arguments: blocks, (time,) float32 each, consecutive; sample_rate in Hz; step in samples, of which every window's
    first sample is a multiple, so that frames of so many samples are the same in all of them. What is no longer than
    WINDOW_SECONDS stays whole.

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
            begin, end = seam + longest - search, seam + longest
            cut = begin + quietest(held[begin:end], sample_rate)
            times = (offset / sample_rate, (offset + seam) / sample_rate, (cut - seam) / sample_rate)
            yield Window(held[: cut + overlap], *times, last=False)
            begin = (cut - overlap) // step * step
            held, offset, seam = held[begin:], offset + begin, cut - begin
    times = (offset / sample_rate, (offset + seam) / sample_rate, (len(held) - seam) / sample_rate)
    yield Window(held, *times, last=True)


def quietest(samples: np.ndarray, sample_rate: int) -> int:
    """Return the middle of the QUIET_SECONDS with the least energy, as an index of samples (time,)."""
    width = round(QUIET_SECONDS * sample_rate)
    energy = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    return int(np.argmin(energy[width:] - energy[:-width])) + width // 2


def joint(before: np.ndarray, after: np.ndarray) -> int:
    """Return where to leave one window for the next: a frame at which neither finds a token, far from any.

    Arguments: before and after, (frame,) bool, whether each of them finds a blank at the frames that both hold.
    Returns the middle of their longest common run of blanks, or of all frames where there is none. The first and last
    eighth is left alone: there one of the two holds only a part of what is spoken.

    >>> joint(np.array([1, 1, 0, 1, 1, 1, 0, 1], bool), np.array([1, 1, 0, 0, 1, 1, 1, 1], bool))
    5
    """
    margin = len(before) // 8
    blank = (before & after)[margin : len(before) - margin]
    edges = np.flatnonzero(np.diff(np.concatenate([[False], blank, [False]]).astype(int)))
    if not len(edges):
        return len(before) // 2
    begins, ends = edges[::2], edges[1::2]
    longest = int(np.argmax(ends - begins))
    return margin + int(begins[longest] + ends[longest]) // 2


class Joiner:
    """Joins what a model computes for the windows of one recording.

    Arguments: sample_rate in Hz; seconds_per_frame of the log-probabilities; tokens, how many columns of them are of
    tokens, None for all.

    Attributes:
        parts: decoded stretches, each with the number of its first frame.
        seams: seconds at which a window took over from the one before.

    >>> joiner = Joiner(sample_rate=100, seconds_per_frame=0.1)
    >>> window = Window(np.zeros(40, np.float32), 0.0, 0.0, 0.4, last=True)
    >>> first, settled = joiner.add(window, np.zeros((4, 3), np.float32))
    >>> first, settled.shape
    (0, (4, 3))
    """

    def __init__(self, sample_rate: int, seconds_per_frame: float, tokens: int | None = None):
        self.sample_rate, self.seconds_per_frame, self.tokens = sample_rate, seconds_per_frame, tokens
        self.parts: list[tuple[int, Hypothesis]] = []
        self.seams: list[float] = []
        self._loud: list[np.ndarray] = []
        # Log-probabilities that wait for the next window, where the two are joined; and the first one's number.
        self._waiting: np.ndarray | None = None
        self._first = 0

    def add(self, window: Window, log_probs: np.ndarray) -> tuple[int, np.ndarray]:
        """Take the log-probabilities (frame, token) of the next window.

        Returns the number of the first frame that is settled by it, and the log-probabilities of the settled ones.
        """
        if window.seam:
            self.seams.append(window.seam)
        self._loud.append(_between_seams(loud_hops(window.samples, self.sample_rate), window))
        begin = round(window.offset / self.seconds_per_frame)
        waiting = log_probs[:0] if self._waiting is None else self._waiting
        before = waiting[begin - self._first :]  # of the frames that both windows hold
        common = min(len(before), len(log_probs))
        blanks = [part[:common, : self.tokens].argmax(-1) == BLANK for part in (before, log_probs)]
        leave = joint(*blanks)
        first, settled = self._first, waiting[: begin - self._first + leave]
        self._first, self._waiting = begin + leave, log_probs[leave:]
        return first, np.concatenate([settled, self._waiting]) if window.last else settled

    def hypothesis(self) -> Hypothesis:
        """Return the decoded parts as one."""
        return concatenate(self.parts)

    def loud(self) -> np.ndarray:
        """Return what `loud_hops` finds in the recording: (hop,) bool."""
        return np.concatenate(self._loud)


def _between_seams(hops: np.ndarray, window: Window) -> np.ndarray:
    """Return those of a window's hops (hop,) that are not its neighbors'."""
    begin, seam, end = (
        round(second / HOP_SECONDS) for second in (window.offset, window.seam, window.seam + window.seconds)
    )
    return hops[seam - begin :] if window.last else hops[seam - begin : end - begin]
