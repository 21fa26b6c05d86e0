"""Read transcripts as systems write them: TRN, STM, CTM, Kaldi's text, JSON, JSON lines, folders, lines."""

import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from asr.errors import TextError

FORMATS = ("auto", "trn", "stm", "ctm", "kaldi", "json", "lines", "folder")
# In JSON a side's own name goes first: `text` is NeMo's reference, and whisper's hypothesis.
TEXT_KEYS = {
    "reference": ("reference", "ref", "text", "sentence", "transcript", "transcription"),
    "hypothesis": (
        "hypothesis",
        "hyp",
        "pred_text",
        "prediction",
        "text",
        "transcript",
        "transcription",
        "sentence",
    ),
}
ID_KEYS = ("id", "utt_id", "utterance_id", "utt", "key")
PATH_KEYS = ("audio_filepath", "audio_file", "audio", "path", "file")  # an utterance named after its audio
KALDI_FIELDS = {"dur": "duration"}  # what Kaldi abbreviates
Parsed = TypeVar("Parsed")
IGNORED = "ignore_time_segment_in_scoring"  # NIST's mark of a stretch that nobody is to be judged on


class Timed(NamedTuple):
    """A stretch of a recording: a segment of an STM file or a word of a CTM file; times in seconds."""

    file: str
    channel: str
    start: float
    end: float
    text: str
    speaker: str = ""
    confidence: float | None = None


@dataclass(frozen=True)
class Transcripts:
    """What a file holds: `texts` by utterance, and by utterance what else it says (`fields`: speaker, ...).

    `confidences` are those of an utterance's words, in [0, 1], where the file gives each of them one. STM and
    CTM files hold `timed` stretches of recordings instead, in the order of time.
    """

    source: str
    form: str
    texts: dict[str, str] = field(default_factory=dict)
    fields: dict[str, dict[str, Any]] = field(default_factory=dict)
    timed: tuple[Timed, ...] = ()
    confidences: dict[str, tuple[float, ...]] = field(default_factory=dict)


def read_transcripts(path: str | Path, side: str = "hypothesis", form: str = "auto") -> Transcripts:
    """Read a file or folder of transcripts, recognized by its name and content or as `form` says.

    `side` ("reference" or "hypothesis") chooses the key where JSON holds several texts. Raises TextError for
    what is missing, unreadable or malformed, with the line.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "reference.trn")
    ...     _ = path.write_text("three one seven (u1)")
    ...     read_transcripts(path).texts
    {'u1': 'three one seven'}
    """
    path = Path(path)
    if form not in FORMATS:
        raise TextError(f"there is no format {form!r}; expected one of {', '.join(FORMATS)}")
    if path.is_dir():
        return _read_folder(path, side)
    if form == "folder":
        raise TextError(f"{path}: is not a folder")
    content = _read_text(path)
    form = recognize(path, content) if form == "auto" else form
    if not content.strip() and (
        side == "reference" or form not in ("ctm", "lines")
    ):  # those of silence are empty
        raise TextError(f"{path}: is empty; expected transcripts")
    if form == "json":
        texts, fields, confidences = _read_json(path, content, side)
        return Transcripts(str(path), form, texts, fields, confidences=confidences)
    lines = [(number, line.strip()) for number, line in enumerate(_lines(content), 1)]
    if form in ("stm", "ctm"):
        parse = _parse_stm if form == "stm" else _parse_ctm
        kept = ((number, line) for number, line in lines if line and not line.startswith(";;"))
        timed = [found for number, line in kept if (found := _at_line(path, number, parse, line))]
        return Transcripts(str(path), form, timed=tuple(sorted(timed, key=lambda item: item[:4])))
    if form == "lines":
        return Transcripts(str(path), form, {str(number): line for number, line in lines})
    parse = _parse_trn if form == "trn" else _parse_kaldi
    pairs = (
        _at_line(path, number, parse, line) for number, line in lines if line and not line.startswith(";;")
    )
    texts = _by_id(path, pairs)
    return Transcripts(str(path), form, texts, _kaldi_fields(path.parent, texts) if form == "kaldi" else {})


def recognize(path: Path, content: str) -> str:
    """Tell the form of a file from its name, else from its lines.

    >>> recognize(Path("a.txt"), "HELLO THERE (u1)")
    'trn'
    >>> recognize(Path("a.txt"), "talk 1 0.50 0.21 hello 0.98")
    'ctm'
    >>> recognize(Path("a.txt"), "u1 hello there")
    'kaldi'
    """
    suffixes = [suffix.lower().lstrip(".") for suffix in path.suffixes]
    for suffix in suffixes[::-1]:
        if suffix in ("trn", "stm", "ctm"):
            return suffix
        if suffix in ("json", "jsonl", "ndjson"):
            return "json"
    if content.lstrip()[:1] in ("{", "["):
        return "json"
    lines = [line.split() for line in _lines(content) if line.strip() and not line.startswith(";;")]
    if all(re.fullmatch(r".*\(\S+\)", words[-1]) for words in lines):
        return "trn"
    if all(5 <= len(words) <= 8 and _are_times(words[2:4]) for words in lines):
        return "ctm"
    if all(len(words) >= 5 and _are_times(words[3:5]) for words in lines):
        return "stm"
    return "kaldi"


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        return data.decode("utf-8-sig")
    except FileNotFoundError:
        raise TextError(f"{path}: there is no such file or folder") from None
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise TextError(
            f"{path}: line {line} is not UTF-8 text; convert it, for example with iconv"
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise TextError(f"{path}: cannot be read: {error}") from error


def _lines(content: str) -> list[str]:
    """Part a text at its line ends as files do; str.splitlines would part transcripts at U+2028 and its like."""
    return list(io.StringIO(content, newline=None))


def _at_line(path: Path, number: int, parse: Callable[[str], Parsed], line: str) -> Parsed:
    try:
        return parse(line)
    except ValueError as error:
        raise TextError(f"{path}: line {number}: {error}; found {_short(line)!r}") from error


def _by_id(path: Path, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for name, text in pairs:
        if name in texts:
            hint = "" if path.is_dir() else "; if its lines have no ids, say --format lines"
            raise TextError(f"{path}: {name!r} stands there twice; expected one transcript for each id{hint}")
        texts[name] = text
    return texts


def _parse_trn(line: str) -> tuple[str, str]:
    found = re.fullmatch(r"(.*)\(([^()\s]+)\)", line)
    if found is None:
        raise ValueError("expected `words (id)`")
    return found[2], _plain(found[1].strip())


def _parse_kaldi(line: str) -> tuple[str, str]:
    name, *text = line.split(maxsplit=1)
    return name, "".join(text)


def _parse_stm(line: str) -> Timed | None:
    words = line.split(maxsplit=5)
    if len(words) < 5 or not (_is_number(words[3]) and _is_number(words[4])):
        raise ValueError("expected `file channel speaker start end [<label>] words`, times in seconds")
    text = re.sub(r"^<[^>\s]*>\s*", "", words[5]) if len(words) == 6 else ""
    return Timed(words[0], words[1], float(words[3]), float(words[4]), _plain(text), words[2])


def _parse_ctm(line: str) -> Timed | None:
    words = line.split()
    if len(words) < 5 or not (_is_number(words[2]) and _is_number(words[3])):
        raise ValueError("expected `file channel start duration word [confidence]`, times in seconds")
    if words[4].upper().startswith("<ALT"):
        raise ValueError("alternatives (<ALT_BEGIN>) are not supported; keep one of them")
    sure = float(words[5]) if len(words) > 5 and _is_number(words[5]) and 0 <= float(words[5]) <= 1 else None
    start, end = float(words[2]), float(words[2]) + float(words[3])
    return Timed(words[0], words[1], start, end, words[4], confidence=sure)


def _plain(text: str) -> str:
    if re.search(r"\{[^{}]*/[^{}]*\}", text):
        raise ValueError("alternatives, { a / b }, are not supported; keep one of them")
    return text


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)", text) is not None


def _are_times(words: Sequence[str]) -> bool:
    """Tell seconds, one of them at least with a point, from the spoken digits of Kaldi's `u1 5 5 1 9`."""
    return all(map(_is_number, words)) and any("." in word for word in words)


def _read_json(
    path: Path, content: str, side: str
) -> tuple[dict[str, str], dict[str, dict[str, Any]], dict[str, tuple[float, ...]]]:
    """Give texts, fields and confidences by utterance."""
    try:
        whole = json.loads(content)
    except json.JSONDecodeError:
        rows = [_json_line(path, *pair) for pair in enumerate(_lines(content), 1) if pair[1].strip()]
    else:
        rows = whole if isinstance(whole, list) else [whole]
        if isinstance(whole, dict) and "hypotheses" in whole:  # a report of ours
            rows = whole["hypotheses"]
        elif isinstance(whole, dict) and not any(key in whole for key in (*ID_KEYS, *PATH_KEYS)):
            rows = [{"id": path.stem} | whole]  # one recording's transcript, as whisper writes it
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise TextError(f"{path}: expected JSON objects, one for each utterance")
    rows = list(map(_flat_cut, rows))
    text_key, id_key = (_key(path, rows, names) for names in (TEXT_KEYS[side], (*ID_KEYS, *PATH_KEYS)))
    names = [str(row[id_key]) for row in rows]
    if id_key in PATH_KEYS:
        names = _stems(names)
    texts = _by_id(path, ((name, str(row[text_key] or "")) for name, row in zip(names, rows, strict=True)))
    known = {id_key, *TEXT_KEYS["reference"], *TEXT_KEYS["hypothesis"]}
    fields = [
        {
            key: value
            for key, value in row.items()
            if key not in known and isinstance(value, str | int | float)
        }
        for row in rows
    ]
    confidences = {name: sure for name, row in zip(names, rows, strict=True) if (sure := _confidences(row))}
    return texts, dict(zip(names, fields, strict=True)), confidences


def _confidences(row: dict[str, Any]) -> tuple[float, ...]:
    """Give the words' confidences as `asr transcribe` and whisper write them; none unless every word has one."""
    segments = [part for part in row.get("segments") or () if isinstance(part, dict)]
    words = row.get("words") or [word for segment in segments for word in segment.get("words") or ()]
    if not isinstance(words, list):
        return ()
    found = [word.get("confidence", word.get("probability")) for word in words if isinstance(word, dict)]
    known = [sure for sure in found if isinstance(sure, int | float) and 0 <= sure <= 1]
    return tuple(known) if len(known) == len(words) else ()


def _json_line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise TextError(f"{path}: line {number} is not JSON: {error.msg}; found {_short(line)!r}") from error


def _flat_cut(row: dict[str, Any]) -> dict[str, Any]:
    """Lift the supervision of one of lhotse's cuts to the row; leave other rows as they are."""
    supervisions = row.get("supervisions")
    if not isinstance(supervisions, list):
        return row
    spoken: dict[str, Any] = supervisions[0] if supervisions else {"text": ""}
    return (spoken.get("custom") or {}) | spoken | {"id": row.get("id"), "duration": row.get("duration")}


def _key(path: Path, rows: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    for name in names:
        if all(name in row for row in rows):
            return name
    found = ", ".join(sorted(set.intersection(*map(set, rows)))) or "none"
    raise TextError(
        f"{path}: expected one of {', '.join(names)} in every object; in all of them are: {found}"
    )


def _read_folder(folder: Path, side: str) -> Transcripts:
    """Read a folder: .txt or .json files named after their audio, .trans.txt (LibriSpeech), or Kaldi's."""
    if (folder / "text").is_file():
        return read_transcripts(folder / "text", side, "kaldi")
    paths = sorted(path for path in folder.rglob("*.txt") if path.is_file())
    if chapters := [path for path in paths if path.name.endswith(".trans.txt")]:
        texts = _by_id(folder, _chapter_lines(chapters))
        return Transcripts(str(folder), "folder of .trans.txt", texts, _kaldi_fields(folder, texts))
    if paths:
        names = _stems([path.relative_to(folder).as_posix() for path in paths])
        pairs = zip(names, (" ".join(_read_text(path).split()) for path in paths), strict=True)
        return Transcripts(str(folder), "folder of .txt", _by_id(folder, pairs))
    paths = sorted(path for path in folder.rglob("*.json") if path.is_file())
    if not paths:
        raise TextError(f"{folder}: no .txt or .json files in this folder")
    names = _stems([path.relative_to(folder).as_posix() for path in paths])
    texts, confidences = {}, {}
    for name, path in zip(names, paths, strict=True):
        found, _, sure = _read_json(path, _read_text(path), side)
        if len(found) != 1:
            raise TextError(
                f"{path}: expected one transcript in each .json file of a folder, found {len(found)}"
            )
        texts[name] = next(iter(found.values()))
        confidences[name] = next(iter(sure.values()), ())
    return Transcripts(str(folder), "folder of .json", texts, confidences=confidences)


def _chapter_lines(paths: Iterable[Path]) -> Iterator[tuple[str, str]]:
    for path in paths:
        yield from (_parse_kaldi(line.strip()) for line in _lines(_read_text(path)) if line.strip())


def _kaldi_fields(folder: Path, texts: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Read what a Kaldi folder tells of utterances and speakers: utt2spk, utt2dur, spk2gender, spk2age, ..."""
    known = {path.name[4:]: _read_map(path) for path in sorted(folder.glob("utt2*")) if path.is_file()}
    speakers = known.pop("spk", {})
    known = {KALDI_FIELDS.get(name, name): values for name, values in known.items()}
    of_speakers = {path.name[4:]: _read_map(path) for path in sorted(folder.glob("spk2*")) if path.is_file()}
    of_speakers.pop("utt", None)
    if not (speakers or known):
        return {}
    fields = {}
    for name in texts:
        speaker = speakers.get(name)
        row = {"speaker": speaker} | {field: values.get(name) for field, values in known.items()}
        row |= {field: values.get(str(speaker)) for field, values in of_speakers.items()}
        fields[name] = {
            field: value if field == "speaker" else _value(value)
            for field, value in row.items()
            if value is not None
        }
    return fields


def _value(text: str) -> str | int | float:
    if text.isdecimal():
        return int(text)
    return float(text) if _is_number(text) else text


def _read_map(path: Path) -> dict[str, str]:
    return dict(_parse_kaldi(line.strip()) for line in _lines(_read_text(path)) if line.strip())


def _stems(names: Sequence[str]) -> list[str]:
    """Name files by their stems, or, where two share one, by their paths without the suffix."""
    stems = [Path(name).stem for name in names]
    if max(Counter(stems).values(), default=1) == 1:
        return stems
    return [Path(name).with_suffix("").as_posix() for name in names]


def _short(text: str, size: int = 60) -> str:
    return text if len(text) <= size else f"{text[: size - 1]}…"
