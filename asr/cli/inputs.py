"""Audio files that inputs of `asr transcribe` name: files, folders, globs and lists of them."""

import os
from collections.abc import Iterator, Sequence
from glob import iglob
from itertools import takewhile
from pathlib import Path

from asr.cli.console import Failure, note
from asr.outputs import FORMATS

STDIN = "-"


def find_audio(inputs: Sequence[str], recursive: bool = False) -> tuple[dict[str, Path], list[Failure]]:
    """Expand files, folders, globs and @lists into audio paths, each once.

    Returns the paths, each with its place in the tree that it was found in, and what leads nowhere. A file that is
    named itself is taken whatever its suffix.
    """
    found: dict[str, Path] = {}
    normalized = set()
    failures: list[Failure] = []
    for item, prefix in _entries(inputs, failures):
        for path, place in _matches(item, prefix, recursive, failures).items():
            if (name := os.path.normpath(path)) not in normalized:  # ./a.wav is a.wav
                normalized.add(name)
                found[path] = place
    return found, failures


def _matches(item: str, prefix: str, recursive: bool, failures: list[Failure]) -> dict[str, Path]:
    """Return the paths of one input, each with its place; `prefix` names the list that the input stands in."""

    def fail(message: str, source: str = item) -> dict[str, Path]:
        failures.append(Failure(source, message, "AudioError"))
        return {}

    def unreadable(error: OSError) -> dict[str, Path]:
        path = str(error.filename or item)
        return fail(f"{prefix}{path}: cannot be read: {error.strerror}", path)

    if item == STDIN:
        return {STDIN: Path("stdin")}
    if not item:  # as of a shell's variable that is not set; not the folder here
        return fail("an input is empty (''); expected a file, a folder or a glob")
    path = Path(item)
    try:
        if path.is_dir():
            hint = "" if recursive else " (--recursive reads its subfolders, too)"
            return _in_folder(path, recursive, unreadable) or fail(
                f"{prefix}{item}: no audio files in this folder{hint}"
            )
        if path.exists():  # pipes and devices, too
            return {item: Path(path.name)}
        return _in_glob(path, item) or fail(f"{prefix}{item}: there is no such file or folder")
    except OSError as error:
        return unreadable(error)


def _in_folder(folder: Path, recursive: bool, unreadable) -> dict[str, Path]:
    from asr.audio import AUDIO_SUFFIXES, files_in

    found = [path for path in files_in(folder, True, unreadable) if path.suffix.lower() in AUDIO_SUFFIXES]
    files = [path for path in found if recursive or path.parent == folder]
    if files and (skipped := len(found) - len(files)):
        note(f"{folder}: audio files in subfolders ({skipped}) are skipped; --recursive reads them, too")
    return {str(path): path.relative_to(folder) for path in files if _may_be_read(path)}


def _may_be_read(path: Path) -> bool:
    """Whether a path is that of a file, or a link that leads nowhere, which reading reports."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def _in_glob(path: Path, pattern: str) -> dict[str, Path]:
    fixed = list(takewhile(lambda part: not set(part) & set("*?["), path.parts[:-1]))
    files = sorted(Path(match) for match in iglob(pattern, recursive=True) if _may_be_read(Path(match)))
    outputs = {f".{form}" for form in FORMATS}  # a glob finds what was written beside the audio, too
    return {str(p): p.relative_to(Path(*fixed)) for p in files if p.suffix.lower() not in outputs}


def _entries(inputs: Sequence[str], failures: list[Failure]) -> Iterator[tuple[str, str]]:
    """Yield each input, those in @lists among them, and "LIST line N: " for these; unreadable lists are `failures`."""
    for item in inputs:
        if not item.startswith("@") or Path(item).exists():
            yield item, ""
            continue
        path = Path(item[1:])
        try:
            with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
                lines = list(file)
        except OSError as error:
            failures.append(Failure(item, f"the list {path} cannot be read: {error.strerror}"))
        else:
            yield from (
                (line.strip(), f"{path} line {i}: ") for i, line in enumerate(lines, 1) if line.strip()
            )
