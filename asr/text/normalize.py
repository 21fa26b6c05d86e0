"""Normalizers of text, which references and hypotheses pass alike."""

import re
import unicodedata
import warnings
from collections.abc import Callable
from functools import cache

from asr.errors import TextError
from asr.version import __version__

ENGLISH_PACKAGE = "whisper-normalizer"


class _BasicCharacters(dict):
    """A table for str.translate, filled as characters are met: what each becomes in basic text."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        if character in "'’‘ʼ`´":
            kept = "'"
        elif character == "\u200b":  # a space of no width, between words that are written without one
            kept = " "
        elif category in ("Cf", "Me") or "VARIATION SELECTOR" in unicodedata.name(character, ""):
            kept = ""  # how a word looks: soft hyphens, joiners, what makes an emoji of a sign
        elif category[0] in "LMN":  # letters, the marks that belong to them, digits
            kept = character
        else:  # punctuation, symbols and spaces part words
            kept = " "
        self[code] = kept
        return kept


_BASIC_CHARACTERS = _BasicCharacters()


def _basic(text: str) -> str:
    """Lower-case words of letters, digits and the apostrophes inside them, with single spaces between.

    Compatibility forms become plain ones (Unicode NFKC), so that a word is spelled in one way.
    """
    # An accent that stands alone is meant for an apostrophe; NFKC would take it for a space with an accent.
    text = unicodedata.normalize("NFKC", text.replace("´", "'")).lower().translate(_BASIC_CHARACTERS)
    text = re.sub("i\u0307+", "i", text)  # as which Python writes the small form of Turkish İ
    text = re.sub(r"(?<!\S)'+|'+(?!\S)|''+", " ", text)
    return " ".join(unicodedata.normalize("NFKC", text).split())


def _none(text: str) -> str:
    """Leave the text as it is."""
    return text


def _english(text: str) -> str:
    """English as whisper's authors compare it: numbers in digits, American spelling, no fillers, no contractions.

    Radford et al. 2022, appendix C, in the package that keeps their rules.
    """
    return _english_rules()(text)


@cache
def _english_rules() -> Callable[[str], str]:
    try:
        with warnings.catch_warnings():  # its docstrings hold escapes that Python warns of
            warnings.simplefilter("ignore")
            from whisper_normalizer.english import EnglishTextNormalizer
    except ModuleNotFoundError as error:
        raise TextError(
            f'the normalizer "english" needs the package {ENGLISH_PACKAGE}; pip install {ENGLISH_PACKAGE}'
        ) from error
    return EnglishTextNormalizer()


# Normalizers by the name that a bundle stores. What a published name does never changes: models rely on it.
NORMALIZERS: dict[str, Callable[[str], str]] = {"basic": _basic, "english": _english, "none": _none}


def normalize(text: str, name: str) -> str:
    """Normalize a transcript with the normalizer of that name.

    Raises TextError for a name that is not in NORMALIZERS.

    >>> normalize("“Don’t stop” — it’s TEN o'clock!", "basic")
    "don't stop it's ten o'clock"
    """
    if name not in NORMALIZERS:
        raise TextError(f"there is no normalizer {name!r}; there are {', '.join(NORMALIZERS)}")
    return NORMALIZERS[name](text)


def normalizer_version(name: str) -> str:
    """Return whose rules a normalizer follows and in which version; "" for "none", which has no rules.

    Raises TextError where the package that holds them is missing.
    """
    if name == "english":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return f"{ENGLISH_PACKAGE} {version(ENGLISH_PACKAGE)}"
        except PackageNotFoundError:
            _english_rules()  # says what to install
    # What is a letter, and its lower case, come from Python's tables.
    return f"asr {__version__}, Unicode {unicodedata.unidata_version}" if name == "basic" else ""
