"""A pronouncing dictionary: training takes the phones of a text from it, a beam search the words of phones."""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path

from asr.errors import TextError

VARIANT = re.compile(r"\(\d+\)$")


class Lexicon:
    """The pronunciations of words.

    Arguments: lines in the form of cmudict: `word PHONE PHONE`, `word(2)` for a second pronunciation, `#` before
    comments.

    Attributes: words, the phones of each pronunciation, by word in lower case.

    >>> Lexicon(["the DH AH", "the(2) DH IY"]).words
    {'the': [['DH', 'AH'], ['DH', 'IY']]}
    """

    def __init__(self, lines: Iterable[str]):
        self.words: dict[str, list[list[str]]] = {}
        for line in lines:
            word, *phones = line.partition("#")[0].split() or [""]
            if phones:
                self.words.setdefault(VARIANT.sub("", word).lower(), []).append(phones)

    @cached_property
    def phones(self) -> list[str]:
        """Return all phones, sorted."""
        return sorted({phone for ways in self.words.values() for way in ways for phone in way})

    @classmethod
    def read(cls, path: str | Path) -> "Lexicon":
        """Read a file of such lines. Raises TextError where it cannot be read or holds no pronunciation."""
        try:
            lexicon = cls(Path(path).read_text("utf-8-sig").splitlines())
        except (OSError, UnicodeDecodeError) as error:
            raise TextError(f"cannot read the lexicon {path}: {error}") from error
        if not lexicon.words:
            raise TextError(
                f"the lexicon {path} holds no pronunciation; expected lines of a word and its phones"
            )
        return lexicon

    def encoder(self, phones: Sequence[str]) -> Callable[[str], list[int] | None]:
        """Return a function from a normalized text to its phones, counted from 1; None where a word is unknown.

        Of several pronunciations, the first is taken. Arguments: phones of the model, which a run that goes on keeps.
        Raises TextError for one that it lacks.
        """
        place = {phone: index for index, phone in enumerate(phones, start=1)}
        if absent := [phone for phone in self.phones if phone not in place]:
            raise TextError(
                f"the lexicon has the phone {absent[0]!r}, which the model lacks; expected the lexicon with which its "
                "training began"
            )
        first = {word: [place[phone] for phone in ways[0]] for word, ways in self.words.items()}

        def encode(text: str) -> list[int] | None:
            words = text.split()
            if any(word not in first for word in words):
                return None
            return [phone for word in words for phone in first[word]]

        return encode
