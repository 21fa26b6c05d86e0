"""N-gram models by interpolated modified Kneser-Ney smoothing (Chen & Goodman 1999), written as ARPA files.

The estimates are those of KenLM's lmplz (Heafield et al. 2013): unigrams interpolate with a uniform distribution over
the vocabulary, <unk> included and <s> left out, and n-grams that begin a sentence keep their plain counts.
"""

import gzip
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asr.errors import DecodingError
from asr.files import replacing

UNKNOWN, BEGIN, END = 0, 1, 2  # ids of the words that every model has
SPECIAL_WORDS = ("<unk>", "<s>", "</s>")
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)  # lmplz's, for text too small to estimate them
LOG10_ZERO = -99.0  # what ARPA files write for the probability of <s>, which is never predicted


@dataclass(frozen=True)
class Ngrams:
    """The n-grams of one order, (ngram,) each; unigrams are numbered as the vocabulary.

    `context` and `suffix` are the rows of the first and of the last n-1 words in the order below, `word` the last
    word's id. `log10_backoff` is 0 where nothing follows.
    """

    context: np.ndarray
    suffix: np.ndarray
    word: np.ndarray
    log10_probability: np.ndarray
    log10_backoff: np.ndarray


@dataclass(frozen=True)
class NgramModel:
    """An estimated model: the words by id, and the n-grams of each order, unigrams first.

    `fallback_orders` are those whose discounts could not be estimated from so little text.
    """

    words: list[str]
    orders: list[Ngrams]
    fallback_orders: tuple[int, ...] = ()

    def write_arpa(self, path: str | Path) -> None:
        """Write an ARPA file, compressed where the name ends in .gz, whole or not at all; raises DecodingError.

        What exists and is no file, as a pipe, is written to.
        """
        path = Path(path)
        try:
            if path.exists() and not path.is_file():
                self._write(path, open)
                return
            path = path.resolve()  # a link stays one
            with replacing(path) as scratch:
                self._write(scratch, gzip.open if path.suffix == ".gz" else open)
        except OSError as error:
            raise DecodingError(f"cannot write {path}: {error.strerror or error}") from error

    def _write(self, path: Path, opened: Callable) -> None:
        with opened(path, "wt", encoding="utf-8") as file:
            file.writelines(self.arpa_lines())

    def arpa_lines(self) -> Iterator[str]:
        """Yield the lines of the ARPA file."""
        yield "\\data\\\n"
        for n, ngrams in enumerate(self.orders, start=1):
            yield f"ngram {n}={len(ngrams.word)}\n"
        names: list[str] = []
        for n, ngrams in enumerate(self.orders, start=1):
            yield f"\n\\{n}-grams:\n"
            words = ngrams.word.tolist()
            if n == 1:
                names = self.words
            else:
                pairs = zip(ngrams.context.tolist(), words, strict=True)
                names = [f"{names[context]} {self.words[word]}" for context, word in pairs]
            columns = (ngrams.log10_probability.tolist(), names, ngrams.log10_backoff.tolist())
            if n < len(self.orders):
                yield from (f"{p:.7g}\t{name}\t{b:.7g}\n" for p, name, b in zip(*columns, strict=True))
            else:
                yield from (f"{p:.7g}\t{name}\n" for p, name, _ in zip(*columns, strict=True))
        yield "\n\\end\\\n"


@dataclass(frozen=True)
class _Counts:
    """N-grams of one order as counted: rows as in Ngrams, and how often each occurs."""

    context: np.ndarray
    suffix: np.ndarray
    word: np.ndarray
    occurrences: np.ndarray
    begins: np.ndarray  # whether it begins with <s>
    unknown: np.ndarray  # whether it holds <unk>


def build(
    sentences: Iterable[str],
    order: int,
    prune: Sequence[int] = (),
    max_words: int | None = None,
    vocabulary: Collection[str] | None = None,
) -> NgramModel:
    """Estimate a model from sentences of words parted by white space.

    `vocabulary` names the words that the model knows; all others are one, <unk>. None: every word of the text. `prune`
    gives for each order, unigrams first and the last for the rest, the number of occurrences up to which n-grams are
    left out; it must not fall and starts with 0. `max_words` keeps the most frequent words; the others are <unk>, and
    n-grams that hold it are left out. Raises DecodingError where there is no text, or it holds one of <s>, </s>, <unk>.

    >>> model = build(["a b", "a c"], order=2)
    >>> model.words, [len(ngrams.word) for ngrams in model.orders]
    (['<unk>', '<s>', '</s>', 'a', 'b', 'c'], [6, 5])
    """
    thresholds = _thresholds(prune, order)
    words, stream, position = _numbered(sentences, vocabulary)
    if max_words is not None:
        words, stream = _most_frequent(words, stream, max_words)
    counts = _count(stream, position, len(words), order)
    adjusted = _adjusted(counts)

    orders: list[Ngrams] = []
    fallback = []
    uniform = np.full(1, 1 / (len(words) - 1))  # over all words but <s>
    # Probabilities of the order below; row of each after pruning.
    lower, lower_row = uniform, np.zeros(1, dtype=np.int64)
    for n, (ngrams, count) in enumerate(zip(counts, adjusted, strict=True), start=1):
        discounts = _discounts(count)
        if discounts is None:
            discounts = np.array((0.0, *FALLBACK_DISCOUNTS))
            fallback.append(n)
        kept = (ngrams.occurrences > thresholds[n - 1]) & ~ngrams.unknown
        if n == 1:
            kept[:] = True
        discount = np.where(kept, discounts[np.minimum(count, 3)], count)
        contexts = len(lower_row)
        total = np.bincount(ngrams.context, count, minlength=contexts)
        freed = np.bincount(ngrams.context, discount, minlength=contexts)
        backoff = np.divide(freed, total, out=np.ones(contexts), where=total > 0)
        context, suffix = ngrams.context[kept], ngrams.suffix[kept]
        probability = (count - discount)[kept] / total[context] + backoff[context] * lower[lower_row[suffix]]
        if n > 1:
            _store_backoff(orders[-1], backoff, lower_row)
        orders.append(
            Ngrams(
                lower_row[context],
                lower_row[suffix],
                ngrams.word[kept],
                np.log10(probability),
                np.zeros(len(probability)),
            )
        )
        lower, lower_row = probability, np.where(kept, np.cumsum(kept) - 1, -1)
    orders[0].log10_probability[BEGIN] = LOG10_ZERO
    return NgramModel(words, orders, tuple(fallback))


def _adjusted(counts: list[_Counts]) -> list[np.ndarray]:
    """Return the count of each n-gram that is discounted, by order.

    Below the highest order it is the number of different words that the n-gram follows, except at the beginning of a
    sentence, where nothing precedes.
    """
    adjusted = [
        np.where(low.begins, low.occurrences, np.bincount(high.suffix, minlength=len(low.word)))
        for low, high in itertools.pairwise(counts)
    ] + [counts[-1].occurrences]
    adjusted[0] = adjusted[0].copy()
    adjusted[0][BEGIN] = 0
    return adjusted


def _store_backoff(ngrams: Ngrams, backoff: np.ndarray, row: np.ndarray) -> None:
    kept = row >= 0
    ngrams.log10_backoff[row[kept]] = np.log10(backoff[kept])


def _thresholds(prune: Sequence[int], order: int) -> list[int]:
    if order < 1:
        raise DecodingError(f"--order is {order}; expected 1 or more, 3 to 5 as a rule")
    given = [0, *prune[1:]] if prune else [0]
    if list(prune) != sorted(prune) or (prune and prune[0] != 0) or len(prune) > order:
        raise DecodingError(
            f"--prune is {' '.join(map(str, prune))}; expected at most {order} numbers that start with 0 and do not "
            "fall, as in 0 0 1"
        )
    return given + given[-1:] * (order - len(given))


def _numbered(
    sentences: Iterable[str], vocabulary: Collection[str] | None
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Number the words: (words by id, ids of all sentences with <s> and </s>, each one's place in its sentence)."""
    ids = {word: i for i, word in enumerate(SPECIAL_WORDS)}
    known = None if vocabulary is None else frozenset(vocabulary)
    stream: list[int] = []
    lengths: list[int] = []
    for line, sentence in enumerate(sentences, start=1):
        words = sentence.split()
        for special in SPECIAL_WORDS:
            if special in words:
                raise DecodingError(
                    f"sentence {line} of the text holds {special}, which the model adds itself"
                )
        if known is not None:
            words = [word if word in known else SPECIAL_WORDS[UNKNOWN] for word in words]
        if words:
            stream.append(BEGIN)
            stream.extend([ids.setdefault(word, len(ids)) for word in words])
            stream.append(END)
            lengths.append(len(words) + 2)
    if not lengths:
        raise DecodingError("there is no text to build a language model from")
    starts = np.cumsum(lengths) - lengths
    position = np.arange(len(stream)) - np.repeat(starts, lengths)
    return list(ids), np.array(stream, dtype=np.int64), position


def _most_frequent(words: list[str], stream: np.ndarray, most: int) -> tuple[list[str], np.ndarray]:
    """Keep so many words, the first met of those that are as frequent: (words by id, ids of the text)."""
    special = len(SPECIAL_WORDS)
    frequency = np.bincount(stream, minlength=len(words))[special:]
    kept = np.sort(np.argsort(-frequency, kind="stable")[:most]) + special
    ids = np.full(len(words), UNKNOWN)
    ids[:special] = np.arange(special)
    ids[kept] = np.arange(special, special + len(kept))
    return [*SPECIAL_WORDS, *(words[row] for row in kept)], ids[stream]


def _count(stream: np.ndarray, position: np.ndarray, n_words: int, order: int) -> list[_Counts]:
    """Count the n-grams of each order; an n-gram is numbered by its first n-1 words' row and its last word."""
    word = np.arange(n_words)
    zeros = np.zeros(n_words, dtype=np.int64)
    occurrences = np.bincount(stream, minlength=n_words)
    counts = [_Counts(zeros, zeros, word, occurrences, word == BEGIN, word == UNKNOWN)]
    row = stream  # of the n-gram that ends at each place of the stream
    for n in range(2, order + 1):
        ends = np.flatnonzero(position >= n - 1)
        if not len(ends):
            raise DecodingError(
                f"no sentence has the {n - 2} words that an n-gram of order {n} needs; lower --order"
            )
        key = row[ends - 1] * n_words + stream[ends]
        unique, first, inverse, occurrences = np.unique(
            key, return_index=True, return_inverse=True, return_counts=True
        )
        context = unique // n_words
        below, last = counts[-1], unique % n_words
        unknown = below.unknown[context] | (last == UNKNOWN)
        suffix = row[ends[first]]
        counts.append(_Counts(context, suffix, last, occurrences, below.begins[context], unknown))
        row = np.full(len(stream), -1)
        row[ends] = inverse
    return counts


def _discounts(count: np.ndarray) -> np.ndarray | None:
    """Discounts of counts 0, 1, 2, and 3 or more (Chen & Goodman 1999, equation 26); None where too few counts.

    None also where one is 0: what follows a context whose counts are all that one would leave nothing to back off with.
    """
    t1, t2, t3, t4 = (np.count_nonzero(count == k) for k in (1, 2, 3, 4))
    if not (t1 and t2 and t3):
        return None
    y = t1 / (t1 + 2 * t2)
    discounts = np.array([0, 1 - 2 * y * t2 / t1, 2 - 3 * y * t3 / t2, 3 - 4 * y * t4 / t3])
    return discounts if (discounts[1:] > 0).all() else None
