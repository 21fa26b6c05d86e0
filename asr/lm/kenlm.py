"""N-gram models read and asked with KenLM (Heafield 2011), which comes with flashlight-text."""

import gzip
import os
import re
import struct
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np

from asr.errors import DecodingError
from asr.lm.kneser_ney import SPECIAL_WORDS
from asr.lm.scored import LN10, ScoredSentence, TextScore, summarize
from asr.version import install_hint

BINARY_MAGIC = b"mmap lm http://kheafield.com/code"
# Behind the magic and what tells the machine's number formats apart: order, kind, whether the words are there, version,
# and the number of unigrams (binary_format.hh of KenLM, format 5).
BINARY_HEADER = struct.Struct("<100x?7xQ")
BINARY_FORMAT = b" format version 5\n"
GZIP_MAGIC = b"\x1f\x8b"
# What flashlight's KenLM was built without, and the orders that it was built for.
OTHER_COMPRESSION = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
ORDERS = range(2, 7)
AGAIN = "make or fetch it again"


def read_vocabulary(path: str | Path, *, optional: bool = False) -> list[str]:
    """List the words of an ARPA file, compressed by gzip or not, or of a KenLM binary, <unk>, <s>, </s> left out.

    A binary may have been built without its words; there are none then where they are `optional`.

    Raises DecodingError for a file that is missing, damaged or neither.
    """
    try:
        with Path(path).open("rb") as file:
            magic = file.read(len(BINARY_MAGIC))
        kinds = [kind for begin, kind in OTHER_COMPRESSION.items() if magic.startswith(begin)]
        if kinds:
            raise DecodingError(
                f"the language model {path} is compressed by {kinds[0]}; expected gzip, or none"
            )
        if magic == BINARY_MAGIC:
            words = _binary_words(Path(path), optional)
        else:
            opened = gzip.open if magic.startswith(GZIP_MAGIC) else open
            with opened(path, "rt", encoding="utf-8") as lines:
                words = _arpa_words(lines, path)
    except FileNotFoundError:
        raise DecodingError(f"there is no language model {path}") from None
    except UnicodeDecodeError as error:
        raise DecodingError(
            f"{path} is no language model: it is neither an ARPA file, which is UTF-8 text, nor a KenLM binary"
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise DecodingError(f"the language model {path} cannot be read: {error}") from error
    return [word for word in words if word.lower() not in SPECIAL_WORDS]


def _arpa_words(lines: Iterable[str], path: str | Path) -> list[str]:
    lines = iter(lines)
    counts: dict[int, int] = {}  # of n-grams, by their order
    for line in lines:
        if (found := re.match(r"ngram (\d+)=\s*(\d+)\s*$", line)) is not None:
            counts[int(found[1])] = int(found[2])
        if line.startswith("\\1-grams:"):
            break
    expected = counts.get(1)
    if not expected:
        raise DecodingError(
            f"{path} is no language model: it lacks the headings of an ARPA file (\\data\\, ngram 1=..., \\1-grams:) "
            "and is no KenLM binary"
        )
    check_order(max(counts), f"the language model {path}")
    words = []
    for line in lines:
        columns = line.rstrip("\n").split("\t")  # KenLM wants tabs; words may hold other white space
        if len(columns) < 2 or line.startswith("\\"):
            break
        words.append(columns[1])
    if len(set(words)) != expected:
        raise DecodingError(
            f"the ARPA file {path} is damaged: it promises {expected} words and holds {len(set(words))}; {AGAIN}"
        )
    return words


def check_order(order: int, what: str) -> None:
    """Raise DecodingError for an order that flashlight's KenLM cannot read."""
    if order not in ORDERS:
        raise DecodingError(
            f"{what} is of order {order}; expected {min(ORDERS)} to {max(ORDERS)}, which is what KenLM reads here"
        )


def _binary_words(path: Path, optional: bool) -> list[str]:
    """Read the words that a KenLM binary keeps at its end, each ended by a zero, <unk> first.

    They are searched from the end of the mapped file, which may be far larger than they are.
    """
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        head = content[: BINARY_HEADER.size]
        if len(head) < BINARY_HEADER.size:
            raise DecodingError(f"the KenLM binary {path} is damaged: it ends in its heading; {AGAIN}")
        if not head.startswith(BINARY_MAGIC + BINARY_FORMAT):
            raise DecodingError(
                f"the KenLM binary {path} is of another format than 5, or its making was not finished; make it again "
                "from the ARPA file, or use that"
            )
        has_words, expected = BINARY_HEADER.unpack(head)
        if not has_words and optional:
            return []
        if not has_words:
            raise DecodingError(
                f"the KenLM binary {path} was built without its words; name a --lexicon or use the ARPA file"
            )
        start = content.rfind(b"<unk>\0")
        listed = content[start:] if start >= 0 else b""
    words = listed.split(b"\0")[:-1]
    # The heading does not count a word <unk> that the ARPA file lacked.
    if not listed.endswith(b"\0") or len(words) not in (expected, expected + 1):
        raise DecodingError(
            f"the KenLM binary {path} is damaged: it promises {expected} words and {len(words)} are found at its "
            f"end; {AGAIN}"
        )
    return [word.decode() for word in words]


def load_kenlm(path: str | Path, words: Sequence[str]):
    """Load a model so that word i of `words` is asked for as i; words unknown to it are <unk>.

    Scores are log10 probabilities. Raises DecodingError for a damaged file and where flashlight-text is missing.
    """
    try:
        from flashlight.lib.text.decoder.kenlm import KenLM
        from flashlight.lib.text.dictionary import Dictionary
    except ImportError as error:
        raise missing_flashlight() from error
    if not Path(path).is_file():
        raise DecodingError(f"there is no language model {path}")
    try:
        with _quiet():
            return KenLM(str(path), Dictionary(list(words)))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise DecodingError(f"the language model {path} is damaged or none: {reason}; {AGAIN}") from error


def missing_flashlight() -> DecodingError:
    """Return the error of an install without what decodes with a beam."""
    return DecodingError("beam search and language models need flashlight-text; " + install_hint("decode"))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep KenLM's progress bar from standard error; it writes there below Python."""
    sys.stderr.flush()
    saved = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def score_text(path: str | Path, sentences: Iterable[str]) -> TextScore:
    """Score sentences of words parted by white space; empty ones are left out. Raises DecodingError."""
    return summarize(score_words(path, sentences))


def score_words(path: str | Path, sentences: Iterable[str]) -> Iterator[ScoredSentence]:
    """Yield the scores of sentences of words parted by white space. Raises DecodingError."""
    words = read_vocabulary(path)
    model = load_kenlm(path, [*words, "<unk>"])
    ids = {word: i for i, word in enumerate(words)}
    for sentence in sentences:
        spoken = sentence.split()
        labels = [ids.get(word, len(words)) for word in spoken]
        state, scores = model.start(False), []
        for label in labels:
            state, score = model.score(state, label)
            scores.append(score)
        scores.append(model.finish(state)[1])
        yield ScoredSentence(spoken, LN10 * np.array(scores), np.array(labels, int) == len(words))
