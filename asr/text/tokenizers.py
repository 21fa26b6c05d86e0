"""Tokenizers of transcripts, with CTC's blank as token 0."""

import hashlib
import io
import json
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from asr.errors import TextError
from asr.wording import short

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

BLANK = 0
BLANK_TOKEN = "<blank>"
SENTENCEPIECE_SPACE = "▁"  # U+2581, with which sentencepiece's pieces begin a word
CONFIG_FILE = "tokenizer.json"
MODEL_FILE = "tokenizer.model"
TOKENIZER_FILES = (CONFIG_FILE, MODEL_FILE)


class Tokenizer(ABC):
    """Text to token ids and back. Token 0 is CTC's blank, which text never encodes to.

    Attributes:
        kind: name of the class in a saved tokenizer.
        tokens: the text of each token; tokens[0] is "<blank>".
    """

    kind: ClassVar[str]
    tokens: list[str]
    space: ClassVar[str]  # what a token holds in place of the space between words

    @property
    def vocab_size(self) -> int:
        """How many tokens there are, blank included."""
        return len(self.tokens)

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Turn text into token ids; raises TextError that names the letters it has no tokens for."""

    def encode_many(self, texts: Sequence[str]) -> list[list[int] | None]:
        """Turn each text into token ids; None for those with letters that there are no tokens for.

        >>> CharacterTokenizer("ab").encode_many(["ba", "c"])
        [[2, 1], None]
        """

        def encoded(text: str) -> list[int] | None:
            with suppress(TextError):
                return self.encode(text)
            return None

        return [encoded(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """Turn token ids, without blanks, into text; raises ValueError for what is no token of text."""
        return "".join(self._spelling(token) for token in ids)

    def word_spans(self, ids: Sequence[int]) -> list[range]:
        """Find each word's positions in `ids`; the tokens that only part words belong to none.

        >>> CharacterTokenizer(" ab").word_spans([2, 3, 1, 3])
        [range(0, 2), range(3, 4)]
        """
        words: list[range] = []
        inside = False
        for position, token in enumerate(ids):
            spelling = self._spelling(token)
            if not spelling.strip(" "):
                inside = False
            elif inside and not spelling.startswith(" "):
                words[-1] = range(words[-1].start, position + 1)
            else:
                words.append(range(position, position + 1))
                inside = True
        return words

    def _spelling(self, token: int) -> str:
        if not BLANK < token < self.vocab_size:
            raise ValueError(f"{token} is no token of text; expected 1 to {self.vocab_size - 1}")
        return self.tokens[token].replace(self.space, " ")

    def _refuse_strays(self, text: str, alphabet: Iterable[str]) -> None:
        strays = sorted(set(text).difference(alphabet))
        if strays:
            raise TextError(
                f"{short(text)!r} has letters outside the tokenizer's alphabet: {_named(strays)}; "
                'correct the transcript, normalize it (text.normalizer "basic") or train with an alphabet '
                "that holds them"
            )

    @abstractmethod
    def save(self, folder: str | Path) -> None:
        """Write the tokenizer into an existing folder, for `load_tokenizer`."""


class CharacterTokenizer(Tokenizer):
    """One token for each character, the space between words among them.

    Arguments: alphabet, the characters in the order of their ids, from 1 on. Raises TextError where there are
    none, or one is doubled or longer than a character.

    >>> tokenizer = CharacterTokenizer.from_texts(["a bad cab"])
    >>> tokenizer.tokens, tokenizer.encode("cab")
    (['<blank>', ' ', 'a', 'b', 'c', 'd'], [4, 2, 3])
    """

    kind = "characters"
    space = " "

    def __init__(self, alphabet: Sequence[str]):
        letters = list(alphabet)
        if not letters:
            raise TextError("the alphabet is empty: there is no letter in the transcripts")
        for letter in letters:
            if not isinstance(letter, str) or len(letter) != 1:
                raise TextError(f"the alphabet holds {letter!r}; expected single characters")
        doubled = sorted({letter for letter in letters if letters.count(letter) > 1})
        if doubled:
            raise TextError(f"the alphabet holds {_named(doubled)} more than once")
        self.tokens = [BLANK_TOKEN, *letters]
        self._ids = {letter: i for i, letter in enumerate(letters, start=1)}

    @classmethod
    def from_texts(cls, texts: Iterable[str]) -> "CharacterTokenizer":
        """Collect the alphabet of normalized transcripts, in the order of Unicode."""
        return cls(sorted(set().union(*texts)))

    def encode(self, text: str) -> list[int]:
        """Turn text into token ids; raises TextError that names the letters it has no tokens for."""
        try:
            return [self._ids[letter] for letter in text]
        except KeyError:
            self._refuse_strays(text, self._ids)
            raise

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json into an existing folder."""
        _write_config(folder, {"kind": self.kind, "alphabet": self.tokens[1:]})


class BpeTokenizer(Tokenizer):
    """Pieces of words by byte-pair encoding (Sennrich et al. 2016), as sentencepiece makes them.

    A token that begins a word begins with "▁". Token 0, which sentencepiece reserves for unknown text, is the
    blank; every character of the training text is a token, so that nothing in it is unknown.

    Arguments: model, the content of a sentencepiece model file; pieces, the text of each token where it is known, so
    that sentencepiece is loaded only to encode text. Raises TextError where the model is none.
    """

    kind = "bpe"
    space = SENTENCEPIECE_SPACE

    def __init__(self, model: bytes, pieces: Sequence[str] | None = None):
        self.model = model
        self.tokens = list(pieces or self._pieces())
        if self.tokens[0] != BLANK_TOKEN:
            raise TextError(
                f"the sentencepiece model's piece 0 is {self.tokens[0]!r}; expected {BLANK_TOKEN!r}, as "
                "BpeTokenizer.train makes it"
            )
        self._alphabet = set().union(*self.tokens[1:]) - {SENTENCEPIECE_SPACE} | {" "}

    @cached_property
    def _processor(self) -> "SentencePieceProcessor":
        from sentencepiece import SentencePieceProcessor

        processor = SentencePieceProcessor()
        processor.LoadFromSerializedProto(self.model)
        return processor

    def _pieces(self) -> list[str]:
        try:
            return [self._processor.IdToPiece(i) for i in range(self._processor.GetPieceSize())]
        except (RuntimeError, UnicodeDecodeError) as error:
            raise TextError(f"this is no sentencepiece model, or a damaged one: {error}") from error

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> "BpeTokenizer":
        """Learn `vocab_size` tokens, blank included, from normalized transcripts.

        Raises TextError where the text has more characters than that, too few different words to fill it, or
        characters that sentencepiece keeps for itself.
        """
        from sentencepiece import SentencePieceTrainer

        texts = list(texts)
        letters = set().union(*texts)
        if not letters - {" "}:
            raise TextError("there is no letter in the transcripts to learn word pieces from")
        reserved = sorted(c for c in letters if c == SENTENCEPIECE_SPACE or unicodedata.category(c) == "Cc")
        if reserved:
            raise TextError(
                f"the transcripts hold {_named(reserved)}, which sentencepiece keeps for itself; "
                'normalize them (text.normalizer "basic")'
            )
        misfit = (
            f"{vocab_size} word pieces (text.vocab_size) do not fit these {len(texts)} transcripts with "
            f"{len(letters)} different characters; expected"
        )
        least = 1 + len(letters | {" "})  # the blank, and each character alone
        if vocab_size < least:
            raise TextError(f"{misfit} at least {least}")
        model = io.BytesIO()
        try:
            SentencePieceTrainer.Train(
                sentence_iterator=iter(texts),
                model_writer=model,
                model_type="bpe",
                vocab_size=vocab_size,
                character_coverage=1.0,
                normalization_rule_name="identity",  # text is normalized before it comes here
                remove_extra_whitespaces=False,
                max_sentence_length=1 << 20,  # bytes; longer ones would be left out
                unk_id=BLANK,
                unk_piece=BLANK_TOKEN,
                bos_id=-1,
                eos_id=-1,
                pad_id=-1,
                minloglevel=2,
            )
        except RuntimeError as error:
            most = re.search(r"set it to a value <= (\d+)", str(error))
            raise TextError(
                f"{misfit} at most {most[1]}" if most else f"word pieces cannot be learned: {error}"
            ) from error
        return cls(model.getvalue())

    def encode(self, text: str) -> list[int]:
        """Turn text into token ids; raises TextError that names the letters it has no tokens for."""
        self._refuse_strays(text, self._alphabet)
        return self._processor.EncodeAsIds(text)

    def encode_many(self, texts: Sequence[str]) -> list[list[int] | None]:
        """Turn each text into token ids, all in one call; None for those with letters that there are no tokens for."""
        known = [self._alphabet.issuperset(text) for text in texts]
        ids = iter(
            self._processor.EncodeAsIds([text for text, fits in zip(texts, known, strict=True) if fits])
        )
        return [next(ids) if fits else None for fits in known]

    def decode(self, ids: Sequence[int]) -> str:
        """Turn token ids, without blanks, into text; raises ValueError for what is no token of text."""
        return super().decode(ids).removeprefix(" ")  # sentencepiece begins every text with a space

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json and tokenizer.model into an existing folder."""
        (Path(folder) / MODEL_FILE).write_bytes(self.model)
        checksum = hashlib.sha256(self.model).hexdigest()
        _write_config(folder, {"kind": self.kind, "model_sha256": checksum, "pieces": self.tokens})


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """Read the tokenizer that `save` wrote into a folder.

    Raises TextError for missing, damaged and unknown ones.
    """
    path = Path(folder) / CONFIG_FILE
    config = _read_config(path)
    kind = config.get("kind")
    if kind == CharacterTokenizer.kind and isinstance(config.get("alphabet"), list):
        try:
            return CharacterTokenizer(config["alphabet"])
        except TextError as error:
            raise TextError(f"{path} is damaged: {error}") from error
    if kind == BpeTokenizer.kind and isinstance(config.get("model_sha256"), str):
        pieces = config.get("pieces", [])
        if not isinstance(pieces, list) or not all(isinstance(piece, str) for piece in pieces):
            raise TextError(f"{path} is damaged: its pieces are no list of texts")
        model_path = Path(folder) / MODEL_FILE
        model = _read(model_path)
        if hashlib.sha256(model).hexdigest() != config["model_sha256"]:
            raise TextError(f"{model_path} is damaged: its checksum differs from the one in {CONFIG_FILE}")
        return BpeTokenizer(model, pieces)
    raise TextError(
        f"{path} describes no tokenizer known here (kind {kind!r}); expected "
        f"{CharacterTokenizer.kind!r} with an alphabet or {BpeTokenizer.kind!r} with a checksum"
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise TextError(f"there is no tokenizer file {path}") from None
    except OSError as error:
        raise TextError(f"{path} cannot be read: {error.strerror}") from error


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(_read(path).decode())
    except ValueError as error:
        raise TextError(f"{path} is damaged: {error}") from error
    if not isinstance(config, dict):
        raise TextError(f"{path} is damaged: expected a JSON object")
    return config


def _write_config(folder: str | Path, config: dict[str, Any]) -> None:
    content = json.dumps(config, ensure_ascii=False, indent=2) + "\n"
    (Path(folder) / CONFIG_FILE).write_text(content, encoding="utf-8")


def _named(letters: Sequence[str], most: int = 5) -> str:
    """Name characters as people and programs know them: 'è' (LATIN SMALL LETTER E WITH GRAVE), ..."""
    names = [f"{letter!r} ({unicodedata.name(letter, f'U+{ord(letter):04X}')})" for letter in letters[:most]]
    return ", ".join(names) + (f" and {len(letters) - most} more" if len(letters) > most else "")
