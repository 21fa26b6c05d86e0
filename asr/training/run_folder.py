"""A run's folder: what a run writes, what may change when it is resumed, and how another run takes its place."""

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from asr.errors import AsrError, ConfigError
from asr.lm.units import Units
from asr.text import Tokenizer
from asr.training.checkpoint import has_checkpoint
from asr.training.config import CONFIG, TrainConfig
from asr.training.read_config import config_text, different_keys, flat, plain
from asr.training.step import autocast_type

CHECKPOINTS = "checkpoints"
TOKENIZER = "tokenizer"  # folder of the run's tokenizer, so that resuming cannot make another
SUMMARY = "summary.json"
RUN_FILES = (CHECKPOINTS, TOKENIZER, CONFIG, "bundle", "logs", SUMMARY, "report.html")
ASIDE = ".replaced"  # the files of an earlier run, until the new one has begun
# What the weights, the optimizer's state, the order of the data and the choice of the epoch rest on.
FIXED = (
    *("text.", "features.", "model.", "run.seed", "run.precision", "data.dev"),
    *("optimizer.weight_decay", "optimizer.betas", "optimizer.layer_decay", "optimizer.ema"),
)


def check_folder(folder: Path, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that holds a run, unless that is to be resumed or replaced. Raises AsrError."""
    _bring_back(folder)
    if has_checkpoint(folder / CHECKPOINTS) and not resume and not overwrite:
        raise AsrError(
            f"{folder} already holds a run; --resume continues it, --overwrite replaces it, --run.folder names another"
        )


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes from training in a run's folder; raise AsrError if one does.

    Two that resume the same run would write over each other's checkpoints. A process that is killed gives the folder
    free. On Windows nobody is kept out.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        opened = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise AsrError(f"cannot write to the run folder {folder}: {error.strerror or error}") from error
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AsrError(
                f"another process is training in {folder}; wait for its end, stop it, or name another folder by "
                "--run.folder"
            ) from None
        yield
    finally:
        os.close(opened)
        if new:
            with suppress(OSError):
                folder.rmdir()  # succeeds only where the run never began, and left nothing


def changed_keys(config: TrainConfig, before: dict[str, Any], path: Path) -> list[str]:
    """Return the keys that differ from those a run began with, of the file `path`.

    Raises ConfigError for one that has to stay.
    """
    now = flat(plain(config))
    changed = different_keys(before, now)
    if before and autocast_type(config.run) != autocast_type(config.run, before.get("run.precision", "auto")):
        changed.append("run.precision")  # of which "auto" was, or is, another
    refuse_fixed(changed, before, now, path, FIXED, ", from this one's weights with --run.warm_start")
    return changed


def refuse_fixed(
    changed: Sequence[str],
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    path: Path,
    fixed_keys: tuple[str, ...],
    advice: str = "",
) -> None:
    """Raise ConfigError for a changed key of a resumed run that begins with one of those that have to stay."""
    if fixed := [key for key in changed if key.startswith(fixed_keys)]:
        values = ", ".join(f"{key} {before[key]}, not {now[key]}" for key in fixed)
        raise ConfigError(
            f"a run cannot be resumed with other settings than it began with ({path}): {values}. Leave that as it was, "
            f"or begin another run in another --run.folder{advice}"
        )


@contextmanager
def new_folder(folder: Path, config: Any, tokenizer: Tokenizer | Units) -> Iterator[None]:
    """Begin a run's folder; an earlier run in it is deleted once the block has ended without an error.

    The run trains a recognizer or a language model. After an error the earlier run is there again. What else is in the
    folder stays. Raises AsrError.
    """
    try:
        try:
            _put_aside(folder)
            (folder / TOKENIZER).mkdir(parents=True)
            (folder / CONFIG).write_text(config_text(config), "utf-8")
            tokenizer.save(folder / TOKENIZER)
        except OSError as error:
            raise AsrError(f"cannot write to the run folder {folder}: {error.strerror or error}") from error
        yield
    except BaseException:
        _bring_back(folder)
        raise
    shutil.rmtree(folder / ASIDE, ignore_errors=True)


def _put_aside(folder: Path) -> None:
    aside = folder / ASIDE
    aside.mkdir(parents=True)
    for name in RUN_FILES:
        if (folder / name).exists():
            (folder / name).rename(aside / name)


def _bring_back(folder: Path) -> None:
    """Restore a run that was put aside for one that never began, also by a process that was killed."""
    aside = folder / ASIDE
    if not aside.is_dir():
        return
    if not has_checkpoint(folder / CHECKPOINTS):
        for name in RUN_FILES:
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)
            else:
                (folder / name).unlink(missing_ok=True)
            if (aside / name).exists():
                (aside / name).rename(folder / name)
    shutil.rmtree(aside, ignore_errors=True)


def write_summary(folder: Path, values: dict[str, Any]) -> None:
    """Write what came of a run for programs to read."""
    (folder / SUMMARY).write_text(json.dumps(values, indent=2) + "\n", "utf-8")
