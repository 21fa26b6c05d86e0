"""How commands that train run: signals, and what training reports."""

import logging
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from asr.cli.console import note


def run_training(name: str, train: Callable[[], int]) -> int:
    """Call `train`, with its results on standard output; 130 after Ctrl-C and 143 after SIGTERM."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with _results_on_stdout():
            return train()
    except KeyboardInterrupt as interruption:  # not between steps, where the state is saved first
        note(f"\n{name}: interrupted; the same command with --resume continues")
        return 128 + (interruption.args[0] if interruption.args else signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(signum: int, frame: Any) -> None:
    """Treat SIGTERM as Python treats Ctrl-C."""
    raise KeyboardInterrupt(signum)


class _ResultHandler(logging.Handler):
    """Print what training reports on standard output; warnings go where all messages go."""

    def emit(self, record: logging.LogRecord) -> None:
        parent = logging.getLogger("asr")
        if record.levelno > logging.INFO or any(getattr(h, "as_json", False) for h in parent.handlers):
            parent.handle(record)
        elif "tqdm" in sys.modules:
            sys.modules["tqdm"].tqdm.write(record.getMessage())
            sys.stdout.flush()
        else:
            print(record.getMessage(), flush=True)


@contextmanager
def _results_on_stdout() -> Iterator[None]:
    logger, handler = logging.getLogger("asr.training"), _ResultHandler()
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = True
        logger.removeHandler(handler)
