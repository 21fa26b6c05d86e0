"""Scored text: log-probabilities word by word, of whatever model, and what follows from them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from asr.errors import DecodingError

LN10 = math.log(10)
ROUNDS = 50  # of expectation maximization; the share of a mixture changes by less than 1e-3 long before


@dataclass(frozen=True)
class ScoredSentence:
    """A sentence's log-probabilities, natural.

    Attributes:
        words: the words.
        log_probs: (word + 1,) float64 of each word behind those before it, and of the sentence's end. A word that the
            model has no token for is NaN where the model is of characters or pieces, else that of `<unk>`.
        unknown: (word,) bool, whether the model lacks the word.
    """

    words: list[str]
    log_probs: np.ndarray
    unknown: np.ndarray

    @property
    def total(self) -> float:
        """Return the log-probability of the sentence with its end, words that have none left out."""
        return float(np.nansum(self.log_probs))


@dataclass(frozen=True)
class TextScore:
    """How well a model predicts a text.

    Attributes:
        sentences, words: their numbers, ends of sentences not among the words.
        unknown: how many words the model does not know.
        log10_probability: of the text, ends of sentences included.
        log10_unknown: the part of it that the unknown words make up.
    """

    sentences: int
    words: int
    unknown: int
    log10_probability: float
    log10_unknown: float

    @property
    def perplexity(self) -> float:
        """Perplexity with unknown words as <unk>, ends of sentences included."""
        return 10 ** (-self.log10_probability / (self.words + self.sentences))

    @property
    def known_perplexity(self) -> float:
        """Perplexity over the known words and the ends of sentences."""
        known = self.log10_probability - self.log10_unknown
        return 10 ** (-known / (self.words - self.unknown + self.sentences))

    @property
    def unknown_rate(self) -> float:
        """Share of words that the model does not know."""
        return self.unknown / self.words


def summarize(scored: Iterable[ScoredSentence]) -> TextScore:
    """Add up the scores of sentences; those without a word are left out. Raises DecodingError where none is left."""
    kept = [sentence for sentence in scored if sentence.words]
    if not kept:
        raise DecodingError("there is no text to score; expected sentences of words")
    of_unknown = sum(float(np.nansum(sentence.log_probs[:-1][sentence.unknown])) for sentence in kept)
    return TextScore(
        len(kept),
        sum(len(sentence.words) for sentence in kept),
        sum(int(sentence.unknown.sum()) for sentence in kept),
        sum(sentence.total for sentence in kept) / LN10,
        of_unknown / LN10,
    )


@dataclass(frozen=True)
class Mixture:
    """Two models, and their linear mixture, over the words that both know and the ends of sentences.

    Attributes:
        share: of the first model.
        events: words and ends of sentences.
        first, second, mixed: perplexities.
    """

    share: float
    events: int
    first: float
    second: float
    mixed: float


def mix(
    first: Sequence[ScoredSentence], second: Sequence[ScoredSentence], share: float | None = None
) -> Mixture:
    """Mix two models' probabilities of the same sentences; a `share` of None is the best one for them.

    The best share is found by expectation maximization (Jelinek & Mercer 1980). Raises DecodingError for sentences none
    of whose words both models know.

    >>> a = ScoredSentence(["x"], np.log([0.8, 0.1]), np.zeros(1, bool))
    >>> b = ScoredSentence(["x"], np.log([0.1, 0.8]), np.zeros(1, bool))
    >>> found = mix([a], [b])
    >>> round(found.share, 3), round(found.mixed, 3), round(found.first, 3)
    (0.5, 2.222, 3.536)
    """
    log_a, log_b = (np.concatenate([s.log_probs for s in side] or [np.zeros(0)]) for side in (first, second))
    known = np.concatenate(
        [np.append(~(a.unknown | b.unknown), True) for a, b in zip(first, second, strict=True)]
        or [np.zeros(0, bool)]
    )
    log_a, log_b = log_a[known], log_b[known]
    if not first:
        raise DecodingError("there is no text to score; expected sentences of words")
    if len(log_a) == len(first):
        raise DecodingError(
            "no word of the text is known to both models; expected models of the same words: `asr lm build "
            "--vocabulary DIR` gives an n-gram those of a recurrent one"
        )
    if share is None:
        share = 0.5
        for _ in range(ROUNDS):
            share = float(np.exp(log_a + math.log(share) - _mixed(log_a, log_b, share)).mean())
            share = min(max(share, 1e-6), 1 - 1e-6)
    values = (log_a, log_b, _mixed(log_a, log_b, share))
    return Mixture(share, len(log_a), *(math.exp(-float(value.mean())) for value in values))


def _mixed(log_a: np.ndarray, log_b: np.ndarray, share: float) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.logaddexp(log_a + np.log(share), log_b + np.log1p(-share))
