"""What a recurrent language model predicts one after the other: words, or the tokens of a tokenizer.

Token 0 ends a sentence, and is what the model reads before the first word. In a tokenizer 0 is CTC's blank, which no
text encodes to, so that tokens have the same ids in the language model and in the recognizer.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from asr.errors import TextError
from asr.lm.kneser_ney import SPECIAL_WORDS
from asr.text import CharacterTokenizer, Tokenizer, load_tokenizer, normalize
from asr.wording import short

END, UNKNOWN = 0, 1
END_WORD, UNKNOWN_WORD = "</s>", "<unk>"
VOCABULARY_FILE = "vocabulary.txt"
# Letters of a word; what is longer is no text, or its words are not parted.
MOST_LETTERS = 1000


@dataclass(frozen=True)
class Encoded:
    """A sentence as tokens, without its end.

    Attributes:
        ids: tokens.
        words: for each token the number of the word that it belongs to; a space belongs to the word before it.
        unknown: numbers of the words that have no tokens of their own.
    """

    ids: list[int]
    words: list[int]
    unknown: frozenset[int]


class Units(ABC):
    """Tokens of a language model.

    Attributes:
        kind: "words" or "tokens".
        normalizer: name of the one that every text goes through.
        names: the text of each token; names[0] is "</s>".
    """

    kind: ClassVar[str]
    normalizer: str
    names: list[str]

    @property
    def size(self) -> int:
        """Return the number of tokens."""
        return len(self.names)

    def split(self, text: str) -> list[str]:
        """Return a sentence's words, normalized. Raises TextError for a word that is too long to be one."""
        return split_words(text, self.normalizer)

    @abstractmethod
    def encode(self, words: Sequence[str]) -> Encoded:
        """Turn a sentence's words into tokens."""

    @abstractmethod
    def save(self, folder: str | Path) -> None:
        """Write the tokens into an existing folder, for `load_units`."""


def split_words(text: str, normalizer: str) -> list[str]:
    """Return a sentence's words, normalized. Raises TextError for a word that is too long to be one.

    >>> split_words("The cat's full.", "basic")
    ['the', "cat's", 'full']
    """
    words = normalize(text, normalizer).split()
    if longest := [word for word in words if len(word) > MOST_LETTERS]:
        raise TextError(
            f"the text holds a word of {len(longest[0])} letters ({short(longest[0], 20)}); expected words of at "
            f"most {MOST_LETTERS}, parted by spaces"
        )
    return words


class WordUnits(Units):
    """A token for each word, in the order of their frequency; all others are one, `<unk>`.

    >>> units = WordUnits.from_texts([["the", "cat"], ["the", "dog"]], most_words=4)
    >>> units.names, units.encode(["the", "cow"]).ids
    (['</s>', '<unk>', 'the', 'cat'], [2, 1])
    """

    kind = "words"

    def __init__(self, words: Sequence[str], normalizer: str = "none"):
        self.normalizer = normalizer
        self.names = [END_WORD, UNKNOWN_WORD, *words]
        self._ids = {word: i for i, word in enumerate(self.names)}

    @classmethod
    def from_texts(
        cls, sentences: Iterable[Sequence[str]], most_words: int, min_count: int = 1, normalizer: str = "none"
    ) -> "WordUnits":
        """Collect the most frequent words, at most `most_words` with `</s>` and `<unk>`, each at least so often."""
        counts: Counter[str] = Counter()
        for words in sentences:
            counts.update(words)
        for special in SPECIAL_WORDS:
            if special in counts:
                raise TextError(f"the text holds {special}, which the model adds itself; remove it")
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        kept = [word for word in ranked[: max(0, most_words - 2)] if counts[word] >= min_count]
        return cls(kept, normalizer)

    def encode(self, words: Sequence[str]) -> Encoded:
        """Turn words into tokens."""
        ids = [self._ids.get(word, UNKNOWN) for word in words]
        return Encoded(
            ids, list(range(len(ids))), frozenset(i for i, token in enumerate(ids) if token == UNKNOWN)
        )

    def save(self, folder: str | Path) -> None:
        """Write vocabulary.txt, a word a line."""
        Path(folder, VOCABULARY_FILE).write_text("".join(f"{word}\n" for word in self.names[2:]), "utf-8")


class TokenUnits(Units):
    """The characters or pieces of a tokenizer. A word with letters that it lacks has no tokens.

    >>> TokenUnits(CharacterTokenizer(" ab")).encode(["ab", "cab", "b"])
    Encoded(ids=[2, 3, 1, 3], words=[0, 0, 0, 2], unknown=frozenset({1}))
    """

    kind = "tokens"

    def __init__(self, tokenizer: Tokenizer, normalizer: str = "none"):
        self.tokenizer, self.normalizer = tokenizer, normalizer
        self.names = [END_WORD, *tokenizer.tokens[1:]]
        self.space: int | None = None  # the token between words, where there is one
        if isinstance(tokenizer, CharacterTokenizer) and tokenizer.space in tokenizer.tokens:
            self.space = tokenizer.tokens.index(tokenizer.space)
        self._spelled: dict[str, list[int] | None] = {}

    def encode(self, words: Sequence[str]) -> Encoded:
        """Turn words into tokens."""
        ids: list[int] = []
        owners: list[int] = []
        unknown = set()
        for number, word in enumerate(words):
            spelling = self._spell(word)
            if spelling is None:
                unknown.add(number)
                continue
            if ids and self.space is not None:
                owners.append(owners[-1])
                ids.append(self.space)
            ids += spelling
            owners += [number] * len(spelling)
        return Encoded(ids, owners, frozenset(unknown))

    def _spell(self, word: str) -> list[int] | None:
        if word not in self._spelled:
            try:
                self._spelled[word] = self.tokenizer.encode(word)
            except TextError:
                self._spelled[word] = None
        return self._spelled[word]

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer's files."""
        self.tokenizer.save(folder)


def load_units(folder: str | Path, kind: str, normalizer: str) -> Units:
    """Read what `save` wrote. Raises TextError for what is missing or damaged."""
    if kind == TokenUnits.kind:
        return TokenUnits(load_tokenizer(folder), normalizer)
    path = Path(folder, VOCABULARY_FILE)
    try:
        words = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TextError(f"{path} cannot be read: {reason}; copy the whole folder again") from error
    return WordUnits(words[:-1], normalizer)
