"""The fields of tables and manifests: paths, times, channels, names."""

import gzip
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from asr.audio import existing
from asr.errors import ManifestError

# Endings that a table may leave out, as LJSpeech's does.
OMITTED_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus")


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


def located(name: str, folders: Iterable[Path]) -> Path:
    """Return the first of folder/name that exists, perhaps with one of OMITTED_SUFFIXES; if none does, the first, so
    that the report names it.
    """
    candidates = [folder / name for folder in folders]
    for suffix in ("", *OMITTED_SUFFIXES):
        for path in candidates:
            found = existing(f"{path}{suffix}")
            if os.path.isfile(found):  # noqa: PTH113 - Path's raises for long names
                return found
    return candidates[0]


def seconds_of(value: Any) -> float | None:
    """Read a time, 0 or more; raises TypeError or ValueError for anything else but None."""
    if value is None:
        return None
    seconds = float(value)
    if not 0 <= seconds < float("inf"):
        raise ValueError("not a time")
    return seconds


def suffix_of_start(start: float | None) -> str:
    """Distinguish an utterance's id from those of the other parts of its file."""
    return f"-{round(1000 * start):08d}" if start is not None else ""


def channel_of(value: Any) -> int | None:
    """Read a channel: counted from 0, or A, B, ...; raises ValueError for anything else."""
    text = str(value).strip() if value is not None else ""
    if not text or text.lower() in ("average", "mix"):
        return None
    if text.isdecimal():
        return int(text)
    if len(text) == 1 and text.isascii() and text.isalpha():
        return ord(text.upper()) - ord("A")
    raise ValueError(f"the channel is {text!r}; expected a number from 0, or A, B, ...")


def suffix_of_channel(channel: int | None) -> str:
    """Distinguish an utterance's id from those of the file's other channels."""
    return f"-c{channel}" if channel is not None else ""


def name_of(value: Any) -> str | None:
    """Return a name without spaces around it; None for an empty one."""
    return str(value).strip() or None if value is not None else None


def traits_of(known: Mapping[str, Any]) -> dict[str, str | int]:
    """Keep what is known; digits become numbers, so that an age can be put into ranges."""
    named = {name: text for name, value in known.items() if (text := name_of(value))}
    return {name: int(text) if text.isdecimal() else text for name, text in named.items()}


def id_of(name: str) -> str:
    """Return an utterance's id: its file's path without the ending."""
    path = Path(name)
    return str(path.parent / path.stem).lstrip("./")
