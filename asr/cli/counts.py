"""Numbers on the command line."""

import argparse
from collections.abc import Callable


def count(least: int = 0) -> Callable[[str], int]:
    """Give what reads a whole number of at least this much for an option.

    >>> count()("3")
    3
    """

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} was given; expected a whole number, {least} or more")
        return int(text)

    return read
