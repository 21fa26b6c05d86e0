"""A word, when it was said, and how sure the model is of it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Character:
    """A letter of a word: start and end in seconds of the audio."""

    character: str
    start: float
    end: float


@dataclass(frozen=True)
class Word:
    """A recognized word: start and end in seconds of the audio, confidence in [0, 1], its letters where asked for."""

    word: str
    start: float
    end: float
    confidence: float
    characters: tuple[Character, ...] = ()


def share_out(text: str, start: float, end: float) -> tuple[Character, ...]:
    """Give the letters of a token equal parts of its time, for a model says no more of them.

    >>> [(one.character, one.start) for one in share_out("to", 1.0, 1.2)]
    [('t', 1.0), ('o', 1.1)]
    """
    edges = [round(start + i * (end - start) / len(text), 3) for i in range(len(text) + 1)]
    return tuple(Character(letter, *edges[i : i + 2]) for i, letter in enumerate(text))
