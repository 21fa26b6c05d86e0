"""Tables of utterances: CSV, TSV, and what LJSpeech, Coqui, DeepSpeech and Common Voice make of them."""

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asr.data.corpora.fields import (
    channel_of,
    id_of,
    located,
    name_of,
    read_lines,
    seconds_of,
    suffix_of_channel,
    suffix_of_start,
    traits_of,
)
from asr.data.corpora.utterances import Utterance
from asr.errors import ManifestError

# Names under which a table's columns are recognized, the first that is there; upper and lower case are the
# same.
AUDIO_COLUMNS = (
    *("audio", "audio_filepath", "audio_path", "audio_file", "path", "file", "filename", "file_name"),
    *("wav", "wav_file", "wav_filename"),
)
TEXT_COLUMNS = ("text", "sentence", "transcript", "transcription", "normalized_text")
SPEAKER_COLUMNS = ("speaker", "speaker_id", "speaker_name", "client_id", "spk")
GENDER_COLUMNS = ("gender", "sex")
# Seconds of an utterance that is a part of its file.
START_COLUMNS = ("start", "offset", "start_time")
END_COLUMNS = ("end", "end_time")
DURATION_COLUMNS = ("duration",)
CHANNEL_COLUMNS = ("channel",)  # counted from 0, or A and B
TRAIT_COLUMNS = {"age": ("age",), "accent": ("accent", "accents")}
# Where a table's relative paths start, besides its own folder (Common Voice keeps its audio in clips/).
TABLE_FOLDERS = (".", "clips", "audio", "wav", "wavs")


@dataclass(frozen=True)
class _Columns:
    """The places of a table's columns; None for one that it has not."""

    count: int
    audio: int
    text: int
    speaker: int | None = None
    gender: int | None = None
    channel: int | None = None
    times: Sequence[int | None] = (None, None, None)
    traits: Mapping[str, int | None] = field(default_factory=dict)

    @classmethod
    def of(cls, names: list[str], source: Path) -> "_Columns":
        """Recognize a header; raises ManifestError where it names no audio or no text."""
        audio, text = _column(names, AUDIO_COLUMNS), _column(names, TEXT_COLUMNS)
        if audio is None or text is None:
            missing = "audio" if audio is None else "text"
            expected = AUDIO_COLUMNS if audio is None else TEXT_COLUMNS
            raise ManifestError(
                f"{source} has no column of {missing}: its header is {', '.join(names) or 'empty'}; "
                f"expected one of {', '.join(expected)}"
            )
        return cls(
            len(names),
            audio,
            text,
            _column(names, SPEAKER_COLUMNS),
            _column(names, GENDER_COLUMNS),
            _column(names, CHANNEL_COLUMNS),
            [_column(names, columns) for columns in (START_COLUMNS, END_COLUMNS, DURATION_COLUMNS)],
            {name: _column(names, columns) for name, columns in TRAIT_COLUMNS.items()},
        )

    @classmethod
    def of_ljspeech(cls, row: list[str], folders: Sequence[Path]) -> "_Columns | None":
        """Recognize a first row that is no header but LJSpeech's: an id, the transcript, perhaps as it is spoken."""
        if len(row) in (2, 3) and os.path.isfile(located(row[0], folders)):  # noqa: PTH113
            return cls(len(row), 0, len(row) - 1)
        return None

    def utterance(self, row: list[str], folders: Sequence[Path]) -> Utterance:
        """Read a row; raises ValueError that says what is wrong with it."""
        if len(row) != self.count:
            raise ValueError(f"{len(row)} fields, but the header has {self.count}")
        if not (name := row[self.audio].strip()):
            raise ValueError("names no audio")
        first, last, length = (row[place].strip() if place is not None else "" for place in self.times)
        try:
            start, duration = seconds_of(first or None), None
            if start is not None:  # without one, a duration is the whole file's
                duration = seconds_of(float(last) - start if last else length or None)
        except ValueError:
            raise ValueError("start and end must be seconds, in order") from None
        channel = channel_of(row[self.channel]) if self.channel is not None else None
        return Utterance(
            id=id_of(name) + suffix_of_start(start) + suffix_of_channel(channel),
            audio=located(name, folders),
            text=row[self.text],
            speaker=name_of(row[self.speaker]) if self.speaker is not None else None,
            gender=name_of(row[self.gender]) if self.gender is not None else None,
            start=start,
            duration=duration,
            channel=channel,
            traits=traits_of({name: row[place] for name, place in self.traits.items() if place is not None}),
        )


def read_table(source: Path, problems: list[str]) -> Iterator[Utterance]:
    """Read a CSV or TSV with a header; AUDIO_COLUMNS, TEXT_COLUMNS, ... name the columns that are recognized.

    Columns are parted by commas, semicolons, tabs or `|`; LJSpeech's table, which has no header, is recognized by its
    files. Relative paths start at the table's folder, one of its TABLE_FOLDERS or the current folder, and the file's
    ending may be left out. The id is the path without its ending; with a start, that in ms follows, and a channel.
    """
    lines = read_lines(source)
    header = next(lines, "")
    separator = _separator(header, source)
    # Common Voice's sentences contain lone quotation marks, LJSpeech's too.
    quoting = csv.QUOTE_NONE if separator in "\t|" else csv.QUOTE_MINIMAL
    # skipinitialspace: where people set a space behind the separator, it comes before a field's quotation mark
    form: dict[str, Any] = {"delimiter": separator, "quoting": quoting, "skipinitialspace": True}
    first = next(csv.reader([header], **form), [])
    folders = [*(source.parent / folder for folder in TABLE_FOLDERS), Path()]
    columns = _Columns.of_ljspeech(first, folders) if separator == "|" else None
    if columns is not None:
        yield columns.utterance(first, folders)
    else:
        columns = _Columns.of([name.strip().lower() for name in first], source)
    rows = csv.reader(lines, strict=True, **form)
    for row in _rows(rows, source):
        if not row:
            continue
        try:
            yield columns.utterance(row, folders)
        except ValueError as error:
            problems.append(f"line {rows.line_num + 1} of {source}: {error}")


def _separator(header: str, source: Path) -> str:
    if source.suffix.lower() == ".tsv" or "\t" in header:
        return "\t"
    return max(",;|", key=header.count)  # the comma, where there are equally many


def _rows(rows: Any, source: Path) -> Iterator[list[str]]:
    """Go through the rows of a csv.reader; what is wrong with the quotation marks ends it, with the line."""
    try:
        yield from rows
    except csv.Error as error:
        raise ManifestError(
            f"{source}, line {rows.line_num + 1}: {error}; is a quotation mark left open in this line or before it? "
            "Double those that belong to the text"
        ) from error


def _column(columns: list[str], names: Iterable[str]) -> int | None:
    return next((columns.index(name) for name in names if name in columns), None)
