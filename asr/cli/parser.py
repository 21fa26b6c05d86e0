"""The commands' names, and how their arguments are parsed: what is misspelled is answered with the nearest."""

import argparse
import importlib
import re
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NoReturn

from asr.cli.console import note
from asr.wording import nearest

EXIT_USAGE = 2  # as argparse
DESCRIPTION = "Train, understand and ship CNN + LSTM + CTC speech recognizers."
# name: (module with add_arguments(parser) and run(arguments) -> exit status, one line of help)
COMMANDS = {
    "prepare": ("asr.cli.prepare", "turn a corpus, or any folder of audio, into manifests to train on"),
    "check": ("asr.cli.check", "find what is wrong with a corpus before training on it"),
    "train": ("asr.cli.train", "train a recognizer from a configuration"),
    "report": ("asr.cli.report", "draw a training run's report again"),
    "transcribe": ("asr.cli.transcribe", "turn audio files into text"),
    "listen": ("asr.cli.listen", "print words while they are spoken, from a microphone or a pipe"),
    "serve": ("asr.cli.serve", "serve models to many callers: OpenAI's API, streams, a page"),
    "label": ("asr.cli.label", "label untranscribed speech to train on"),
    "align": ("asr.cli.align", "find when each word of a known text is spoken"),
    "evaluate": ("asr.cli.evaluate", "measure a model's word error rate on a test set"),
    "export": ("asr.cli.export", "write a model for sherpa-onnx, onnx-asr or any ONNX runtime"),
    "push": ("asr.cli.push", "upload a model to the Hugging Face hub, with a model card"),
    "lm": ("asr.cli.lm", "build, train, evaluate and tune language models"),
    "score": ("asr.cli.score", "score any system's transcripts against references"),
    "compare": ("asr.cli.compare", "test whether one of two systems is better than the other"),
    "models": ("asr.cli.models", "list the models that come with asr, were downloaded, or are on the hub"),
    "info": ("asr.cli.info", "show versions, what computes here, and what a saved model holds"),
    "completion": ("asr.cli.completion", "print a script that completes commands in a shell"),
}


class Parser(argparse.ArgumentParser):
    """An argument parser that suggests the nearest option or choice."""

    def __init__(self, *arguments: Any, **options: Any):
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*arguments, **options, allow_abbrev=False)  # --seed would be --seeds

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        """Parse arguments; unknown options end the program as argparse's errors do.

        Inputs and options may stand in any order, which argparse does not allow of commands with commands of their own.
        """
        parse = self.parse_known_args if self._subparsers else self.parse_known_intermixed_args
        arguments, unknown = parse(args, namespace)
        if unknown:
            name = unknown[0].split("=")[0]
            known = nearest(name, self._option_string_actions) if name.startswith("-") else ""
            self.error(f"{unknown[0]!r} is not an argument of {self.prog}{known}; see `{self.prog} --help`")
        return arguments

    def error(self, message: str) -> NoReturn:
        """Report what is wrong on the command line and end the program."""
        message = re.sub(
            r"^argument (\S+?)(/\S+)?: expected one argument$", r"\1 has no value behind it", message
        )
        message = message.replace("the following arguments are required:", "missing:")
        hint = "" if "--help`" in message else f"; see `{self.prog} --help`"
        note(f"{self.prog}: {message}{hint}", event="error", status=EXIT_USAGE)
        self.exit(EXIT_USAGE)

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print help and errors; argparse would hide that they cannot be written."""
        (file or sys.stderr).write(message)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            choices = list(map(str, action.choices or ()))
            raise argparse.ArgumentError(
                action, f"there is no {value!r}{nearest(str(value), choices)}; expected {', '.join(choices)}"
            ) from error


def command_parser(name: str) -> tuple[Parser, ModuleType]:
    """Return a command's parser and its module."""
    module_name, summary = COMMANDS[name]
    command = importlib.import_module(module_name)
    parser = Parser(
        f"asr {name}",
        description=command.__doc__ or summary,
        epilog="--debug shows the traceback of an error; --log json prints messages and progress as lines of JSON.",
    )
    command.add_arguments(parser)
    return parser, command


def whole_parser() -> Parser:
    """Return one parser of all commands, as tools that read a parser need it."""
    whole = Parser("asr", description=DESCRIPTION)
    whole.add_argument("--version", action="store_true", help="print the version")
    commands = whole.add_subparsers(metavar="COMMAND")
    for name, (module_name, summary) in COMMANDS.items():
        importlib.import_module(module_name).add_arguments(commands.add_parser(name, help=summary))
    return whole
