"""The formats of a transcript: text, JSON and subtitles as whisper writes them, CTM and TRN as sclite reads them."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from asr.transcript import Segment, Transcript, Word

FORMATS = ("txt", "json", "srt", "vtt", "tsv", "ctm", "trn")
ORIGINS_FILE = ".asr-origins.jsonl"


@dataclass(frozen=True)
class Layout:
    """How outputs look.

    Attributes:
        word_timestamps: list each segment's words in JSON.
        max_line_width: characters in a line of subtitles; None leaves a segment on one line.
        max_line_count: lines in a subtitle; None leaves a segment in one subtitle.
        highlight_words: underline each word of a subtitle while it is spoken.
    """

    word_timestamps: bool = False
    max_line_width: int | None = None
    max_line_count: int | None = None
    highlight_words: bool = False


def render(transcript: Transcript, form: str, name: str, layout: Layout = Layout()) -> str:
    """Write a transcript in one of FORMATS; `name` is the recording's in CTM and TRN."""
    if form == "txt":
        return transcript.text + "\n"
    if form == "json":
        return json.dumps(to_json(transcript, layout), ensure_ascii=False, indent=2) + "\n"
    if form == "tsv":
        lines = [f"{_ms(s.start)}\t{_ms(s.end)}\t{s.text}" for s in transcript.segments]
        return "\n".join(["start\tend\ttext", *lines]) + "\n"
    if form == "ctm":
        return "".join(
            f"{_id(name)} 1 {word.start:.3f} {word.end - word.start:.3f} {word.word} {word.confidence:.3f}\n"
            for word in transcript.words
        )
    if form == "trn":
        return f"{transcript.text} ({_id(name)})\n"
    if form == "srt":
        cues = enumerate(_cues(transcript.segments, layout, str), 1)
        return "".join(
            f"{i}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{text}\n\n" for i, (start, end, text) in cues
        )
    if form == "vtt":
        cues = _cues(transcript.segments, layout, _escaped)
        return "WEBVTT\n\n" + "".join(
            f"{_clock(start, '.')} --> {_clock(end, '.')}\n{text}\n\n" for start, end, text in cues
        )
    raise ValueError(f"there is no format {form!r}; expected one of {', '.join(FORMATS)}")


def to_json(transcript: Transcript, layout: Layout = Layout()) -> dict:
    """Give a transcript as plain values: whisper's field names, and beside them words, duration and alternatives."""
    segments = []
    for number, segment in enumerate(transcript.segments):
        value = {"id": number, "start": segment.start, "end": segment.end, "text": segment.text}
        if layout.word_timestamps:
            value["words"] = [_timed_word(word) for word in segment.words]
        segments.append(value)
    return {"text": transcript.text, "segments": segments, "language": None} | transcript.to_dict()


def _timed_word(word: Word) -> dict:
    value = {"word": word.word, "start": word.start, "end": word.end, "probability": word.confidence}
    return value | ({"characters": [asdict(one) for one in word.characters]} if word.characters else {})


def write_outputs(
    transcript: Transcript,
    target: Path,
    formats: Sequence[str],
    name: str,
    layout: Layout = Layout(),
) -> None:
    """Write `target`.txt, `target`.json, ...; all of them whole, or none. Raises OSError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratches = []
    try:
        for form in formats:
            scratch = target.with_name(f".{target.name}.{form}.part")
            scratches.append((scratch, output_path(target, form)))
            scratch.write_text(render(transcript, form, name, layout), "utf-8", "surrogateescape")
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


def _cues(segments: Iterable[Segment], layout: Layout, escape) -> Iterator[tuple[int, int, str]]:
    """Give the subtitles: start and end in milliseconds, each after the one before, and their text."""
    previous = 0
    for start, end, text in _timed_texts(segments, layout, escape):
        start = max(start, previous)
        previous = max(end, start + 1)
        yield start, previous, text


def _timed_texts(segments: Iterable[Segment], layout: Layout, escape) -> Iterator[tuple[int, int, str]]:
    for segment in segments:
        lines = list(_lines(segment.words, layout.max_line_width))
        count = layout.max_line_count or len(lines)
        for block in (lines[i : i + count] for i in range(0, len(lines), count)):
            words = [word for line in block for word in line]
            if not layout.highlight_words:
                yield _ms(words[0].start), _ms(words[-1].end), _spelled(block, escape)
                continue
            said = _ms(words[0].start)
            for word in words:
                if _ms(word.start) > said:
                    yield said, _ms(word.start), _spelled(block, escape)
                yield _ms(word.start), _ms(word.end), _spelled(block, escape, word)
                said = _ms(word.end)


def _lines(words: Sequence[Word], width: int | None) -> Iterator[list[Word]]:
    """Break words into lines of at most `width` characters; a longer word has one for itself."""
    line: list[Word] = []
    length = 0
    for word in words:
        if line and width is not None and length + 1 + len(word.word) > width:
            yield line
            line, length = [], 0
        length += len(word.word) + bool(line)
        line.append(word)
    yield line


def _spelled(lines: Iterable[Sequence[Word]], escape, underlined: Word | None = None) -> str:
    return "\n".join(
        " ".join(f"<u>{escape(word.word)}</u>" if word is underlined else escape(word.word) for word in line)
        for line in lines
    )


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


def _id(name: str) -> str:
    """Make a recording's name one word, without the brackets that end a line of TRN; folders become part of it."""
    return "".join("_" if letter.isspace() or letter in "()" else letter for letter in name.replace("/", "-"))
