"""Readers of the forms in which people keep speech and transcripts; they give Utterances, no audio."""

import csv
import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from asr.audio import audio_files
from asr.data.corpora.utterances import Utterance
from asr.errors import ManifestError

# Names under which a table's columns are recognized, the first that is there; upper and lower case are the
# same.
AUDIO_COLUMNS = ("audio", "audio_filepath", "audio_path", "path", "file", "filename", "file_name", "wav")
TEXT_COLUMNS = ("text", "sentence", "transcript", "transcription", "normalized_text")
SPEAKER_COLUMNS = ("speaker", "speaker_id", "client_id", "spk")
GENDER_COLUMNS = ("gender", "sex")
# Seconds of an utterance that is a part of its file.
START_COLUMNS = ("start", "offset", "start_time")
END_COLUMNS = ("end", "end_time")
DURATION_COLUMNS = ("duration",)
TRAIT_COLUMNS = {"age": ("age",), "accent": ("accent", "accents")}
# Where a table's relative paths start, besides its own folder (Common Voice keeps its audio in clips/).
TABLE_FOLDERS = (".", "clips", "audio", "wav", "wavs")


def read_manifest(source: Path) -> tuple[list[Utterance], list[str]]:
    """Recognize what `source` is and read it.

    A NeMo manifest (.json, .jsonl), a table (.csv, .tsv), a Kaldi data folder (with wav.scp and text), or a
    folder of audio with same-named .txt files. Returns the utterances and a line for each entry that had to
    be left out. Raises ManifestError if it is none of these or says nothing.
    """
    if not source.exists():
        raise ManifestError(f"there is no {source}; expected a manifest file or a folder")
    if source.is_dir():
        reader = read_kaldi if (source / "wav.scp").exists() else read_folder
    elif source.suffix.lower() in (".csv", ".tsv"):
        reader = read_table
    elif source.suffix.lower() in (".json", ".jsonl", ".ndjson"):
        reader = read_nemo
    else:
        raise ManifestError(
            f"{source} is no manifest known here; expected NeMo lines (.json, .jsonl), a table (.csv, .tsv), "
            "a Kaldi data folder, or a folder of audio with same-named .txt files"
        )
    problems: list[str] = []
    utterances = list(reader(source, problems))
    if not utterances:
        raise ManifestError(with_problems(f"{source} holds no utterance that can be used", problems))
    return utterances, problems


def with_problems(message: str, problems: list[str]) -> str:
    """Add to what ended the reading of a corpus what had been left out by then, which may be why."""
    return "\n".join([message, *(f"{len(problems)} left out, the first: {first}" for first in problems[:1])])


def read_nemo(source: Path, problems: list[str]) -> Iterator[Utterance]:
    """Read JSON lines with audio_filepath and text, optionally offset and duration (seconds), speaker and
    lang.

    Relative paths start at the manifest's folder. The id is the path; with an offset, the offset in ms
    follows.
    """
    for number, line in enumerate(read_lines(source), 1):
        if not line.strip():
            continue
        where = f"line {number} of {source}"
        try:
            entry = json.loads(line)
        except ValueError:
            raise ManifestError(f"{where} is not JSON; expected NeMo's one JSON object a line") from None
        if not isinstance(entry, dict) or not isinstance(entry.get("audio_filepath"), str):
            found = ", ".join(entry) if isinstance(entry, dict) else type(entry).__name__
            raise ManifestError(
                f"{where} names no audio_filepath (it has {found}); expected NeMo's one JSON object a line"
            )
        if not isinstance(entry.get("text"), str):
            problems.append(f"{where}: no text")
            continue
        try:
            start, duration = _seconds(entry.get("offset")), _seconds(entry.get("duration"))
        except (TypeError, ValueError):
            problems.append(f"{where}: offset and duration must be seconds, not negative")
            continue
        name = entry["audio_filepath"]
        if not name.strip():
            problems.append(f"{where}: audio_filepath is empty")
            continue
        yield Utterance(
            id=_id_of(name) + _from(start),
            audio=source.parent / name,
            text=entry["text"],
            speaker=_name(entry.get("speaker")),
            gender=_name(entry.get("gender")),
            language=_name(entry.get("lang")),
            start=start or 0.0,
            duration=duration,
            traits=_traits({name: entry.get(name) for name in TRAIT_COLUMNS}),
        )


def read_kaldi(source: Path, problems: list[str]) -> Iterator[Utterance]:
    """Read a Kaldi data folder: wav.scp and text, optionally segments, utt2spk, spk2gender and spk2age.

    Relative paths start at this folder, at one of the two above it, or at the current one. A wav.scp entry
    that is a command (it ends in `|`) is left out: preparing a corpus runs no command that a file names.
    """
    files = _kaldi_table(source / "wav.scp", problems)
    texts = _kaldi_table(source / "text", problems)
    speakers, genders, *traits = (
        _kaldi_table(source / name, problems) if (source / name).exists() else {}
        for name in ("utt2spk", "spk2gender", *(f"spk2{trait}" for trait in TRAIT_COLUMNS))
    )
    if (source / "segments").exists():
        segments = {key: line.split() for key, line in _kaldi_table(source / "segments", problems).items()}
    else:
        segments = {key: [key] for key in files}
    for key, segment in segments.items():
        recording, *times = segment if segment else [""]
        file = files.get(recording)
        if file is None:
            problems.append(f"{key}: its recording {recording!r} is not in {source / 'wav.scp'}")
        elif file.endswith("|"):
            problems.append(f"{key}: wav.scp gives a command instead of a file, which is not run: {file}")
        elif key not in texts:
            problems.append(f"{key}: no transcript in {source / 'text'}")
        else:
            try:
                start, end = map(_seconds, times or (0.0, None))
                duration = None if end is None or start is None else _seconds(end - start)
            except (TypeError, ValueError):
                problems.append(
                    f"{key}: segments gives {' '.join(times)!r}; expected start and end in seconds"
                )
                continue
            speaker = speakers.get(key)
            of_speaker = (known.get(speaker or "") for known in traits)
            yield Utterance(
                id=key,
                audio=_found(file, (source, source.parent, source.parent.parent, Path())),
                text=texts[key],
                speaker=speaker,
                gender=genders.get(speaker or ""),
                start=start or 0.0,
                duration=duration,
                traits=_traits(dict(zip(TRAIT_COLUMNS, of_speaker, strict=True))),
            )


def read_table(source: Path, problems: list[str]) -> Iterator[Utterance]:
    """Read a CSV or TSV with a header; AUDIO_COLUMNS, TEXT_COLUMNS, ... name the columns that are recognized.

    Relative paths start at the table's folder or one of its TABLE_FOLDERS. The id is the path without its
    ending; with a start, that in ms follows.
    """
    lines = read_lines(source)
    header = next(lines, "")
    if source.suffix.lower() == ".tsv" or "\t" in header:
        separator, quoting = "\t", csv.QUOTE_NONE  # Common Voice's sentences contain lone quotation marks
    else:
        separator, quoting = ";" if header.count(";") > header.count(",") else ",", csv.QUOTE_MINIMAL
    # skipinitialspace: where people set a space behind the separator, it comes before a field's quotation mark
    form: dict[str, Any] = {"delimiter": separator, "quoting": quoting, "skipinitialspace": True}
    columns = [name.strip().lower() for name in next(csv.reader([header], **form), [])]
    audio = _column(columns, AUDIO_COLUMNS)
    text = _column(columns, TEXT_COLUMNS)
    speaker = _column(columns, SPEAKER_COLUMNS)
    gender = _column(columns, GENDER_COLUMNS)
    traits = {name: _column(columns, names) for name, names in TRAIT_COLUMNS.items()}
    times = [_column(columns, names) for names in (START_COLUMNS, END_COLUMNS, DURATION_COLUMNS)]
    if audio is None or text is None:
        missing = "audio" if audio is None else "text"
        wanted = AUDIO_COLUMNS if audio is None else TEXT_COLUMNS
        raise ManifestError(
            f"{source} has no column of {missing}: its header is {', '.join(columns) or 'empty'}; "
            f"expected one of {', '.join(wanted)}"
        )
    folders = [source.parent / folder for folder in TABLE_FOLDERS]
    rows = csv.reader(lines, strict=True, **form)
    for row in _rows(rows, source):
        if not row:
            continue
        if len(row) != len(columns):
            problems.append(
                f"line {rows.line_num + 1} of {source}: {len(row)} fields, but the header has {len(columns)}"
            )
            continue
        name = row[audio].strip()
        if not name:
            problems.append(f"line {rows.line_num + 1} of {source}: names no audio")
            continue
        first, last, length = (row[place].strip() if place is not None else "" for place in times)
        try:
            start, duration = _seconds(first or None), None
            if start is not None:  # without one, a duration is the whole file's
                duration = _seconds(float(last) - start if last else length or None)
        except ValueError:
            problems.append(f"line {rows.line_num + 1} of {source}: start and end must be seconds, in order")
            continue
        yield Utterance(
            id=_id_of(name) + _from(start),
            audio=_found(name, folders),
            text=row[text],
            speaker=_name(row[speaker]) if speaker is not None else None,
            gender=_name(row[gender]) if gender is not None else None,
            start=start or 0.0,
            duration=duration,
            traits=_traits({name: row[place] for name, place in traits.items() if place is not None}),
        )


def _rows(rows: Any, source: Path) -> Iterator[list[str]]:
    """Go through the rows of a csv.reader; what is wrong with the quotation marks ends it, with the line."""
    try:
        yield from rows
    except csv.Error as error:
        raise ManifestError(
            f"{source}, line {rows.line_num + 1}: {error}; is a quotation mark left open in this line or before it? "
            "Double those that belong to the text"
        ) from error


def read_folder(source: Path, problems: list[str]) -> Iterator[Utterance]:
    """Read audio files at any depth, each with its transcript in a .txt file of the same name beside it.

    Where all of the audio lies in sub-folders, the name of a file's folder is taken for its speaker.
    """
    files = audio_files(source)
    if not files:
        raise ManifestError(
            f"{source} holds no audio: no file in it ends as audio does (.wav, .flac, .mp3, ...)"
        )
    nested = all(path.parent != source for path in files)
    for path in files:
        transcript = path.with_suffix(".txt")
        key = _id_of(str(path.relative_to(source)))
        if not transcript.is_file():
            problems.append(f"{key}: there is no transcript {transcript}")
            continue
        try:
            text = " ".join(" ".join(read_lines(transcript)).split())
        except ManifestError as error:
            problems.append(f"{key}: {error}")
            continue
        yield Utterance(
            id=key,
            audio=path,
            text=text,
            speaker="/".join(path.parent.relative_to(source).parts) if nested else None,
        )


def read_lines(path: Path) -> Iterator[str]:
    """Read a text file, also compressed (.gz), line by line with the line ends; raises ManifestError.

    Lines end as Python's files have it; str.splitlines would part a transcript at U+2028 and its like.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        # utf-8-sig: spreadsheets put a byte order mark first; newline="": csv's quoted fields hold line ends
        with opened(path, "rt", encoding="utf-8-sig", newline="") as lines:
            yield from lines
    except UnicodeDecodeError as error:  # whose place is that in a block
        with opened(path, "rb") as lines:
            number = next(number for number, line in enumerate(lines, 1) if not _is_utf8(line))
        raise ManifestError(
            f"line {number} of {path} is not UTF-8 text; convert it, for example with iconv"
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise ManifestError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _kaldi_table(path: Path, problems: list[str]) -> dict[str, str]:
    """Read lines of a key and a value; an empty value is one too. Of two lines with a key the first counts."""
    table: dict[str, str] = {}
    for line in read_lines(path):
        key, _, value = line.replace("\t", " ", 1).strip().partition(" ")
        if key in table:
            problems.append(f"{key}: a second line of {path} has this key")
        elif key:
            table[key] = value.strip()
    return table


def _found(name: str, folders: Iterable[Path]) -> Path:
    """Give the first of folder/name that exists; if none does, the first, so that the report names it."""
    candidates = [folder / name for folder in folders]
    there = (path for path in candidates if os.path.isfile(path))  # noqa: PTH113 - Path's raises for long names
    return next(there, candidates[0])


def _column(columns: list[str], names: Iterable[str]) -> int | None:
    return next((columns.index(name) for name in names if name in columns), None)


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    seconds = float(value)
    if not 0 <= seconds < float("inf"):
        raise ValueError("not a time")
    return seconds


def _from(start: float | None) -> str:
    """Tell an utterance's id from those of the other parts of its file."""
    return f"-{round(1000 * start):08d}" if start is not None else ""


def _name(value: Any) -> str | None:
    return str(value).strip() or None if value is not None else None


def _traits(known: Mapping[str, Any]) -> dict[str, str | int]:
    """Keep what is known; digits become numbers, so that an age can be put into ranges."""
    named = {name: text for name, value in known.items() if (text := _name(value))}
    return {name: int(text) if text.isdecimal() else text for name, text in named.items()}


def _id_of(name: str) -> str:
    path = Path(name)
    return str(path.parent / path.stem).lstrip("./")
