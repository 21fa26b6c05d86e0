"""The formats of a transcript: text, JSON and subtitles as whisper writes them, CTM and TRN as sclite reads them."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from operator import itemgetter
from pathlib import Path
from types import MappingProxyType
from typing import Any

from asr.transcript import Segment, Transcript, Word

FORMATS = ("txt", "json", "srt", "vtt", "tsv", "ctm", "trn")
DAMAGE_MS = 2000  # for which a subtitle that marks damage is shown
ORIGINS_FILE = ".asr-origins.jsonl"


@dataclass(frozen=True)
class Layout:
    """How outputs look.

    Attributes:
        word_timestamps: list each segment's words in JSON.
        max_line_width: characters in a line of subtitles; None leaves a segment on one line.
        max_line_count: lines in a subtitle; None leaves a segment in one subtitle.
        highlight_words: underline each word of a subtitle while it is spoken.
        min_confidence: words of less are doubtful: [word] in txt, srt, vtt and tsv, `doubtful` in JSON.
        omit_doubtful: leave them out of every format instead.
    """

    word_timestamps: bool = False
    max_line_width: int | None = None
    max_line_count: int | None = None
    highlight_words: bool = False
    min_confidence: float = 0.0
    omit_doubtful: bool = False

    def spelled(self, word: Word) -> str:
        """Return a word as people are to read it."""
        return f"[{word.word}]" if word.confidence < self.min_confidence else word.word

    def text(self, words: Iterable[Word]) -> str:
        """Return words as a line of text."""
        return " ".join(map(self.spelled, words))


def render(
    transcript: Transcript,
    form: str,
    name: str,
    layout: Layout = Layout(),
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Write a transcript in one of FORMATS.

    Arguments: name, the recording's in CTM and TRN; facts, what JSON says of the run before all else, such as the file
    and the model. Words of several channels are written by time, with the channel's label. Where the audio is damaged
    from some point on, a comment or a last line says so.
    """
    if form not in FORMATS:
        raise ValueError(f"there is no format {form!r}; expected one of {', '.join(FORMATS)}")
    if layout.omit_doubtful:
        transcript = transcript.without_doubtful(layout.min_confidence)
    if form == "json":
        return json.dumps(to_json(transcript, layout, facts), ensure_ascii=False, indent=2) + "\n"
    return WRITERS[form](transcript, name, layout)


def to_json(
    transcript: Transcript, layout: Layout = Layout(), facts: Mapping[str, Any] = MappingProxyType({})
) -> dict:
    """Return a transcript as plain values: whisper's field names, and beside them words, duration and alternatives."""
    if layout.omit_doubtful:
        transcript = transcript.without_doubtful(layout.min_confidence)
    segments = []
    for number, segment in enumerate(transcript.segments):
        value = {"id": number, "start": segment.start, "end": segment.end, "text": segment.text}
        if segment.speaker:
            value["speaker"] = segment.speaker
        if layout.word_timestamps:
            value["words"] = [_timed_word(word) for word in segment.words]
        segments.append(value)
    values = transcript.to_dict()
    for word in values["words"]:
        if word["confidence"] < layout.min_confidence:
            word["doubtful"] = True
    return {**facts, "text": transcript.text, "segments": segments, "language": None} | values


def _txt(transcript: Transcript, name: str, layout: Layout) -> str:
    if any(word.channel for word in transcript.words):
        lines = [f"{_label(segment)}{layout.text(segment.words)}" for segment in transcript.segments]
    else:
        lines = [layout.text(transcript.words) if layout.min_confidence else transcript.text]
    return "\n".join([*lines, *_damage(transcript)]) + "\n"


def _srt(transcript: Transcript, name: str, layout: Layout) -> str:
    cues = enumerate(_cues(transcript, layout, str), 1)
    return "".join(
        f"{i}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{text}\n\n" for i, (start, end, text) in cues
    )


def _vtt(transcript: Transcript, name: str, layout: Layout) -> str:
    cues = _cues(transcript, layout, _escaped)
    return "WEBVTT\n\n" + "".join(
        f"{_clock(start, '.')} --> {_clock(end, '.')}\n{text}\n\n" for start, end, text in cues
    )


def _tsv(transcript: Transcript, name: str, layout: Layout) -> str:
    rows = [(s.start, s.end, _label(s) + layout.text(s.words)) for s in transcript.segments]
    rows += [(transcript.duration, transcript.duration, mark) for mark in _damage(transcript)]
    return (
        "\n".join(["start\tend\ttext", *(f"{_ms(start)}\t{_ms(end)}\t{text}" for start, end, text in rows)])
        + "\n"
    )


def _ctm(transcript: Transcript, name: str, layout: Layout) -> str:
    lines = [
        f"{recording_id(name)} {word.channel or 1} {word.start:.3f} {word.end - word.start:.3f} {word.word} "
        f"{word.confidence:.3f}\n"
        for word in transcript.words
    ]
    return "".join([*lines, *(f";; {mark}\n" for mark in _damage(transcript))])


def _trn(transcript: Transcript, name: str, layout: Layout) -> str:
    return "".join(
        [f"{transcript.text} ({recording_id(name)})\n", *(f";; {mark}\n" for mark in _damage(transcript))]
    )


# JSON is apart, since it takes facts, too.
WRITERS: dict[str, Callable[[Transcript, str, Layout], str]] = {
    "txt": _txt,
    "srt": _srt,
    "vtt": _vtt,
    "tsv": _tsv,
    "ctm": _ctm,
    "trn": _trn,
}


def _damage(transcript: Transcript) -> list[str]:
    """Return the line that marks damaged audio, if it is."""
    return [f"[audio is damaged after {transcript.duration:.1f} s]"] if transcript.damage else []


def _label(segment: Segment) -> str:
    return f"{segment.speaker}: " if segment.speaker else ""


def _timed_word(word: Word) -> dict:
    value = {"word": word.word, "start": word.start, "end": word.end, "probability": word.confidence}
    return value | ({"characters": [asdict(one) for one in word.characters]} if word.characters else {})


def write_outputs(
    transcript: Transcript,
    target: Path,
    formats: Sequence[str],
    name: str,
    layout: Layout = Layout(),
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write `target`.txt, `target`.json, ...; all of them whole, or none. Raises OSError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratches = []
    try:
        for form in formats:
            scratch = target.with_name(f".{target.name}.{form}.part")
            scratches.append((scratch, output_path(target, form)))
            scratch.write_text(render(transcript, form, name, layout, facts), "utf-8", "surrogateescape")
        for scratch, path in scratches:
            scratch.replace(path)
    finally:
        for scratch, _ in scratches:
            with suppress(OSError):
                scratch.unlink(missing_ok=True)


class Origins:
    """Remembers of which file each output under a folder was made, which most formats cannot say.

    The folder's ORIGINS_FILE has a line of JSON for each, appended once the output is written; an output's last line
    holds. Files are told apart by size and time of change, so that moving them changes nothing.

    Arguments: folder, None for one that remembers nothing.
    """

    def __init__(self, folder: Path | None):
        self.path = folder / ORIGINS_FILE if folder is not None else None
        self._known: dict[str, Origin] = {}
        with suppress(OSError):  # as where there is none yet
            lines = self.path.read_text("utf-8").splitlines() if self.path is not None else []
            for line in lines:
                with suppress(ValueError, KeyError, TypeError):  # a crash may cut one short
                    values = json.loads(line)
                    output = values.pop("output")
                    self._known[output] = Origin(**values)

    def made(self, target: Path, form: str) -> bool:
        """Whether it is known that an output was made here, of whatever file."""
        return bool(self._known.keys() & self._names(target, [form]))

    def other(self, target: Path, formats: Sequence[str], origin: "Origin") -> str | None:
        """Name the file that one of a target's outputs was made of, where that is known and is another."""
        for name in self._names(target, formats):
            known = self._known.get(name, origin)
            if (known.size, known.mtime_ns) != (origin.size, origin.mtime_ns):
                return known.source
        return None

    def add(self, target: Path, formats: Sequence[str], origin: "Origin") -> None:
        """Remember of which file outputs were made, if it can be written: the outputs are there all the same."""
        if self.path is None:
            return
        with suppress(OSError):
            lines = [
                json.dumps({"output": name} | asdict(origin)) + "\n" for name in self._names(target, formats)
            ]
            with self.path.open("a", encoding="utf-8") as file:
                file.write("".join(lines))

    def _names(self, target: Path, formats: Sequence[str]) -> list[str]:
        if self.path is None:
            return []
        return [str(output_path(target, form).relative_to(self.path.parent)) for form in formats]


@dataclass(frozen=True)
class Origin:
    """An audio file as it was when it was read: its path, size in bytes, and time of change in nanoseconds."""

    source: str
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: str | Path) -> "Origin":
        """Look at a file. Raises OSError."""
        status = Path(path).stat()
        return cls(str(Path(path).absolute()), status.st_size, status.st_mtime_ns)


def output_path(target: Path, form: str) -> Path:
    """Name the output of a format: `target` with the format's suffix behind it."""
    return target.with_name(f"{target.name}.{form}")


def _cues(transcript: Transcript, layout: Layout, escape) -> list[tuple[int, int, str]]:
    """Return the subtitles: start and end in milliseconds and their text; those of a channel never overlap."""
    cues, ends = [], defaultdict(int)
    for segment in transcript.segments:
        for start, end, text in _timed_texts(segment, layout, escape):
            start = max(start, ends[segment.speaker])
            ends[segment.speaker] = end = max(end, start + 1)
            cues.append((start, end, text))
    end = _ms(transcript.duration)
    cues += [(end, end + DAMAGE_MS, escape(mark)) for mark in _damage(transcript)]
    return sorted(cues, key=itemgetter(0))


def _timed_texts(segment: Segment, layout: Layout, escape) -> Iterator[tuple[int, int, str]]:
    lines = list(_lines(segment.words, layout))
    count = layout.max_line_count or len(lines)
    label = _voice(segment, escape)
    for block in (lines[i : i + count] for i in range(0, len(lines), count)):
        words = [word for line in block for word in line]
        if not layout.highlight_words:
            yield _ms(words[0].start), _ms(words[-1].end), label + _spelled(block, layout, escape)
            continue
        shown = _ms(words[0].start)
        for word in words:
            if _ms(word.start) > shown:
                yield shown, _ms(word.start), label + _spelled(block, layout, escape)
            yield _ms(word.start), _ms(word.end), label + _spelled(block, layout, escape, word)
            shown = _ms(word.end)


def _voice(segment: Segment, escape) -> str:
    """Return the speaker's label: WebVTT has a tag for it."""
    return f"<v {segment.speaker}>" if segment.speaker and escape is _escaped else _label(segment)


def _lines(words: Sequence[Word], layout: Layout) -> Iterator[list[Word]]:
    """Break words into lines of at most the layout's width; a longer word has a line for itself."""
    width = layout.max_line_width
    line: list[Word] = []
    length = 0
    for word in words:
        if line and width is not None and length + 1 + len(layout.spelled(word)) > width:
            yield line
            line, length = [], 0
        length += len(layout.spelled(word)) + bool(line)
        line.append(word)
    yield line


def _spelled(lines: Iterable[Sequence[Word]], layout: Layout, escape, underlined: Word | None = None) -> str:
    def spell(word: Word) -> str:
        text = escape(layout.spelled(word))
        return f"<u>{text}</u>" if word is underlined else text

    return "\n".join(" ".join(map(spell, line)) for line in lines)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _ms(seconds: float) -> int:
    return round(1000 * seconds)


def _clock(ms: int, point: str) -> str:
    """Write hours:minutes:seconds and milliseconds behind `point`.

    >>> _clock(3_723_004, ",")
    '01:02:03,004'
    """
    return f"{ms // 3600000:02}:{ms // 60000 % 60:02}:{ms // 1000 % 60:02}{point}{ms % 1000:03}"


def recording_id(name: str) -> str:
    """Return a recording's name as one word, without the brackets that end a line of TRN; folders become part of it."""
    return "".join("_" if letter.isspace() or letter in "()" else letter for letter in name.replace("/", "-"))
