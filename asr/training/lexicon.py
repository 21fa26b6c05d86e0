"""A pronouncing dictionary, by whose phones intermediate layers learn to recognize."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from asr.errors import ConfigError
from asr.text import Tokenizer


class Lexicon:
    """The first pronunciation of each word.

    Attributes: phones, all of them, sorted.
    """

    def __init__(self, lines: Iterable[str]):
        self.words: dict[str, list[str]] = {}
        for line in lines:
            word, *phones = line.partition("#")[0].split() or [""]
            if phones and not re.search(r"\(\d+\)$", word):
                self.words.setdefault(word.lower(), phones)
        self.phones = sorted({phone for phones in self.words.values() for phone in phones})

    @classmethod
    def read(cls, path: str) -> "Lexicon":
        """Read a dictionary in the form of cmudict: `word PHONE PHONE`, `word(2)` for variants, `#` before comments.

        Raises ConfigError for a file that cannot be read or holds no pronunciation.
        """
        try:
            lexicon = cls(Path(path).read_text("utf-8").splitlines())
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read loss.lexicon {path}: {error}") from error
        if not lexicon.words:
            raise ConfigError(
                f"loss.lexicon {path} holds no pronunciation; expected lines of a word and its phones"
            )
        return lexicon

    def encoder(self, tokenizer: Tokenizer) -> Callable[[str], list[int] | None]:
        """Return a function from a normalized text to the tokens of its phones, None where a word is unknown.

        Raises ConfigError for a tokenizer without a token for a phone.
        """
        place = {token: index for index, token in enumerate(tokenizer.tokens)}
        if absent := [phone for phone in self.phones if phone not in place]:
            raise ConfigError(
                f"loss.lexicon has the phone {absent[0]!r}, for which this run's tokenizer has no token; expected "
                "text.tokenizer bpe, and the lexicon with which the run began"
            )
        tokens = {word: [place[phone] for phone in phones] for word, phones in self.words.items()}

        def encode(text: str) -> list[int] | None:
            words = text.split()
            if any(word not in tokens for word in words):
                return None
            return [token for word in words for token in tokens[word]]

        return encode
