"""Parse the command's name, import its module, run it, and turn a user's errors into one clear message."""

import argparse
import codecs
import errno
import importlib
import io
import os
import sys
from collections.abc import Sequence

from asr.errors import AsrError
from asr.version import DISTRIBUTION, __version__, install_hint

# name: (module with add_arguments(parser) and run(arguments) -> exit status, one line of help)
COMMANDS = {
    "prepare": ("asr.cli.prepare", "turn a corpus, or any folder of audio, into manifests to train on"),
    "check": ("asr.cli.check", "look for what is wrong with a corpus before training on it"),
    "train": ("asr.cli.train", "train a recognizer from a configuration"),
    "transcribe": ("asr.cli.transcribe", "turn audio files into text"),
    "align": ("asr.cli.align", "say when each word of a known text was said"),
    "evaluate": ("asr.cli.evaluate", "say the word error rate of a model on a manifest"),
    "lm": ("asr.cli.lm", "build, judge and tune n-gram language models"),
    "score": ("asr.cli.score", "score any system's transcripts against references"),
    "compare": (
        "asr.cli.compare",
        "say which of two systems is better, and whether the difference is significant",
    ),
}

EXIT_ERROR = 1
EXIT_USAGE = 2  # as argparse
EXIT_INTERRUPTED = 130  # as a shell reports SIGINT


def main(argv: Sequence[str] | None = None) -> int:
    """Run `asr ARGUMENTS...` and return its exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        codecs.register_error("bytes_or_escapes", _bytes_or_escapes)
        sys.stdout.reconfigure(errors="bytes_or_escapes")
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    argv = [argument for argument in argv if argument != "--debug"]
    if not argv or argv[0] in ("-h", "--help"):
        print(_help())
        return 0 if argv else EXIT_USAGE
    if argv[0] == "--version":
        print(f"asr {__version__}")
        return 0
    if argv[0] not in COMMANDS:
        print(f"asr: there is no command {argv[0]!r}{_nearest(argv[0])}; see `asr --help`", file=sys.stderr)
        return EXIT_USAGE
    try:
        return _run(argv[0], argv[1:])
    except AsrError as error:
        return _report(f"asr {argv[0]}: {error}", EXIT_ERROR, debug)
    except KeyboardInterrupt:
        return _report(f"asr {argv[0]}: interrupted", EXIT_INTERRUPTED, debug)
    except BrokenPipeError:  # the reader of our output went away, as in `asr ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # what it holds cannot be written at exit
        return _report(
            f"asr {argv[0]}: stopped, for there is no space to write to: {error.strerror}", EXIT_ERROR, debug
        )
    except ModuleNotFoundError as error:
        extra = _extra_of(error.name)
        if extra is None:
            raise
        return _report(
            f"asr {argv[0]}: needs the package {error.name}; {install_hint(extra)}", EXIT_ERROR, debug
        )


def _bytes_or_escapes(error: UnicodeError) -> tuple[str | bytes, int]:
    """Print names that are not UTF-8 as the bytes they are, and letters that the locale lacks as escapes."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


def _run(name: str, argv: Sequence[str]) -> int:
    module_name, summary = COMMANDS[name]
    command = importlib.import_module(module_name)
    parser = argparse.ArgumentParser(
        f"asr {name}",
        description=command.__doc__ or summary,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="--debug shows the traceback of an error.",
        allow_abbrev=False,  # --seed would be --seeds
    )
    command.add_arguments(parser)
    if getattr(command, "TAKES_CONFIGURATION", False):
        arguments, arguments.configuration = parser.parse_known_args(argv)
    else:
        arguments = parser.parse_args(argv)
    return command.run(arguments)


def _report(message: str, status: int, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exc()
    print(message, file=sys.stderr)
    return status


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: asr COMMAND [ARGUMENTS...]",
            "",
            "Train, understand and ship CNN + LSTM + CTC speech recognizers.",
            "",
            *lines,
            "",
            "`asr COMMAND --help` explains a command; --version says this one; --debug shows an error's traceback.",
        ]
    )


def _nearest(name: str) -> str:
    import difflib

    nearest = difflib.get_close_matches(name, COMMANDS, 1)
    return f" (did you mean {nearest[0]!r}?)" if nearest else ""


def _extra_of(package: str | None) -> str | None:
    """Name the extra that brings an optional package; None where the package is none of ours."""
    import re
    from importlib.metadata import PackageNotFoundError, requires

    try:
        requirements = requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        return None
    for requirement in requirements:
        found = re.match(r"([\w-]+).*extra == ['\"]([\w-]+)['\"]", requirement)
        if found and package and found[1].replace("-", "_").lower() == package.split(".")[0].lower():
            return found[2]
    return None


if __name__ == "__main__":
    sys.exit(main())
