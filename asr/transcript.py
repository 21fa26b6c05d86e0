"""What a recognizer returns: words with times and confidences, and their text."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

# A pause between two words from which on they belong to two segments, and the longest segment if its words allow it.
PAUSE_SECONDS = 0.8
SEGMENT_SECONDS = 30.0


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


@dataclass(frozen=True)
class Segment:
    """Words between two pauses; start and end in seconds of the audio."""

    start: float
    end: float
    text: str
    words: tuple[Word, ...]


@dataclass(frozen=True)
class Alternative:
    """Another likely text, with the log score that a beam search gave it."""

    text: str
    score: float


@dataclass(frozen=True)
class Transcript:
    """What was recognized in one piece of audio.

    Attributes:
        text: the words, with single spaces between them.
        words: with their times and confidences.
        duration: of the audio, in seconds.
        alternatives: the next best texts, best first, where a beam search was asked for several.
        score: the text's own log score, to compare theirs with; None where there are none.
        seams: seconds at which long audio was divided into windows.

    >>> print(Transcript("three one", (), 1.0))
    three one
    """

    text: str
    words: tuple[Word, ...]
    duration: float
    alternatives: tuple[Alternative, ...] = ()
    score: float | None = None
    seams: tuple[float, ...] = ()

    def __str__(self) -> str:
        return self.text

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Return the words in order, divided at pauses, and long segments at their longest pause.

        >>> words = (Word("one", 0.1, 0.4, 1.0), Word("two", 0.5, 0.9, 1.0), Word("three", 3.0, 3.5, 1.0))
        >>> [segment.text for segment in Transcript("one two three", words, 4.0).segments]
        ['one two', 'three']
        """
        return tuple(
            Segment(words[0].start, words[-1].end, " ".join(word.word for word in words), words)
            for words in _between_pauses(self.words)
        )

    def to_dict(self) -> dict:
        """Return the transcript as plain values for JSON; words without letters' times leave them out."""
        values = asdict(self)
        del values["seams"]
        if self.score is None:
            del values["score"]
        for word in values["words"]:
            if not word["characters"]:
                del word["characters"]
        return values


def _between_pauses(words: Sequence[Word]) -> Iterator[tuple[Word, ...]]:
    first = 0
    for i in range(1, len(words) + 1):
        if i == len(words) or words[i].start - words[i - 1].end >= PAUSE_SECONDS:
            yield from _shortened(tuple(words[first:i]))
            first = i


def _shortened(words: tuple[Word, ...]) -> Iterator[tuple[Word, ...]]:
    if len(words) == 1 or words[-1].end - words[0].start <= SEGMENT_SECONDS:
        yield words
        return
    longest = max(range(1, len(words)), key=lambda i: words[i].start - words[i - 1].end)
    yield from _shortened(words[:longest])
    yield from _shortened(words[longest:])
