"""When each token and word of a known text was said: CTC forced alignment, and word edges from the sound's energy.

CTC is sure of a token for a frame or two and says blank for the rest of its sound (Zeyer et al. 2021), so that a
word's first and last token say where it is, not where it starts and ends. The edges are looked for between one word's
last token and the next word's first.
"""

import warnings
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from asr.decoding.greedy import Hypothesis, collapse
from asr.errors import AlignmentError
from asr.text import BLANK

HOP_SECONDS = 0.01  # of the energy
BELOW_SPEECH_DB = 35.0  # quieter than the loud parts by more than this is silence,
ABOVE_NOISE_DB = 10.0  # and so is what the quietest parts are not exceeded by as much
LEAST_PAUSE_SECONDS = 0.04  # shorter dips are inside words
REACH_SECONDS = (
    0.6  # behind a pause a word starts no earlier before its first token; before one it ends likewise
)
SHARE = 0.7  # of the time between two words with no pause between them, that the first one gets


def align(log_probs: Tensor, tokens: Sequence[int]) -> Hypothesis:
    """Find the most probable place of a known text's tokens, as if they had been decoded.

    Arguments: log_probs (frame, token), blank at 0; tokens, without blanks.
    Raises AlignmentError where there are no tokens, or more than fit into the frames.

    >>> path = torch.tensor([0, 1, 1, 0, 2])
    >>> align(torch.nn.functional.one_hot(path, 3) * 9.0, [1, 2]).frames
    [(1, 2), (4, 4)]
    """
    if not tokens:
        raise AlignmentError("there is no word in the text; expected what is said in the audio")
    needed = len(tokens) + sum(a == b for a, b in pairwise(tokens))  # a blank parts the same token twice
    if len(log_probs) < needed:
        raise AlignmentError(
            f"the text needs {needed} frames for its {len(tokens)} tokens and the audio has {len(log_probs)}; "
            "is it the text of this audio?"
        )
    from torchaudio.functional import forced_align

    log_probs = log_probs.float().cpu()
    with warnings.catch_warnings():  # of what torchaudio leaves out in later versions
        warnings.simplefilter("ignore")
        path, scores = forced_align(log_probs[None], torch.tensor([list(tokens)]), blank=BLANK)
    return collapse(path[0].numpy(), scores[0].numpy(), np.arange(len(log_probs)))


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
        border = end + round(SHARE * (start - end))
        ends.append(pause[0] if pause else border)
        starts.append(pause[1] if pause else border)
    ends.append(end_after(at[-1][1]))
    return [(s * HOP_SECONDS, e * HOP_SECONDS) for s, e in zip(starts, ends, strict=True)]


def loud_hops(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Say for every HOP_SECONDS of samples (time,) in [-1, 1] whether something is said: (hop,) bool."""
    hop = round(HOP_SECONDS * sample_rate)
    count = len(samples) // hop
    if not count:
        return np.zeros(0, bool)
    power = np.square(samples[: count * hop], dtype=np.float64).reshape(count, hop).mean(1)
    decibels = 10 * np.log10(np.convolve(power, np.full(3, 1 / 3), "same")[:count] + 1e-10)
    quiet, speech = np.percentile(decibels, [5, 95])
    return decibels > max(speech - BELOW_SPEECH_DB, min(quiet + ABOVE_NOISE_DB, speech - 3))


def _longest_quiet(loud: np.ndarray, begin: int, end: int) -> tuple[int, int] | None:
    """Find the longest pause in [begin, end), where there is one."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], loud[begin:end], [True]]).astype(int)))
    pauses = edges.reshape(-1, 2) + begin
    if not len(pauses):
        return None
    start, stop = pauses[np.argmax(pauses[:, 1] - pauses[:, 0])]
    return (int(start), int(stop)) if stop - start >= LEAST_PAUSE_SECONDS / HOP_SECONDS else None
