"""Audio of any length in pieces: overlapping windows, cut where it is quiet, and the frame at which two are joined."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

WINDOW_SECONDS = 20.0  # from one seam to the next, at most
SEARCH_SECONDS = 15.0  # at the end of which the quietest place becomes the seam
OVERLAP_SECONDS = 2.0  # that both windows hear beyond their seam
QUIET_SECONDS = (
    0.3  # over which energy is averaged: a pause between words, not the closure of a stop inside one
)


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
            cut = (
                seam
                + longest
                - search
                + quietest(held[seam + longest - search : seam + longest], sample_rate)
            )
            times = (offset / sample_rate, (offset + seam) / sample_rate, (cut - seam) / sample_rate)
            yield Window(held[: cut + overlap], *times, last=False)
            begin = (cut - overlap) // step * step
            held, offset, seam = held[begin:], offset + begin, cut - begin
    times = (offset / sample_rate, (offset + seam) / sample_rate, (len(held) - seam) / sample_rate)
    yield Window(held, *times, last=True)


def quietest(samples: np.ndarray, sample_rate: int) -> int:
    """Find the middle of the QUIET_SECONDS with the least energy, as an index of samples (time,)."""
    width = round(QUIET_SECONDS * sample_rate)
    energy = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    return int(np.argmin(energy[width:] - energy[:-width])) + width // 2


def joint(before: np.ndarray, after: np.ndarray) -> int:
    """Find where to leave one window for the next: a frame at which neither hears a token, far from any.

    Arguments: before and after, (frame,) bool, whether each of them says blank at the frames that both heard.
    Returns the middle of their longest common run of blanks, or of all frames where there is none. The first and last
    eighth is left alone: there one of the two hears only a part of what is said.

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
