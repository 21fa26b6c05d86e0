"""A word, when it was said, and how sure the model is of it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    """A recognised word: start and end in seconds of the audio, confidence in [0, 1]."""

    word: str
    start: float
    end: float
    confidence: float
