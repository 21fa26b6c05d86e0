"""What a recognizer returns: words with times and confidences, and their text."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

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
    """A recognized word.

    Attributes:
        word: its letters.
        start, end: in seconds of the audio.
        confidence: in [0, 1].
        characters: its letters with their times, where asked for.
        channel: that it was spoken on, counted from 1; 0 where channels are not told apart.

    >>> word = Word("seven", start=0.5, end=1.0, confidence=0.98)
    >>> word.end - word.start
    0.5
    """

    word: str
    start: float
    end: float
    confidence: float
    characters: tuple[Character, ...] = ()
    channel: int = 0


@dataclass(frozen=True)
class Segment:
    """Words between two pauses; start and end in seconds of the audio.

    >>> Segment(0.5, 1.0, "seven", (Word("seven", 0.5, 1.0, 0.98),)).text
    'seven'
    """

    start: float
    end: float
    text: str
    words: tuple[Word, ...]

    @property
    def speaker(self) -> str:
        """Return the label of the channel that all of its words are on; "" where channels are not told apart."""
        channel = self.words[0].channel
        return f"channel {channel}" if channel else ""


@dataclass(frozen=True)
class Alternative:
    """Another likely text, with the log score that a beam search gave it.

    `lm_score` is the log probability that a recurrent language model gave it, where one rescored it.
    """

    text: str
    score: float
    lm_score: float | None = None


@dataclass(frozen=True)
class Transcript:
    """What was recognized in one piece of audio.

    Attributes:
        text: the words, with single spaces between them.
        words: with their times and confidences.
        duration: of the audio, in seconds.
        alternatives: the next best texts, best first, where a beam search was asked for several.
        score: the text's own log score, to compare theirs with; None where there are none.
        lm_score: the log probability that a recurrent language model gave the text; None where none rescored it.
        seams: seconds at which long audio was divided into windows.
        damage: why the audio could be read only so far; "" for audio that is whole.

    >>> print(Transcript("three one", (), 1.0))
    three one
    """

    text: str
    words: tuple[Word, ...]
    duration: float
    alternatives: tuple[Alternative, ...] = ()
    score: float | None = None
    seams: tuple[float, ...] = ()
    damage: str = ""
    lm_score: float | None = None

    def __str__(self) -> str:
        return self.text

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Return the words in order, divided at pauses, and long segments at their longest pause.

        >>> words = (Word("one", 0.1, 0.4, 1.0), Word("two", 0.5, 0.9, 1.0), Word("three", 3.0, 3.5, 1.0))
        >>> [segment.text for segment in Transcript("one two three", words, 4.0).segments]
        ['one two', 'three']
        """
        channels: dict[int, list[Word]] = defaultdict(list)
        for word in self.words:
            channels[word.channel].append(word)
        parts = [part for words in channels.values() for part in _between_pauses(words)]
        segments = [Segment(words[0].start, words[-1].end, _text(words), words) for words in parts]
        return tuple(sorted(segments, key=lambda segment: segment.start) if len(channels) > 1 else segments)

    def without_doubtful(self, min_confidence: float) -> "Transcript":
        """Return the transcript without the words of less confidence.

        >>> words = (Word("yes", 0.1, 0.4, 0.9), Word("no", 0.5, 0.9, 0.2))
        >>> Transcript("yes no", words, 1.0).without_doubtful(0.5).text
        'yes'
        """
        words = tuple(word for word in self.words if word.confidence >= min_confidence)
        return self if len(words) == len(self.words) else replace(self, text=_text(words), words=words)

    def to_dict(self) -> dict:
        """Return the transcript as plain values for JSON; words without letters' times leave them out."""
        values = asdict(self)
        del values["seams"]
        if not self.damage:
            del values["damage"]
        for part in (values, *values["alternatives"]):
            for name in ("score", "lm_score"):
                if part[name] is None:
                    del part[name]
        for word in values["words"]:
            for name in ("characters", "channel"):
                if not word[name]:
                    del word[name]
        return values


def merge_channels(transcripts: Sequence[Transcript]) -> Transcript:
    """Return one transcript of the channels of a recording: words by their time, each with its channel's number.

    The text has the segments in order; alternatives and scores, which are of one channel each, are dropped.

    >>> a = Transcript("hello", (Word("hello", 0.0, 0.5, 1.0),), 2.0)
    >>> b = Transcript("hi", (Word("hi", 1.0, 1.5, 1.0),), 2.0)
    >>> [(segment.speaker, segment.text) for segment in merge_channels([a, b]).segments]
    [('channel 1', 'hello'), ('channel 2', 'hi')]
    """
    words = [
        replace(word, channel=number)
        for number, transcript in enumerate(transcripts, 1)
        for word in transcript.words
    ]
    ordered = tuple(sorted(words, key=lambda word: word.start))
    seams = tuple(sorted({seam for transcript in transcripts for seam in transcript.seams}))
    duration = max(transcript.duration for transcript in transcripts)
    merged = Transcript("", ordered, duration, seams=seams)
    return replace(merged, text=" ".join(segment.text for segment in merged.segments))


def _text(words: Iterable[Word]) -> str:
    return " ".join(word.word for word in words)


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
