"""What the commands that score share: options of reading and of what is printed, and the printing itself."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from asr.cli.console import STDOUT, note
from asr.cli.options import count
from asr.errors import TextError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asr.scoring import ErrorReport
    from asr.scoring.files import Options, Scored

# The forms of asr.scoring.sniff.FORMATS, here for a parser that imports nothing heavy.
FORMATS = ("auto", "trn", "stm", "ctm", "kaldi", "json", "table", "srt", "vtt", "lines", "folder")
TABLES = ("text", "markdown", "csv", "latex")


def add_sides(parser: argparse.ArgumentParser, least: int) -> None:
    """Declare the reference and the hypotheses, at least so many, and their names."""
    parser.add_argument("reference", metavar="REFERENCE", help="reference transcripts")
    several = "several are ranked" if least == 1 else "two or more"
    parser.add_argument(
        "hypotheses", nargs="+", metavar="HYPOTHESIS", help=f"transcripts of a system; {several}"
    )
    parser.add_argument(
        "--names", nargs="+", metavar="NAME", help="names of the systems (default: their files)"
    )


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Declare how transcripts are read, matched and counted; `reading` reads it."""
    group = parser.add_argument_group("reading and counting")
    group.add_argument(
        "--format", choices=FORMATS, default="auto", help="format of both sides (default: auto, recognized)"
    )
    group.add_argument(
        "--reference-format", choices=FORMATS, metavar="FORMAT", help="format of the reference, if different"
    )
    group.add_argument(
        "--normalizer",
        metavar="NAME",
        help="normalizer of both sides: none, basic, english (default: the one that reports of `asr` name, else none)",
    )
    group.add_argument(
        "--rules",
        metavar="FILE",
        help="replacements in both sides, after the normalizer: lines of `colour => color`, or a GLM file",
    )
    group.add_argument("--show-normalized", action="store_true", help="print what the normalizer changes")
    group.add_argument(
        "--speakers",
        metavar="FILE",
        help="utt2spk file, or `id`: an utterance's id up to its first - or _ (default: as the reference tells)",
    )
    group.add_argument(
        "--mismatched",
        choices=("error", "empty", "skip"),
        default="error",
        help="ids on one side only: refuse them, take missing hypotheses as empty, or skip them (default: error)",
    )
    group.add_argument(
        "--aligner",
        choices=("jiwer", "sclite", "sclite-s"),
        default="jiwer",
        help="tool whose alignment counts; sclite ignores case and takes @ for no word, sclite-s (its option -s) lets "
        "case count (default: jiwer)",
    )
    group.add_argument(
        "--bootstrap",
        type=count(),
        default=2000,
        metavar="DRAWS",
        help="draws for the intervals; 0: no interval (default: 2000)",
    )


def add_table(parser: argparse.ArgumentParser) -> None:
    """Declare the form of tables."""
    parser.add_argument("--table", choices=TABLES, default="text", help="form of the tables (default: text)")


def add_details(parser: argparse.ArgumentParser, confusions: int = 0, worst: int = 0) -> None:
    """Declare what is printed and written of a result, and how much by default; `details` reads it."""
    add_table(parser)
    parser.add_argument(
        "--by",
        nargs="+",
        default=[],
        type=_field,
        metavar="FIELD",
        help="fields to break errors down by: speaker, words, ...; age:16 or duration:2,10 part numbers there",
    )
    shown = (
        ("confusions", confusions, "number of the most frequent errors to list"),
        ("worst", worst, "number of the worst utterances to show"),
    )
    for name, usual, text in shown:
        parser.add_argument(
            f"--{name}",
            type=count(),
            metavar="N",
            help=f"{text} (default: {usual}{', none with another table' if usual else ''})",
        )
    parser.set_defaults(details={"confusions": confusions, "worst": worst})
    add_json(parser, "result and transcripts")
    parser.add_argument("--html", metavar="FILE", help="page of the result, to open in a browser")


def add_json(parser: argparse.ArgumentParser, content: str) -> None:
    """Declare the output as JSON."""
    parser.add_argument(
        "-o", "--json", metavar="FILE", help=f"JSON file to write: {content} (- prints it instead)"
    )


def _field(text: str) -> tuple[str, list[float]]:
    """Part a field's name from the numbers at which it is cut into ranges."""
    name, _, edges = text.partition(":")
    try:
        return name, [float(edge) for edge in edges.split(",")] if edges else []
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text}: {edges!r} are no numbers; expected such as age:16"
        ) from None


def reading(arguments: argparse.Namespace) -> "Options":
    """Return the options of `add_reading`."""
    from asr.scoring.files import Options

    names = (
        "format",
        "reference_format",
        "normalizer",
        "rules",
        "speakers",
        "mismatched",
        "aligner",
        "bootstrap",
    )
    return Options(**{name: getattr(arguments, name) for name in names})


def systems(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the hypotheses by their names. Raises TextError for names that do not fit."""
    names = arguments.names or arguments.hypotheses
    if len(names) != len(arguments.hypotheses):
        raise TextError(
            f"--names has {len(names)} names for {len(arguments.hypotheses)} systems; expected one for each"
        )
    if len(set(names)) < len(names):
        raise TextError("two systems have the same name; tell them apart with --names")
    return dict(zip(names, arguments.hypotheses, strict=True))


def print_notes(scored: "Mapping[str, Scored]", arguments: argparse.Namespace) -> None:
    """Print what the normalizer changed, if asked for, and on standard error what a reader should know."""
    from asr.scoring.files import changes

    prints_data = arguments.json == STDOUT or arguments.table != "text"
    for name, system in scored.items():
        if arguments.show_normalized:
            for change in changes(system):
                note(change) if prints_data else print(change)
        for notice in system.notices:
            note(f"{name}: {notice}")


def details(report: "ErrorReport", arguments: argparse.Namespace) -> list[str]:
    """Return the parts of a result that were asked for."""
    from asr.scoring.breakdown import by_field, word_confusions
    from asr.scoring.table import confusions, groups, worst

    usual = arguments.details if arguments.table == "text" else {}
    frequent, wrong = (
        usual.get(name, 0) if getattr(arguments, name) is None else getattr(arguments, name)
        for name in ("confusions", "worst")
    )
    parts = [groups(field, by_field(report, field, edges), arguments.table) for field, edges in arguments.by]
    if frequent:
        parts.append(confusions(word_confusions(report), frequent))
    if wrong:
        parts.append(worst(report, wrong))
    return [part for part in parts if part]


def title(arguments: argparse.Namespace, names: "list[str]") -> str:
    """Return the title of a page."""
    return f"{' and '.join(Path(name).name for name in names)} against {Path(arguments.reference).name}"
