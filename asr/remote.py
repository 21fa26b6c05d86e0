"""Files that are elsewhere: s3://, gs://, https:// and whatever else fsspec reads and writes."""

import re
from pathlib import Path
from typing import Any

from asr.audio import AUDIO_SUFFIXES
from asr.errors import AsrError, AudioError
from asr.files import replacing
from asr.version import install_hint

# What of an address names its package, where fsspec's own message would not.
PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
# Where a file appears when it is whole, and not before.
WHOLE_AT_ONCE = ("s3", "s3a", "gs", "gcs", "az", "abfs", "memory", "http", "https")


def is_remote(place: str) -> bool:
    """Return whether a place is an address, and no path.

    >>> is_remote("s3://bucket/audio/"), is_remote("recordings/a.wav")
    (True, False)
    """
    return re.match(r"[a-z][a-z0-9+.-]+://", place) is not None


def filesystem(address: str) -> tuple[Any, str]:
    """Return what reads and writes there, and the path in it. Raises AsrError where a package is missing."""
    try:
        import fsspec
    except ModuleNotFoundError as error:
        raise AsrError(f"{address} is elsewhere, which needs fsspec; {install_hint('remote')}") from error
    try:
        return fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        scheme = address.partition("://")[0]
        package = f"; pip install {PACKAGES[scheme]}" if scheme in PACKAGES else ""
        raise AsrError(f"{address} cannot be reached: {error}{package}") from error


def find_audio_at(address: str, recursive: bool = False) -> dict[str, Path]:
    """Return the audio files at an address, a file or a folder, each with its place in the folder.

    Raises AudioError where there is none, or it cannot be reached.
    """
    fs, path = filesystem(address)
    scheme = address.partition("://")[0]
    if scheme in ("http", "https"):
        return {address: Path(Path(path.partition("?")[0]).name)}
    try:
        if not address.endswith("/") and fs.isfile(path):
            return {address: Path(Path(path).name)}
        found = fs.find(path, maxdepth=None if recursive else 1)
    except Exception as error:  # every store has errors of its own
        raise AudioError(f"{address} cannot be read: {_reason(error)}") from error
    root = path.rstrip("/") + "/"
    audio = sorted(name for name in found if Path(name).suffix.lower() in AUDIO_SUFFIXES)
    if not audio:
        hint = "" if recursive else " (--recursive reads folders in it, too)"
        raise AudioError(f"{address}: no audio files are there{hint}")
    return {fs.unstrip_protocol(name): Path(name.removeprefix(root)) for name in audio}


def names_at(address: str) -> set[str]:
    """Return the paths of all files below an address, relative to it; none where it does not exist yet."""
    fs, path = filesystem(address)
    root = path.rstrip("/") + "/"
    try:
        return {name.removeprefix(root) for name in fs.find(path)}
    except FileNotFoundError:
        return set()
    except Exception as error:
        raise AsrError(f"{address} cannot be read: {_reason(error)}") from error


def read(place: str) -> bytes:
    """Return the content of a file, here or elsewhere. Raises AudioError."""
    try:
        if not is_remote(place):
            return Path(place).read_bytes()
        fs, path = filesystem(place)
        return fs.cat_file(path)
    except AsrError:
        raise
    except FileNotFoundError:
        raise AudioError(f"there is no file {place}") from None
    except Exception as error:
        raise AudioError(f"{place} cannot be read: {_reason(error)}") from error


def write(place: str, content: bytes) -> None:
    """Write a file, here or elsewhere, whole or not at all. Raises AsrError."""
    try:
        if not is_remote(place):
            with replacing(place) as scratch:
                scratch.write_bytes(content)
            return
        fs, path = filesystem(place)
        if place.partition("://")[0] in WHOLE_AT_ONCE:
            fs.pipe_file(path, content)
            return
        fs.makedirs(fs._parent(path), exist_ok=True)
        fs.pipe_file(f"{path}.part", content)
        fs.mv(f"{path}.part", path)
    except AsrError:
        raise
    except Exception as error:
        raise AsrError(f"cannot write {place}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Return the first line of what a store reports."""
    reason = str(getattr(error, "strerror", None) or error).strip().partition("\n")[0]
    return reason or type(error).__name__
