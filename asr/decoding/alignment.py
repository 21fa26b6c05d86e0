"""When each token and word of a known text is spoken: CTC forced alignment, and word edges from the sound's energy.

CTC is sure of a token for a frame or two and finds blanks in the rest of its sound (Zeyer et al. 2021), so that a
word's first and last token show where it is, not where it starts and ends. The edges are looked for between one word's
last token and the next word's first.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from asr.decoding.greedy import Hypothesis, collapse
from asr.errors import AlignmentError

# Of the energy.
HOP_SECONDS = 0.01
# A hop is silent if it is 35 dB below the speech level, or less than 10 dB above the noise floor.
BELOW_SPEECH_DB = 35.0
ABOVE_NOISE_DB = 10.0
# Shorter dips are inside words.
LEAST_PAUSE_SECONDS = 0.04
# A word starts no earlier before its first token, and ends no later behind its last one.
REACH_SECONDS = 0.6
# Of the time between two words without a pause between them, the share of the first.
PAUSE_SPLIT = 0.7
# Log-probability in place of what is none, so that sums of it still compare.
LOWEST = -1e30


def align(log_probs: np.ndarray, tokens: Sequence[int]) -> Hypothesis:
    """Find the most probable place of a known text's tokens, as if they had been decoded.

    Arguments: log_probs (frame, token), blank at 0; tokens, without blanks.
    Raises AlignmentError where there are no tokens, or more than fit into the frames.

    >>> path = np.array([0, 1, 1, 0, 2])
    >>> align(np.log(np.eye(3)[path] + 1e-9), [1, 2]).frames
    [(1, 2), (4, 4)]
    """
    if not tokens:
        raise AlignmentError("there is no word in the text; expected what is spoken in the audio")
    needed = frames_needed(tokens)
    if len(log_probs) < needed:
        raise AlignmentError(
            f"the text needs {needed} frames for its {len(tokens)} tokens and the audio has {len(log_probs)}; "
            "is it the text of this audio?"
        )
    path = _best_path(np.nan_to_num(log_probs, nan=LOWEST, neginf=LOWEST), tokens)
    frames = np.arange(len(log_probs))
    return collapse(path, log_probs[frames, path], frames)


def frames_needed(tokens: Sequence[int]) -> int:
    """Return the fewest frames that can spell tokens: a blank stands between two equal ones."""
    return len(tokens) + sum(a == b for a, b in pairwise(tokens))


def _best_path(log_probs: np.ndarray, tokens: Sequence[int]) -> np.ndarray:
    """Return the most probable path (frame,) of token ids that spells `tokens` (Viterbi 1967).

    Its states are the tokens with a blank before, between and behind them (Graves et al. 2006). From one frame to the
    next a path stays, moves on by one state or, over the blank between two different tokens, by two.
    """
    labels = np.zeros(2 * len(tokens) + 1, np.int64)
    labels[1::2] = tokens
    may_skip = np.zeros(len(labels), bool)
    may_skip[3::2] = labels[3::2] != labels[1:-2:2]
    frames, states = len(log_probs), len(labels)
    # Two states in front that no path reaches make the moves slices.
    scores = np.full(states + 2, -np.inf)
    scores[2:4] = log_probs[0, labels[:2]]
    moves = np.zeros((frames, states), np.uint8)
    for frame in range(1, frames):
        # The states that a path can have reached, and from which it can still reach the end.
        low, high = max(0, states - 2 * (frames - frame)), min(states, 2 * frame + 2)
        best = scores[low + 2 : high + 2].copy()
        by_one, by_two = scores[low + 1 : high + 1], scores[low:high]
        move = (by_one > best).astype(np.uint8)
        np.maximum(best, by_one, out=best)
        skips = may_skip[low:high] & (by_two > best)
        move[skips] = 2
        best[skips] = by_two[skips]
        moves[frame, low:high] = move
        scores[low + 2 : high + 2] = best + log_probs[frame, labels[low:high]]
    state = states - 1 if scores[-1] > scores[-2] else states - 2
    path = np.empty(frames, np.int64)
    for frame in range(frames - 1, -1, -1):
        path[frame] = labels[state]
        state -= int(moves[frame, state])
    return path


def word_edges(loud: np.ndarray, cores: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Widen words to where their sound starts and ends.

    Arguments: loud (hop,) bool, as `loud_hops` gives it; cores, for each word in order the seconds from its first
    token to the end of its last. Returns (start, end) in seconds for each word.
    """
    if not cores or not len(loud):
        return list(cores)
    total, reach = len(loud), round(REACH_SECONDS / HOP_SECONDS)
    at = [tuple(min(round(second / HOP_SECONDS), total) for second in core) for core in cores]

    def start_before(first: int) -> int:
        begin = max(first - reach, 0)
        pause = _longest_quiet(loud, begin, first)
        return pause[1] if pause else begin

    def end_after(last: int) -> int:
        stop = min(last + reach, total)
        pause = _longest_quiet(loud, last, stop)
        return pause[0] if pause else stop

    starts, ends = [start_before(at[0][0])], []
    for (_, end), (start, _) in pairwise(at):
        start = max(start, end)
        if start - end > 2 * reach:  # too far apart to touch: what is loud between them is not theirs
            ends.append(end_after(end))
            starts.append(start_before(start))
            continue
        pause = _longest_quiet(loud, end, start)
        border = end + round(PAUSE_SPLIT * (start - end))
        ends.append(pause[0] if pause else border)
        starts.append(pause[1] if pause else border)
    ends.append(end_after(at[-1][1]))
    return [(s * HOP_SECONDS, e * HOP_SECONDS) for s, e in zip(starts, ends, strict=True)]


def loud_hops(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return for every HOP_SECONDS of samples (time,) in [-1, 1] whether something is spoken: (hop,) bool."""
    hop = round(HOP_SECONDS * sample_rate)
    count = len(samples) // hop
    if not count:
        return np.zeros(0, bool)
    power = np.square(samples[: count * hop], dtype=np.float64).reshape(count, hop).mean(1)
    decibels = 10 * np.log10(np.convolve(power, np.full(3, 1 / 3), "same")[:count] + 1e-10)
    # As np.percentile, which imports numpy's masked arrays: a tenth of the time that a short file takes.
    quiet, speech = np.interp([0.05 * (count - 1), 0.95 * (count - 1)], np.arange(count), np.sort(decibels))
    return decibels > max(speech - BELOW_SPEECH_DB, min(quiet + ABOVE_NOISE_DB, speech - 3))


def _longest_quiet(loud: np.ndarray, begin: int, end: int) -> tuple[int, int] | None:
    """Return the longest pause in [begin, end), where there is one."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], loud[begin:end], [True]]).astype(int)))
    pauses = edges.reshape(-1, 2) + begin
    if not len(pauses):
        return None
    start, stop = pauses[np.argmax(pauses[:, 1] - pauses[:, 0])]
    return (int(start), int(stop)) if stop - start >= LEAST_PAUSE_SECONDS / HOP_SECONDS else None
