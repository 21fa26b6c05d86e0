"""KenLM's binary files (Heafield 2011): tries in packed bits with quantized weights, mapped into memory, not read.

The layout is that of KenLM's format 5, model "trie with quantization". The trie holds n-grams by their words from the
last to the first: an n-gram's children are those of one more word in front.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from asr.errors import DecodingError
from asr.files import replacing
from asr.lm.kneser_ney import NgramModel, Ngrams

# The numbers 0, 1, -1/2, 1 and the last word's id, by which a reader finds out that it stores them in the same way.
SANITY = struct.pack(
    "<56s3f3IQ", b"mmap lm http://kheafield.com/code format version 5\n", 0, 1, -0.5, 1, 2**32 - 1, 0, 1
)
# Order, size of hash tables (unused here), kind of model, whether the words are at the end, version of the trie.
PARAMETERS = struct.Struct("<B3xfI?3xI")
QUANTIZED_TRIE, TRIE_VERSION, QUANTIZER_VERSION = 3, 1, 2
# Bits of a log-probability, and of a backoff; two of the backoff's codes are those of 0, for an n-gram that no word
# follows and for one that is followed.
BITS = 8
ZERO_BACKOFFS = np.array([-0.0, 0.0], np.float32)
# N-grams whose bits are packed at a time.
BLOCK = 1 << 15
MURMUR = 0xC6A4A7935BD1E995


@dataclass(frozen=True)
class _Level:
    """The n-grams of one order in the order of the trie.

    Attributes:
        rows: their rows in the model's arrays.
        place: place in the trie of each row.
        first_word: id of the first word of each row.
    """

    rows: np.ndarray
    place: np.ndarray
    first_word: np.ndarray

    @classmethod
    def sorted_by(cls, key: np.ndarray, first_word: np.ndarray) -> "_Level":
        rows = np.argsort(key)
        place = np.empty_like(rows)
        place[rows] = np.arange(len(rows))
        return cls(rows, place, first_word)


def write_binary(model: NgramModel, path: str | Path) -> None:
    """Write a KenLM binary, whole or not at all; weights become the nearest of 256 values for each order.

    Raises DecodingError for a model of order 1, and where the file cannot be written.
    """
    if len(model.orders) < 2:
        raise DecodingError("a KenLM binary of order 1 was asked for; expected order 2 or more")
    path = Path(path)
    try:
        with replacing(path) as scratch, scratch.open("wb") as file:
            file.writelines(_parts(model))
    except OSError as error:
        raise DecodingError(f"cannot write {path}: {error.strerror or error}") from error


def _parts(model: NgramModel) -> Iterator[bytes]:
    """Yield the parts of the file: header, hashes of the words, quantizers, trie by order, words."""
    unigrams, *longer = model.orders
    counts = [len(ngrams.word) for ngrams in model.orders]
    hashes = np.array([murmur_hash(word.encode()) for word in model.words], np.uint64)
    ranked = np.argsort(hashes[1:]) + 1  # without <unk>, whose id is 0
    ids = np.zeros(len(hashes), np.int64)
    ids[ranked] = np.arange(1, len(hashes))
    header = SANITY + PARAMETERS.pack(len(counts), 1.5, QUANTIZED_TRIE, True, TRIE_VERSION)
    header += struct.pack(f"<{len(counts)}Q", *counts)
    yield header + bytes(-len(header) % 8)
    yield struct.pack("<Q", len(ranked)) + hashes[ranked].tobytes() + bytes(8)

    probabilities = [_centers(ngrams.log10_probability, 1 << BITS) for ngrams in longer]
    backoffs = [_backoff_centers(ngrams) for ngrams in longer[:-1]]
    yield bytes([QUANTIZER_VERSION, BITS, BITS]) + bytes(5)
    for pair in zip(probabilities, backoffs, strict=False):
        yield from (centers.tobytes() for centers in pair)
    yield probabilities[-1].tobytes()

    levels = _levels(model.orders, ids)
    children = [
        np.append(0, np.cumsum(np.bincount(level.place[high.suffix], minlength=len(level.rows))))
        for level, high in zip(levels, longer, strict=False)
    ]
    followed = [
        np.bincount(high.context, minlength=len(low.word)) > 0 for low, high in pairwise(model.orders)
    ]
    yield _unigram_records(unigrams, levels[0], followed[0], children[0])
    for n, (ngrams, level) in enumerate(zip(longer, levels[1:], strict=True)):
        fields = [(level.first_word, counts[0].bit_length())]
        if n < len(backoffs):
            fields.append((_backoff_codes(ngrams, followed[n + 1], backoffs[n]), BITS))
        fields.append((_nearest(ngrams.log10_probability, probabilities[n]), BITS))
        columns = [(np.append(values[level.rows], 0), width) for values, width in fields]
        if n < len(backoffs):
            columns.append((children[n + 1], counts[n + 2].bit_length()))
        yield from _packed(columns)
    yield b"".join(model.words[row].encode() + b"\0" for row in [0, *ranked])


def _levels(orders: list[Ngrams], ids: np.ndarray) -> list[_Level]:
    """Sort the n-grams of each order by their words from the last to the first."""
    levels = [_Level.sorted_by(ids, ids)]
    for ngrams in orders[1:]:
        below = levels[-1]
        first_word = below.first_word[ngrams.context]
        levels.append(_Level.sorted_by(below.place[ngrams.suffix] * len(ids) + first_word, first_word))
    return levels


def _unigram_records(unigrams: Ngrams, level: _Level, followed: np.ndarray, children: np.ndarray) -> bytes:
    """Return a record for each word, unquantized, and two more: where the last one's children end, and a spare one."""
    records = np.zeros(len(level.rows) + 2, [("probability", "<f4"), ("backoff", "<f4"), ("next", "<u8")])
    backoff = unigrams.log10_backoff.astype(np.float32)
    records["probability"][:-2] = unigrams.log10_probability[level.rows]
    records["backoff"][:-2] = np.where(backoff == 0, ZERO_BACKOFFS[followed.astype(int)], backoff)[level.rows]
    records["next"][:-1] = children
    return records.tobytes()


def _centers(values: np.ndarray, bins: int) -> np.ndarray:
    """Return the mean of each of so many bins of equally many values (Federico & Bertoldi 2006), ascending float32."""
    ordered = np.sort(values)
    if len(ordered) <= bins:
        ordered = np.append(ordered, np.full(bins - len(ordered), ordered[-1] if len(ordered) else 0.0))
    edges = np.arange(bins) * len(ordered) // bins
    sizes = np.diff(np.append(edges, len(ordered)))
    return (np.add.reduceat(ordered, edges) / sizes).astype(np.float32)


def _backoff_centers(ngrams: Ngrams) -> np.ndarray:
    values = ngrams.log10_backoff[ngrams.log10_backoff != 0]
    return np.append(ZERO_BACKOFFS, _centers(values, (1 << BITS) - len(ZERO_BACKOFFS)))


def _backoff_codes(ngrams: Ngrams, followed: np.ndarray, centers: np.ndarray) -> np.ndarray:
    zeros = len(ZERO_BACKOFFS)
    codes = zeros + _nearest(ngrams.log10_backoff, centers[zeros:])
    return np.where(ngrams.log10_backoff == 0, followed, codes)


def _nearest(values: np.ndarray, centers: np.ndarray) -> np.ndarray:
    return np.searchsorted((centers[1:] + centers[:-1]) / 2, values)


def _packed(columns: list[tuple[np.ndarray, int]]) -> Iterator[bytes]:
    """Pack records of columns (values, bits of each), the first column in the lowest bits, without gaps between them.

    Eight bytes follow, for a reader takes eight at once.
    """
    shifts = np.arange(64, dtype=np.uint64)
    for start in range(0, len(columns[0][0]), BLOCK):
        bits = [
            (values[start : start + BLOCK, None].astype(np.uint64) >> shifts[:width]) & np.uint64(1)
            for values, width in columns
        ]
        yield np.packbits(np.concatenate(bits, axis=1).astype(np.uint8), bitorder="little").tobytes()
    yield bytes(8)


def murmur_hash(text: bytes) -> int:
    """Return the 64-bit MurmurHash2 (Appleby 2008, variant A, seed 0), by which KenLM finds words.

    >>> hex(murmur_hash(b"hello"))
    '0x1e68d17c457bf117'
    """
    mask = 2**64 - 1
    value = len(text) * MURMUR & mask
    whole = len(text) // 8 * 8
    for (block,) in struct.iter_unpack("<Q", text[:whole]):
        block = block * MURMUR & mask
        block = (block ^ block >> 47) * MURMUR & mask
        value = (value ^ block) * MURMUR & mask
    if whole < len(text):
        value = (value ^ int.from_bytes(text[whole:], "little")) * MURMUR & mask
    value = (value ^ value >> 47) * MURMUR & mask
    return value ^ value >> 47
