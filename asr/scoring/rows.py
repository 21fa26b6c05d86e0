"""Transcripts in rows with named columns: JSON, JSON lines (NeMo, whisper, lhotse, our reports) and tables."""

import csv
import io
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asr.errors import TextError
from asr.wording import short

# A side's own name goes first: `text` is NeMo's reference, and whisper's hypothesis.
TEXT_KEYS = {
    "reference": ("reference", "ref", "text", "sentence", "transcript", "transcription"),
    "hypothesis": (
        *("hypothesis", "hyp", "pred_text", "prediction"),
        *("text", "transcript", "transcription", "sentence"),
    ),
}
ID_KEYS = ("id", "utt_id", "utterance_id", "utt", "key")
# Columns that name an utterance by its audio file.
PATH_KEYS = (
    *("audio_filepath", "audio_file", "audio", "path", "file", "filename", "file_name"),
    *("wav_filename", "wav", "audio_path"),
)
SPEAKER_KEYS = ("speaker_id", "speaker_name", "client_id", "spk_id", "spk")
DELIMITERS = (",", "\t", ";", "|")
COUNTS = "errors"  # of an utterance, in our reports


@dataclass(frozen=True)
class Rows:
    """What rows hold by utterance: texts, further fields, words' confidences, and the normalizer they passed."""

    texts: dict[str, str]
    fields: dict[str, dict[str, Any]] = field(default_factory=dict)
    confidences: dict[str, tuple[float, ...]] = field(default_factory=dict)
    normalizer: str | None = None


def read_json(path: Path, content: str, side: str) -> Rows:
    """Return what a JSON file, or one of JSON lines, holds. Raises TextError."""
    normalizer = None
    try:
        loaded = json.loads(content)
    except json.JSONDecodeError:
        lines = enumerate(io.StringIO(content, newline=None), 1)
        rows = [_json_line(path, number, line) for number, line in lines if line.strip()]
    else:
        rows = loaded if isinstance(loaded, list) else [loaded]
        if isinstance(loaded, dict) and isinstance(
            loaded.get("sets"), dict
        ):  # several sets, as `asr evaluate` writes
            reports = [part for part in loaded["sets"].values() if isinstance(part, dict)]
            rows = [row for report in reports for row in report.get("hypotheses", ())]
            named = {report.get("normalizer") for report in reports}
            normalizer = named.pop() if len(named) == 1 else None
        elif isinstance(loaded, dict) and "hypotheses" in loaded:  # one of our reports
            rows, normalizer = loaded["hypotheses"], loaded.get("normalizer")
        elif isinstance(loaded, dict) and not any(key in loaded for key in (*ID_KEYS, *PATH_KEYS)):
            rows = [{"id": path.stem} | loaded]  # one recording's transcript, as whisper writes it
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise TextError(f"{path}: expected JSON objects, one for each utterance")
    return _utterances(path, list(map(_flat_cut, rows)), side, "object", normalizer)


def delimiter_of(line: str) -> str | None:
    """Return what parts the columns of a table's first line; None where that does not name a text and its utterance.

    >>> delimiter_of("audio_file|text|speaker_name"), delimiter_of("hello, there")
    ('|', None)
    """
    texts = {*TEXT_KEYS["reference"], *TEXT_KEYS["hypothesis"]}
    for delimiter in DELIMITERS:
        names = set(_header(line, delimiter))
        if names & texts and names & {*ID_KEYS, *PATH_KEYS, "start"}:
            return delimiter
    return None


def _header(line: str, delimiter: str) -> list[str]:
    return [cell.strip().strip('"').lower() for cell in line.strip().split(delimiter)]


def read_table(path: Path, content: str, side: str) -> Rows:
    """Return what a table holds: comma-, tab-, semicolon- or |-separated, its columns named in the first line.

    A table of start, end and text is one recording's, as whisper writes it. Raises TextError.
    """
    first = content.lstrip().split("\n", 1)[0]
    delimiter = delimiter_of(first)
    if delimiter is None:
        keys = " or ".join((ID_KEYS[0], PATH_KEYS[0]))
        raise TextError(
            f"{path}: the first line names no columns that are known; expected {TEXT_KEYS[side][0]} (or text) and "
            f"{keys}; found {short(first.strip())!r}"
        )
    quoting = csv.QUOTE_MINIMAL if delimiter in ",;" else csv.QUOTE_NONE
    reader = csv.reader(io.StringIO(content.lstrip(), newline=""), delimiter=delimiter, quoting=quoting)
    try:
        lines = [(reader.line_num, cells) for cells in reader if any(map(str.strip, cells))]
    except csv.Error as error:
        raise TextError(f"{path}: line {reader.line_num} is not a row of a table: {error}") from error
    names = _header(first, delimiter)
    for number, cells in lines[1:]:
        if len(cells) != len(names):
            raise TextError(
                f"{path}: line {number} has {len(cells)} columns; expected {len(names)}, as the first line names"
            )
    rows: list[dict[str, Any]] = [dict(zip(names, cells, strict=True)) for _, cells in lines[1:]]
    if not {*ID_KEYS, *PATH_KEYS} & set(names):
        key = next(name for name in TEXT_KEYS["hypothesis"] if name in names)
        return Rows({unicodedata.normalize("NFC", path.stem): " ".join(row[key].strip() for row in rows)})
    kept = {*ID_KEYS, *PATH_KEYS, *TEXT_KEYS["reference"], *TEXT_KEYS["hypothesis"]}
    rows = [{name: cell if name in kept else value(cell) for name, cell in row.items()} for row in rows]
    return _utterances(path, rows, side, "row")


def _utterances(
    path: Path, rows: Sequence[dict[str, Any]], side: str, unit: str, normalizer: str | None = None
) -> Rows:
    text_key, id_key = (_key(path, rows, names, unit) for names in (TEXT_KEYS[side], (*ID_KEYS, *PATH_KEYS)))
    names = [str(row[id_key]) for row in rows]
    if id_key in PATH_KEYS:
        names = stems(names)
    texts = by_id(path, ((name, str(row[text_key] or "")) for name, row in zip(names, rows, strict=True)))
    known = {id_key, COUNTS, *TEXT_KEYS["reference"], *TEXT_KEYS["hypothesis"]}
    fields = [
        {key: cell for key, cell in row.items() if key not in known and isinstance(cell, str | int | float)}
        for row in map(_with_speaker, rows)
    ]
    confidences = {name: found for name, row in zip(texts, rows, strict=True) if (found := _confidences(row))}
    return Rows(texts, dict(zip(texts, fields, strict=True)), confidences, normalizer)


def _with_speaker(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose speaker is called so."""
    name = next((key for key in SPEAKER_KEYS if key in row), None)
    if name is None or "speaker" in row:
        return row
    return {"speaker" if key == name else key: cell for key, cell in row.items()}


def _confidences(row: dict[str, Any]) -> tuple[float, ...]:
    """Return the words' confidences as `asr transcribe` and whisper write them; none unless every word has one."""
    segments = [part for part in row.get("segments") or () if isinstance(part, dict)]
    words = row.get("words") or [word for segment in segments for word in segment.get("words") or ()]
    if not isinstance(words, list):
        return ()
    found = [word.get("confidence", word.get("probability")) for word in words if isinstance(word, dict)]
    known = [number for number in found if isinstance(number, int | float) and 0 <= number <= 1]
    return tuple(known) if len(known) == len(words) else ()


def _json_line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise TextError(f"{path}: line {number} is not JSON: {error.msg}; found {short(line)!r}") from error


def _flat_cut(row: dict[str, Any]) -> dict[str, Any]:
    """Lift the supervision of one of lhotse's cuts to the row; leave other rows as they are."""
    supervisions = row.get("supervisions")
    if not isinstance(supervisions, list):
        return row
    spoken: dict[str, Any] = supervisions[0] if supervisions else {"text": ""}
    return (spoken.get("custom") or {}) | spoken | {"id": row.get("id"), "duration": row.get("duration")}


def _key(path: Path, rows: Sequence[Mapping[str, Any]], names: Sequence[str], unit: str) -> str:
    for name in names:
        if all(name in row for row in rows):
            return name
    found = ", ".join(sorted(set.intersection(*map(set, rows)))) if rows else ""
    raise TextError(
        f"{path}: expected one of {', '.join(names)} in every {unit}; in all of them are: {found or 'none'}"
    )


def by_id(path: Path, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return texts by id, ids in Unicode's composed form (file names may come in another). Raises TextError."""
    texts: dict[str, str] = {}
    for spelled, text in pairs:
        name = unicodedata.normalize("NFC", spelled)
        if name in texts:
            hint = "" if path.is_dir() else "; if its lines have no ids, use --format lines"
            raise TextError(
                f"{path}: the id {name!r} stands there twice; expected one transcript for each id{hint}"
            )
        texts[name] = text
    return texts


def stems(names: Sequence[str]) -> list[str]:
    """Name files by their stems, or, where two share one, by their paths without the suffix."""
    found = [Path(name).stem for name in names]
    if max(Counter(found).values(), default=1) == 1:
        return found
    return [Path(name).with_suffix("").as_posix() for name in names]


def value(text: str) -> str | int | float:
    """Return a cell as a number where it is one.

    >>> value("31"), value("1.5"), value("ann")
    (31, 1.5, 'ann')
    """
    if text.isdecimal():
        return int(text)
    return float(text) if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)", text) else text
