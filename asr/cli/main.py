"""Parse the command's name, import its module, run it, and turn a user's errors into one clear message."""

import codecs
import errno
import io
import os
import sys
from collections.abc import Sequence

from asr.cli.console import LOG_FORMS, note, printed_log
from asr.cli.parser import COMMANDS, DESCRIPTION, EXIT_USAGE, command_parser
from asr.errors import AsrError
from asr.version import DISTRIBUTION, __version__, install_hint
from asr.wording import nearest

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130  # as a shell reports SIGINT
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `asr ARGUMENTS...` and return its exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        codecs.register_error("bytes_or_escapes", _bytes_or_escapes)
        sys.stdout.reconfigure(errors="bytes_or_escapes")
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    argv, form = _without_log([argument for argument in argv if argument != "--debug"])
    if form not in LOG_FORMS:
        print(f"asr: --log is {form!r}; expected {' or '.join(LOG_FORMS)}", file=sys.stderr)
        return EXIT_USAGE
    with printed_log(form):
        return _guarded(argv, debug)


def _without_log(argv: list[str]) -> tuple[list[str], str]:
    """Take `--log FORM` from wherever it stands, also behind a command's own command, and return it too."""
    rest, form = [], "text"
    arguments = iter(argv)
    for argument in arguments:
        if argument == "--log":
            form = next(arguments, "")
        elif argument.startswith("--log="):
            form = argument.removeprefix("--log=")
        else:
            rest.append(argument)
    return rest, form


def _guarded(argv: list[str], debug: bool) -> int:
    """Run the command; an error that is the user's to mend becomes a message and an exit status."""
    prog = f"asr {argv[0]}" if argv and argv[0] in COMMANDS else "asr"
    try:
        try:
            return _run(argv)
        finally:
            sys.stdout.flush()  # at exit, nobody would see why it fails
    except AsrError as error:
        return _report(f"{prog}: {error}", EXIT_ERROR, debug)
    except KeyboardInterrupt:
        return _report(f"{prog}: interrupted", EXIT_INTERRUPTED, debug)
    except BrokenPipeError:  # the reader of our output went away, as in `asr ... | head`
        _discard_output()
        return EXIT_ERROR
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        _discard_output()
        return _report(f"{prog}: stopped: no space is left to write to ({error.strerror})", EXIT_ERROR, debug)
    except ModuleNotFoundError as error:
        extra = _extra_of(error.name)
        if extra is None:
            raise
        return _report(
            f"{prog}: the package {error.name} is needed; {install_hint(extra)}", EXIT_ERROR, debug
        )


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(_help())
        return 0 if argv else EXIT_USAGE
    name = argv[0]
    if name == "--version":
        print(f"asr {__version__}")
        return 0
    if name not in COMMANDS:
        note(f"asr: there is no command {name!r}{nearest(name, COMMANDS)}; see `asr --help`", event="error")
        return EXIT_USAGE
    parser, command = command_parser(name)
    takes_configuration = getattr(command, "TAKES_CONFIGURATION", False)  # or the actions that do
    if takes_configuration is True or (takes_configuration and argv[1:2] and argv[1] in takes_configuration):
        arguments, arguments.configuration = parser.parse_known_args(argv[1:])
    else:
        arguments = parser.parse_args(argv[1:])
    return command.run(arguments)


def _report(message: str, status: int, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exc()
    note(message, event="error", status=status)
    return status


def _discard_output() -> None:
    """Send what is left in the buffer of standard output nowhere: it cannot be written at exit either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _bytes_or_escapes(error: UnicodeError) -> tuple[str | bytes, int]:
    """Print names that are not UTF-8 as the bytes they are, and letters that the locale lacks as escapes."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: asr COMMAND [ARGUMENTS...]",
            "",
            DESCRIPTION,
            "",
            *lines,
            "",
            "`asr COMMAND --help` explains a command; --version prints the version; --debug shows an error's",
            "traceback; --log json prints messages and progress as lines of JSON.",
        ]
    )


def _extra_of(package: str | None) -> str | None:
    """Return the extra that brings an optional package; None if the package is not one of ours."""
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
