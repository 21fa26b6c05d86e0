"""Read transcripts as systems write them: TRN, STM, CTM, Kaldi's text, JSON, tables, subtitles, folders, lines."""

import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from asr.errors import TextError
from asr.scoring.alternatives import parse
from asr.scoring.rows import Rows, by_id, read_json, read_table, stems, value
from asr.scoring.sniff import FORMATS, FORMS, UNDECIDED, recognize
from asr.scoring.timed import Timed, parse_ctm, parse_stm, parse_subtitles
from asr.wording import short

NIST = ("trn", "stm", "ctm")  # forms with alternatives
KALDI_FIELDS = {"dur": "duration"}  # what Kaldi abbreviates
Parsed = TypeVar("Parsed")


@dataclass(frozen=True)
class Transcripts:
    """What a file holds: `texts` by utterance, and by utterance what else it tells (`fields`: speaker, ...).

    `form` is one of `asr.scoring.sniff.FORMS`. `confidences` are those of an utterance's words, in [0, 1], where the
    file gives each of them one. STM, CTM and subtitles hold `timed` stretches of recordings instead, in the order of
    time. Where first words may be ids or words, `texts` takes them for ids and `lines` for words; `pair` decides by
    the other side. `normalizer` is named by reports, whose texts have passed it.
    """

    source: str
    form: str
    texts: dict[str, str] = field(default_factory=dict)
    fields: dict[str, dict[str, Any]] = field(default_factory=dict)
    timed: tuple[Timed, ...] = ()
    confidences: dict[str, tuple[float, ...]] = field(default_factory=dict)
    lines: dict[str, str] | None = None
    normalizer: str | None = None

    @property
    def described(self) -> str:
        """Return the source and what it was read as."""
        return f"{self.source} as {FORMS.get(self.form, self.form)}"


def read_transcripts(path: str | Path, side: str = "hypothesis", form: str = "auto") -> Transcripts:
    """Read a file or folder of transcripts, recognized by its name and content or as `form` says.

    `side` ("reference" or "hypothesis") chooses the column where rows hold several texts. Raises TextError for
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
    # The hypotheses of silence are empty.
    if not content.strip() and (side == "reference" or form not in ("ctm", "lines", "srt", "vtt")):
        raise TextError(f"{path}: is empty; expected transcripts")
    if form in ("json", "table"):
        rows = (read_json if form == "json" else read_table)(path, content, side)
        return _of_rows(str(path), form, rows)
    if form in ("srt", "vtt"):
        return Transcripts(str(path), form, timed=_in_time(parse_subtitles(content, path.stem)))
    lines = [(number, line.strip()) for number, line in enumerate(_lines(content), 1)]
    if form == "lines":
        return Transcripts(str(path), form, _numbered(lines))
    kept = [(number, line) for number, line in lines if line and not line.startswith(";;")]
    if form == "stm":
        return Transcripts(str(path), form, timed=_in_time(_at_line(path, *pair, parse_stm) for pair in kept))
    if form == "ctm":
        return Transcripts(str(path), form, timed=_in_time(_ctm_words(path, kept)))
    if form == UNDECIDED:
        texts = dict(_parse_kaldi(line) for _, line in kept)
        fields = _kaldi_fields(path.parent, texts)
        if fields and all("speaker" in row for row in fields.values()):
            return Transcripts(str(path), "kaldi", texts, fields)
        return Transcripts(str(path), form, texts, lines=_numbered(lines))
    texts = by_id(
        path, [_at_line(path, *pair, _parse_trn if form == "trn" else _parse_kaldi) for pair in kept]
    )
    return Transcripts(str(path), form, texts, _kaldi_fields(path.parent, texts) if form == "kaldi" else {})


def _of_rows(source: str, form: str, rows: Rows) -> Transcripts:
    return Transcripts(
        source, form, rows.texts, rows.fields, confidences=rows.confidences, normalizer=rows.normalizer
    )


def _numbered(lines: Iterable[tuple[int, str]]) -> dict[str, str]:
    return {str(number): line for number, line in lines}


def _in_time(timed: Iterable[Timed]) -> tuple[Timed, ...]:
    return tuple(sorted(timed, key=lambda item: item[:4]))


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return content.decode("utf-16")
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise TextError(f"{path}: there is no such file or folder") from None
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise TextError(
            f"{path}: line {line} is not UTF-8 text; convert it, for example with iconv"
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise TextError(f"{path}: cannot be read: {error}") from error


def _lines(content: str) -> list[str]:
    """Part a text at its line ends as files do; str.splitlines would part transcripts at U+2028 and its like."""
    return list(io.StringIO(content, newline=None))


def _at_line(path: Path, number: int, line: str, parse_line: Callable[[str], Parsed]) -> Parsed:
    try:
        return parse_line(line)
    except ValueError as error:
        raise _malformed(path, number, line, str(error)) from error


def _malformed(path: Path, number: int, line: str, reason: str) -> TextError:
    return TextError(f"{path}: line {number}: {reason}; found {short(line)!r}")


def _parse_trn(line: str) -> tuple[str, str]:
    found = re.fullmatch(r"(.*)\(([^()\s]+)\)", line)
    if found is None:
        raise ValueError("expected `words (id)`")
    parse(found[1])  # refuses alternatives that are not closed
    return found[2], found[1].strip()


def _parse_kaldi(line: str) -> tuple[str, str]:
    name, *text = line.split(maxsplit=1)
    return name, "".join(text)


def _ctm_words(path: Path, lines: Sequence[tuple[int, str]]) -> Iterator[Timed]:
    for number, line, found in parse_ctm(lines):
        if isinstance(found, str):
            raise _malformed(path, number, line, found)
        yield found


def _read_folder(folder: Path, side: str) -> Transcripts:
    """Read a folder: Kaldi's, LibriSpeech's .trans.txt, or one file for each recording, named after its audio."""
    if (folder / "text").is_file():
        return read_transcripts(folder / "text", side, "kaldi")
    if chapters := sorted(folder.rglob("*.trans.txt")):
        texts = by_id(folder, _chapter_lines(chapters))
        return Transcripts(str(folder), "folder of .trans.txt", texts, _kaldi_fields(folder, texts))
    for suffix in ("txt", "json", "trn", "ctm", "stm", "srt", "vtt", "tsv"):
        if paths := sorted(path for path in folder.rglob(f"*.{suffix}") if path.is_file()):
            return _read_files(folder, paths, side, f"folder of .{suffix}")
    raise TextError(
        f"{folder}: no .txt or .json files in this folder, nor files of another form; expected one for each recording"
    )


def _read_files(folder: Path, paths: Sequence[Path], side: str, form: str) -> Transcripts:
    names = stems([path.relative_to(folder).as_posix() for path in paths])
    if form == "folder of .txt":
        pairs = zip(names, (" ".join(_read_text(path).split()) for path in paths), strict=True)
        return Transcripts(str(folder), form, by_id(folder, pairs))
    files = [read_transcripts(path, side) for path in paths]
    if form in ("folder of .ctm", "folder of .stm"):
        timed = _in_time(item for file in files for item in file.timed)
        return Transcripts(str(folder), form.removeprefix("folder of ."), timed=timed)
    if form == "folder of .trn":
        return Transcripts(
            str(folder), "trn", by_id(folder, (pair for file in files for pair in file.texts.items()))
        )
    texts, confidences = {}, {}
    for name, path, file in zip(names, paths, files, strict=True):
        if file.timed or not file.texts:
            file = replace(file, texts={name: " ".join(item.text for item in file.timed)})
        if len(file.texts) != 1:
            raise TextError(
                f"{path}: expected one transcript in each {path.suffix} file of a folder, found {len(file.texts)}"
            )
        texts[name] = next(iter(file.texts.values()))
        confidences[name] = next(iter(file.confidences.values()), ())
    return Transcripts(str(folder), form, by_id(folder, texts.items()), confidences=confidences)


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
            field: cell if field == "speaker" else value(cell)
            for field, cell in row.items()
            if cell is not None
        }
    return fields


def _read_map(path: Path) -> dict[str, str]:
    return dict(_parse_kaldi(line.strip()) for line in _lines(_read_text(path)) if line.strip())
