"""What is wrong with a corpus and needs no audio to be seen: ids, transcripts, speakers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from asr.data.corpora.doctor.findings import Finding, Target, shared
from asr.data.cuts import Cut, speaker_of, text_of
from asr.errors import TextError
from asr.text import SENTENCEPIECE_SPACE, Tokenizer, normalize

# Without a model's alphabet, a letter is of the corpus if this share of its transcripts, and two of them, hold it;
# of a small corpus all letters are.
LETTER_SHARE = 1 / 2000
FEWEST_FOR_LETTERS = 500
# How far an utterance's duration may be from what its words and letters take: so many robust standard deviations of
# the logarithm, and this factor. Of 40 transcripts of AN4's 948 that were exchanged 2 to 8 are found, and no other.
PACE_DEVIATIONS = 4.5
PACE_FACTOR = 2.0
FEWEST_FOR_PACE = 50
LEAST_EXPECTED = 0.1  # seconds


def check_texts(splits: Mapping[str, Sequence[Cut]], target: Target | None = None) -> list[Finding]:
    """Look for what needs no audio: ids, transcripts, speakers. About a second for 30,000 utterances.

    Arguments as in `check`.
    """
    target = target or Target()
    texts = {
        name: [normalize(text_of(cut) or "", target.normalizer).strip() for cut in cuts]
        for name, cuts in splits.items()
    }
    alphabet = _alphabet(texts, target.tokenizer)
    likely = _likely_durations(splits, texts)
    findings = []
    for name, cuts in splits.items():
        seen: set[str] = set()
        for index, (cut, text) in enumerate(zip(cuts, texts[name], strict=True)):
            if cut.id in seen:
                findings.append(Finding("duplicate", name, index, cut.id, "an earlier line has this id"))
            seen.add(cut.id)
            if found := _fault_of_text(cut, text, alphabet, likely[name][index], target):
                findings.append(Finding(found[0], name, index, cut.id, found[1]))
    sentences = {name: [(text, repr(text[:60])) for text in those] for name, those in texts.items()}
    speakers = {
        name: [(speaker_of(cut), f"speaker {speaker_of(cut)}") for cut in cuts]
        for name, cuts in splits.items()
    }
    return findings + shared("same sentence", splits, sentences) + shared("same speaker", splits, speakers)


def _fault_of_text(
    cut: Cut, text: str, alphabet: set[str], likely: float, target: Target
) -> tuple[str, str] | None:
    if not text:
        raw = text_of(cut)
        return "empty", "no transcript" if raw is None else f"nothing is left of {raw!r}"
    if strays := sorted(set(text) - alphabet):
        return "letters", f"{' '.join(map(repr, strays))} in {text[:60]!r}"
    if target.frames is not None:
        tokens: Sequence = text
        if target.tokenizer is not None:
            try:
                tokens = target.tokenizer.encode(text)
            except TextError as error:
                return "letters", str(error)
        # CTC needs a blank between equal neighbors (Graves et al. 2006).
        needed = len(tokens) + sum(left == right for left, right in pairwise(tokens))
        frames = target.frames(cut.duration)
        if needed > frames:
            return "too long", f"{needed} frames are needed, {cut.duration:.2f} s give {frames}"
    if not np.isnan(likely):
        words = len(text.split())
        return (
            "pace",
            f"{cut.duration:.1f} s, where {words} words like these take {likely:.1f} s: {text[:60]!r}",
        )
    return None


def _alphabet(texts: Mapping[str, Sequence[str]], tokenizer: Tokenizer | None) -> set[str]:
    if tokenizer is not None:
        return set().union(*tokenizer.tokens[1:]) - {SENTENCEPIECE_SPACE} | {" "}
    trained = next(iter(texts.values()), ())
    holding = Counter(letter for text in trained for letter in set(text))
    least = max(2, len(trained) * LETTER_SHARE) if len(trained) >= FEWEST_FOR_LETTERS else 1
    return {letter for letter, count in holding.items() if count >= least} | {" "}


def _likely_durations(
    splits: Mapping[str, Sequence[Cut]], texts: Mapping[str, Sequence[str]]
) -> dict[str, np.ndarray]:
    """Return `unusual_durations` of each split, fitted to all of them together."""
    usable = {
        name: [place for place, cut in enumerate(cuts) if texts[name][place] and cut.duration > 0]
        for name, cuts in splits.items()
    }
    places = [(name, place) for name, those in usable.items() for place in those]
    durations = np.array([splits[name][place].duration for name, place in places])
    found = unusual_durations(durations, [texts[name][place] for name, place in places])
    likely = {name: np.full(len(cuts), np.nan) for name, cuts in splits.items()}
    for (name, place), seconds in zip(places, found, strict=True):
        likely[name][place] = seconds
    return likely


def unusual_durations(durations: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """Return the durations that transcripts make likely, where they are far from the true ones; NaN elsewhere.

    Arguments: durations in seconds, above 0; texts, normalized, none empty. The likely duration is linear in words and
    letters, fitted by robust regression (Huber 1964). Fewer than FEWEST_FOR_PACE utterances tell nothing.
    """
    if len(texts) < FEWEST_FOR_PACE:
        return np.full(len(texts), np.nan)
    sizes = np.array([[1.0, len(text.split()), len(text.replace(" ", ""))] for text in texts])
    weights = np.ones(len(texts))
    for _ in range(20):
        root = np.sqrt(weights)
        solution = np.linalg.lstsq(sizes * root[:, None], durations * root, rcond=None)[0]
        likely = np.maximum(sizes @ solution, LEAST_EXPECTED)
        off = np.log(durations / likely)
        off -= np.median(off)
        deviation = max(1.4826 * float(np.median(np.abs(off))), 1e-3)  # of a normal distribution
        # Errors are relative; beyond two deviations they count as their first power.
        weights = np.minimum(1, 2 * deviation / np.maximum(np.abs(off), 1e-9)) / likely**2
    is_far = np.abs(off) > max(PACE_DEVIATIONS * deviation, np.log(PACE_FACTOR))
    return np.where(is_far, likely, np.nan)
