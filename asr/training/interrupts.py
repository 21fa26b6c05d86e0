"""Ctrl-C and SIGTERM while something is done that has to end well."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):  # noqa: N818
    """Ctrl-C or SIGTERM, after the state was saved; has the signal's number, and whether saving succeeded."""

    def __init__(self, signum: int, saved: bool = True):
        super().__init__(signum)
        self.signum, self.saved = signum, saved


@contextmanager
def on_signal(action: Callable[[int], None], once: bool = False) -> Iterator[None]:
    """Call `action(number)` for Ctrl-C and SIGTERM while the block runs, in place of the handlers before.

    With `once` the second signal acts as it would without this block.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(number: int, frame: Any) -> None:
        if once:
            restore()
        action(number)

    for number in SIGNALS:
        signal.signal(number, handle)
    try:
        yield
    finally:
        restore()
