"""The command `asr`: one module a command, imported only when that command runs."""

from asr.cli.main import main

__all__ = ["main"]
