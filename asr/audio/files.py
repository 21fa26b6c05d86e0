"""Audio files in folders, and under names that are spelled in another way."""

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

# fmt: off
AUDIO_SUFFIXES = frozenset({
    # what libsndfile reads
    ".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".rf64", ".snd",
    ".sph", ".w64", ".wav",
    # what takes ffmpeg
    ".3gp", ".aac", ".ac3", ".amr", ".m4a", ".m4b", ".m4v", ".mka", ".mkv", ".mov", ".mp4", ".webm", ".wma",
})
# fmt: on


def files_in(
    folder: str | Path, recursive: bool = True, unread: Callable[[OSError], object] | None = None
) -> list[Path]:
    """List a folder's files, at any depth where `recursive`, in order; links that lead nowhere, too.

    Links to folders are followed, each folder once, so that one that leads back up ends. `unread` is told of folders
    that cannot be read.
    """
    found: list[Path] = []
    seen = set()
    for inside, folders, names in os.walk(folder, onerror=unread, followlinks=True):
        if (real := os.path.realpath(inside)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(folders) if recursive else []
        found += [Path(inside, name) for name in names]
    return sorted(found)


def audio_files(folder: str | Path, unread: Callable[[OSError], object] | None = None) -> list[Path]:
    """List the files at any depth of a folder that are named as audio is, as `files_in` lists them."""
    return [path for path in files_in(folder, unread=unread) if path.suffix.lower() in AUDIO_SUFFIXES]


def existing(path: str | Path) -> Path:
    """Return the path, or, where there is no such file, one of the same name in Unicode's other normal form.

    macOS and archives made on it spell "é" as two characters (NFD), most texts as one (NFC); file systems tell them
    apart. Where neither exists, the path is returned as it is.
    """
    path = Path(path)
    forms = (unicodedata.normalize(form, str(path)) for form in ("NFC", "NFD"))
    # os.path.isfile raises nothing, whatever the name.
    return next((Path(name) for name in (str(path), *forms) if os.path.isfile(name)), path)  # noqa: PTH113
