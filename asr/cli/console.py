"""What commands print: messages, progress and failures on standard error; results in files or on standard output.

The library reports through `logging.getLogger("asr")`; the handler here prints it. With `--log json` all that goes to
standard error is lines of JSON, each with its `event`: message, progress, failure or error.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from asr.errors import AsrError
from asr.files import replacing

Item = TypeVar("Item")
STDOUT = "-"  # the name of standard output where a file is expected
LOG_FORMS = ("text", "json")
LONG_SECONDS = 60.0  # of a single file, from which its progress is shown
EVENT_SECONDS = 0.5  # least time between two JSON lines of one task's progress


@dataclass(frozen=True)
class Failure:
    """What could not be done.

    Attributes:
        source: the input, as it was named.
        message: the reason, which names the input too.
        kind: the error's class, such as AudioError.
    """

    source: str
    message: str
    kind: str = "AsrError"

    def __str__(self) -> str:
        return self.message


class ConsoleHandler(logging.Handler):
    """Print records of the logger `asr` on standard error, above a progress bar where one is drawn."""

    def __init__(self, as_json: bool = False):
        super().__init__()
        self.as_json = as_json

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record; those that carry an `event` in their `extra` have it as fields of the JSON line."""
        message = record.getMessage()
        if self.as_json:
            event = getattr(record, "event", {"event": "message", "level": record.levelname.lower()})
            print(json.dumps(event | {"message": message}, ensure_ascii=False), file=sys.stderr, flush=True)
        elif "tqdm" in sys.modules:
            sys.modules["tqdm"].tqdm.write(message, file=sys.stderr)
        else:
            print(message, file=sys.stderr, flush=True)


@contextmanager
def printed_log(form: str = "text") -> Iterator[None]:
    """Print what is logged under `asr`, from level INFO on, for as long as the block runs."""
    logger, handler = logging.getLogger("asr"), ConsoleHandler(as_json=form == "json")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def note(text: str, **event: Any) -> None:
    """Print a message on standard error, where it does not mix with results.

    `event` are fields of the JSON line, if `--log json` asks for one.
    """
    logging.getLogger("asr.cli").info("%s", text, extra={"event": event} if event else None)


def _prints_json() -> bool:
    return any(getattr(handler, "as_json", False) for handler in logging.getLogger("asr").handlers)


class HiddenProgress:
    """Progress that nobody sees, with as much of a tqdm bar's interface as commands use."""

    def update(self, amount: float = 1) -> None:
        """Print nothing."""

    def close(self) -> None:
        """Print nothing."""

    def __enter__(self) -> "HiddenProgress":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class EventProgress:
    """Progress as lines of JSON, with as much of a tqdm bar's interface as commands use."""

    def __init__(self, total: float | None, task: str, unit: str):
        self.total, self.task, self.unit = total, task, unit
        self.done = 0.0
        self.began = time.monotonic()
        self.printed = -EVENT_SECONDS
        self.closed = False

    def update(self, amount: float = 1) -> None:
        """Add to what is done."""
        self.done += amount
        if time.monotonic() - self.began - self.printed >= EVENT_SECONDS:
            self._print()

    def close(self) -> None:
        """Print where the task ended."""
        if not self.closed:
            self._print()
        self.closed = True

    def _print(self) -> None:
        self.printed = time.monotonic() - self.began
        event = {"event": "progress", "task": self.task, "done": round(self.done, 2), "total": self.total}
        print(
            json.dumps(event | {"unit": self.unit, "elapsed": round(self.printed, 2)}),
            file=sys.stderr,
            flush=True,
        )

    def __enter__(self) -> "EventProgress":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def progress_bar(total: float | None, task: str, unit: str = "file", *, quiet: bool = False, **options: Any):
    """Return a progress bar for a terminal, or with `--log json` what prints its events: update(amount), close().

    Arguments: total, None if not known; task, such as "evaluating dev"; unit of what is counted; quiet, to print
    nothing; options, of tqdm.
    """
    if _prints_json() and not quiet:
        return EventProgress(total, task, unit)
    if quiet or not sys.stderr.isatty():
        return HiddenProgress()
    from tqdm import tqdm

    return tqdm(total=total, desc=task, unit=f" {unit}", **options)


def speech_progress(seconds: float, files: int, task: str, *, quiet: bool = False):
    """Return a progress bar of seconds of speech, for several files or a long one; 0 seconds if not known."""
    bar = "{percentage:3.0f}% {n:.0f} of {total:.0f} s of speech, {rate_noinv_fmt}, {remaining} left"
    short = files < 2 and seconds < LONG_SECONDS and not _prints_json()
    form = {"bar_format": bar} if seconds else {}
    return progress_bar(round(seconds, 2) or None, task, "s", quiet=quiet or short, **form)


def with_progress(
    items: Iterable[Item], task: str, total: int | None = None, unit: str = "file"
) -> Iterator[Item]:
    """Yield the items, with a progress bar that disappears when they end; none for what takes under a second."""
    if total is None and isinstance(items, Sequence):
        total = len(items)
    with progress_bar(total, task, unit, delay=1, leave=False) as bar:
        for item in items:
            yield item
            bar.update(1)


def report_failures(failures: Sequence[Failure | str], total: int) -> int:
    """Print what failed, of so many, and return the exit status that follows from it."""
    for failure in failures:
        fields = {"source": failure.source, "kind": failure.kind} if isinstance(failure, Failure) else {}
        note(str(failure), event="failure", **fields)
    if failures and total > 1:
        rest = "; the others are finished" if total > len(failures) else ""
        note(f"{len(failures)} of {total} failed{rest}")
    return 1 if failures else 0


def write_failures(path: str, failures: Sequence[Failure]) -> None:
    """Write what failed as lines of JSON: source, message, kind; an empty file if nothing did. Raises AsrError."""
    write(path, "".join(json.dumps(asdict(failure), ensure_ascii=False) + "\n" for failure in failures))


def check_writable(path: str | None) -> None:
    """Refuse a file that cannot be written before hours are spent on its content. Raises AsrError."""
    if not path or path == STDOUT:
        return
    place = Path(path).resolve()
    try:
        if place.is_dir():
            raise AsrError(f"cannot write {path}: it is a folder")
        if not place.parent.is_dir():
            raise AsrError(f"cannot write {path}: there is no folder {Path(path).parent}")
        if not os.access(place if place.exists() else place.parent, os.W_OK):
            raise AsrError(f"cannot write {path}: permission denied")
    except OSError as error:
        raise AsrError(f"cannot write {path}: {error.strerror}") from error


def write(path: str, content: str) -> None:
    """Write a text file whole or not at all, or print it if `path` is -. Raises AsrError."""
    if path == STDOUT:
        print(content, end="")
        return
    try:
        check_writable(path)
        with replacing(path) as scratch:
            scratch.write_text(content, "utf-8", "surrogateescape")
    except OSError as error:
        raise AsrError(f"cannot write {path}: {error.strerror}") from error
