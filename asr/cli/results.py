"""How `asr score`, `asr compare` and `asr evaluate` read transcripts, and what they show of a result."""

import argparse
import sys
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from asr.cli.options import count
from asr.errors import TextError

if TYPE_CHECKING:
    from asr.scoring import ErrorReport
    from asr.scoring.calibration import Calibration

FORMATS = ("auto", "trn", "stm", "ctm", "kaldi", "json", "lines", "folder")
SPEAKER_IN_ID = "id"


def add_reading_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how transcripts are read, matched and counted."""
    parser.add_argument(
        "--format", choices=FORMATS, default="auto", help="of both sides (default: recognized)"
    )
    parser.add_argument("--reference-format", choices=FORMATS, metavar="FORMAT", help="where it differs")
    parser.add_argument(
        "--normalizer",
        default="none",
        metavar="NAME",
        help="of both sides before they are compared: none, basic, english (default: none)",
    )
    parser.add_argument("--show-normalized", action="store_true", help="show what the normalizer changes")
    parser.add_argument(
        "--speakers",
        metavar="FILE",
        help="utt2spk file, or `id`: an utterance's id up to its first - or _ (default: what the reference says)",
    )
    parser.add_argument(
        "--mismatched",
        choices=("error", "empty", "skip"),
        default="error",
        help="ids on one side only: refuse, take missing hypotheses as empty, or leave out (default: error)",
    )
    parser.add_argument(
        "--aligner",
        choices=("jiwer", "sclite"),
        default="jiwer",
        help="whose alignment counts (default: jiwer)",
    )
    parser.add_argument(
        "--bootstrap",
        type=count(),
        default=2000,
        metavar="DRAWS",
        help="for the intervals; 0: none (default: 2000)",
    )


def add_detail_arguments(parser: argparse.ArgumentParser, confusions: int = 0, worst: int = 0) -> None:
    """Declare what is shown and written of a result, and how much by default."""
    parser.add_argument(
        "--table",
        choices=("text", "markdown", "csv", "latex"),
        default="text",
        help="of the result (default: text)",
    )
    parser.add_argument(
        "--by",
        nargs="+",
        default=[],
        type=_field,
        metavar="FIELD",
        help="break errors down: speaker, words, ...; age:16 or duration:2,10 part numbers there",
    )
    shown = (
        ("confusions", confusions, "list the N most frequent errors"),
        ("worst", worst, "show the N worst utterances"),
    )
    for name, usual, text in shown:
        parser.add_argument(
            f"--{name}",
            type=count(),
            metavar="N",
            help=f"{text} (default: {usual}{', none with another table' if usual else ''})",
        )
    parser.set_defaults(details={"confusions": confusions, "worst": worst})
    parser.add_argument(
        "--json", metavar="FILE", help="write result and transcripts there (- prints them instead)"
    )
    parser.add_argument("--html", metavar="FILE", help="write a report to look at in a browser")


def _field(text: str) -> tuple[str, list[float]]:
    """Part a field's name from the numbers at which it is cut into ranges."""
    name, _, edges = text.partition(":")
    try:
        return name, [float(edge) for edge in edges.split(",")] if edges else []
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text}: {edges!r} are no numbers; expected such as age:16"
        ) from None


def load_report(
    arguments: argparse.Namespace, hypothesis: str, only: Collection[str] | None = None
) -> "tuple[ErrorReport, Calibration | None]":
    """Read, match and score one system's transcripts, and its confidences where its file holds them.

    `only` are ids of utterances, where others are to be left out.
    Warns where references and hypotheses differ mostly by how they are written.
    """
    from asr.scoring import score
    from asr.scoring.calibration import calibration_if_known
    from asr.scoring.formats import read_transcripts
    from asr.scoring.notices import writing_notice
    from asr.scoring.pairing import pair

    reference_format = arguments.reference_format or arguments.format
    pairs = pair(
        read_transcripts(arguments.reference, "reference", reference_format),
        read_transcripts(hypothesis, "hypothesis", arguments.format),
        arguments.mismatched,
    )
    if only is not None:
        pairs = pairs.only(only)
    fields: dict[str, Sequence] = dict(pairs.fields)
    if arguments.speakers:
        fields["speaker"] = _speakers(arguments.speakers, pairs.ids)
    report = score(
        pairs.references,
        pairs.hypotheses,
        ids=pairs.ids,
        fields=fields,
        normalizer=arguments.normalizer,
        aligner=arguments.aligner,
        bootstrap=arguments.bootstrap,
    )
    if arguments.show_normalized:
        data_on_stdout = arguments.json == "-" or getattr(arguments, "table", "text") != "text"
        for side, before, after in (
            ("reference", pairs.references, report.references),
            ("hypothesis", pairs.hypotheses, report.hypotheses),
        ):
            for name, raw, clean in zip(pairs.ids, before, after, strict=True):
                if raw != clean:
                    print(
                        f"{name} {side}\n  before  {raw}\n  after   {clean}",
                        file=sys.stderr if data_on_stdout else sys.stdout,
                    )
    if notice := writing_notice(report):
        print(f"asr: {hypothesis}: {notice}", file=sys.stderr)
    return report, calibration_if_known(report, pairs.confidences)


def _speakers(source: str, ids: Sequence[str]) -> list[str]:
    """Give each utterance's speaker from an utt2spk file, or from its id."""
    import re

    if source == SPEAKER_IN_ID:
        return [re.split("[-_]", name)[0] for name in ids]
    from asr.scoring.formats import read_transcripts

    speakers = read_transcripts(source, form="kaldi").texts
    missing = [name for name in ids if name not in speakers]
    if missing:
        raise TextError(
            f"{source}: no speaker for {missing[0]!r} and {len(missing) - 1} others of {len(ids)} utterances"
        )
    return [speakers[name] for name in ids]


def details(report: "ErrorReport", arguments: argparse.Namespace) -> list[str]:
    """Give the parts that were asked for."""
    from asr.scoring.breakdown import by_field, word_confusions
    from asr.scoring.table import confusions, groups, worst

    usual = arguments.details if arguments.table == "text" else {}
    most, most_wrong = (
        usual.get(name, 0) if getattr(arguments, name) is None else getattr(arguments, name)
        for name in ("confusions", "worst")
    )
    parts = [groups(field, by_field(report, field, edges), arguments.table) for field, edges in arguments.by]
    if most:
        parts.append(confusions(word_confusions(report), most))
    if most_wrong:
        parts.append(worst(report, most_wrong))
    return [part for part in parts if part]
