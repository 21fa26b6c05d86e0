"""The words that a beam search may write: of a lexicon and a language model, spelled as the model spells them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from asr.errors import DecodingError, TextError
from asr.lm.kenlm import read_vocabulary
from asr.text import Tokenizer, normalize
from asr.text.lexicon import VARIANT

NO_LEXICON = "none"
# How dictionaries begin what is no word, as <UNK>, [NOISE], !SIL.
NO_WORD = tuple("<[({!#")


class Speller:
    """Writes words as a model writes them.

    Attributes:
        left_out: words asked for that the tokenizer lacks letters for, however they are written.
    """

    def __init__(self, tokenizer: Tokenizer, normalizer: str):
        self.tokenizer, self.normalizer = tokenizer, normalizer
        self.left_out: list[str] = []
        self._spellings: dict[str, list[int]] = {}

    def spelling(self, word: str) -> list[int]:
        """Return the token ids of a word that the model can write."""
        return self._spellings.get(word) or self.tokenizer.encode(word)

    def words_of(self, text: str) -> list[str]:
        """Return the words of a text as the model writes them: as they are or, where it cannot, normalized.

        There are none where it lacks letters for that, too.
        """

        def forms() -> Iterator[str]:
            yield text
            if not text.startswith(NO_WORD):
                yield normalize(text, self.normalizer)

        for form in forms():
            with suppress(TextError):
                for word in form.split():
                    self.tokenizer.encode(word)
                return form.split()
        return []

    def _written(self, texts: Sequence[str]) -> dict[str, list[str]]:
        """Return `words_of` each text; single words that need no normalizing are found together, which is fast."""
        together = zip(texts, self.tokenizer.encode_many(texts), strict=True)
        self._spellings = {
            text: spelling for text, spelling in together if spelling is not None and text.split() == [text]
        }
        return {text: [text] if text in self._spellings else self.words_of(text) for text in texts}

    def hotwords(self, bonuses: Mapping[str, float]) -> dict[str, float]:
        """Return each word that the model can write with its bonus."""
        written = {text: self.words_of(text) for text in bonuses}
        self.left_out += [text for text, words in written.items() if not words]
        return {word: bonus for text, bonus in bonuses.items() for word in written[text]}

    def vocabulary(
        self, lm: str | Path | None, lexicon: str | Path | None, hotwords: Sequence[str]
    ) -> dict[str, str]:
        """Return the words to recognize, by how the language model's file has them, as the model writes them.

        Raises DecodingError where there is none.
        """
        in_lm = [] if lm is None else read_vocabulary(lm, optional=lexicon is not None)
        listed = in_lm if lexicon is None else read_lexicon(lexicon)
        written = self._written([*dict.fromkeys([*in_lm, *listed])])
        self.left_out += [word for word in dict.fromkeys(listed) if not written[word]]
        expected = dict.fromkeys([spelled for word in listed for spelled in written[word]] + list(hotwords))
        if not expected:
            raise DecodingError(
                f"this model can write none of the {len(self.left_out)} words of the language model or lexicon, such "
                f"as {self.left_out[0]!r}: it lacks their letters; `asr lm build --model BUNDLE` writes words as the "
                "model does"
            )
        words = {
            word: written[word][0]
            for word in in_lm
            if len(written[word]) == 1 and written[word][0] in expected
        }
        if in_lm and not words:
            raise DecodingError(
                f"the language model {lm} knows none of the {len(expected)} words to be recognized, such as "
                f"{next(iter(expected))!r}; expected one that was built of such words"
            )
        spelled_by_lm = set(words.values())
        return words | {spelled: spelled for spelled in expected if spelled not in spelled_by_lm}


def token_names(tokenizer: Tokenizer) -> list[str]:
    """Return the names of the tokens in a language model over tokens: a space becomes "▁"."""
    return [token.replace(" ", "▁") for token in tokenizer.tokens]


def read_lexicon(path: str | Path) -> list[str]:
    """Read the first word of every line; what follows, such as a spelling, is left to the tokenizer.

    Lines that begin with # are comments, and `word(2)` is a further pronunciation of `word`. Raises DecodingError.
    """
    try:
        lines = [line.split() for line in Path(path).read_text("utf-8-sig").splitlines()]
        words = [VARIANT.sub("", line[0]) for line in lines if line and not line[0].startswith("#")]
    except FileNotFoundError:
        raise DecodingError(f"there is no lexicon {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DecodingError(f"the lexicon {path} cannot be read: {error}") from error
    if not words:
        raise DecodingError(f"the lexicon {path} is empty; expected a word a line")
    return words
