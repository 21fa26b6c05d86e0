"""Checkpoints that survive: written whole or not at all, the one before kept, a damaged one named and skipped."""

import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from asr.errors import AsrError
from asr.files import replacing
from asr.version import __version__

FORMAT = 1  # raised when a state written before could no longer be resumed
LAST = "last.ckpt"
PREVIOUS = "previous.ckpt"  # takes over when the last is damaged

log = logging.getLogger(__name__)


def write_checkpoint(folder: Path, state: dict[str, Any]) -> bool:
    """Write `last.ckpt`, and keep the one before it as `previous.ckpt`; see `write_whole`."""
    return write_whole(folder / LAST, state | {"format": FORMAT}, folder / PREVIOUS)


def write_whole(path: Path, state: Mapping[str, Any], previous: Path | None = None) -> bool:
    """Write a file of tensors; the one before gets the name `previous`, where one is given.

    A process killed here leaves the old file or the new one, never half of one: the new file is complete on the disk
    before it takes the name. When that cannot be done (a full disk), reports it, keeps what there is and returns False.
    """
    try:
        with replacing(path, durable=True) as scratch:
            with scratch.open("wb") as file:
                torch.save(state, file)
            if previous and path.exists():
                path.replace(previous)
    except (OSError, RuntimeError) as error:  # torch wraps some of the system's errors
        cause = next((e for e in (error, error.__context__) if isinstance(e, OSError)), error)
        reason = cause.strerror if isinstance(cause, OSError) else cause
        consequence = (
            "the one before is kept" if previous and path.exists() else "the run continues without it"
        )
        log.warning("cannot save %s: %s; %s", path, reason, consequence)
        return False
    return True


def has_checkpoint(folder: Path) -> bool:
    """Whether a run was begun here."""
    return any((folder / name).is_file() for name in (LAST, PREVIOUS))


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """Read the newest checkpoint that is whole, naming a damaged one on stderr.

    Raises AsrError where there is none, or one of another version of asr.
    """
    damaged = []
    for path in (folder / LAST, folder / PREVIOUS):
        if not path.is_file():
            continue
        try:
            with zipfile.ZipFile(path) as archive:  # torch's format; it does not check the sums itself
                if (entry := archive.testzip()) is not None:
                    raise zipfile.BadZipFile(f"the checksum of {entry} is wrong")
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever unpacking nonsense raises
            damaged.append(f"{path} is damaged: {' '.join(str(error).split())[:200]}")
            continue
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise AsrError(
                f"{path} is not a checkpoint that asr {__version__} can resume; resume with the version that wrote "
                "it, or start again with --overwrite"
            )
        if damaged:
            log.warning("%s; resuming from %s, written before it", damaged[0], path.name)
        return state
    if damaged:
        raise AsrError(f"nothing to resume: {'; '.join(damaged)}. Start again with --overwrite")
    raise AsrError(f"nothing to resume: there is no {folder / LAST}; run without --resume to begin")
