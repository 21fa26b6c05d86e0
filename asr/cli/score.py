"""Score any system's transcripts against references.

  asr score reference.trn hypothesis.trn
  asr score reference.stm system_a.ctm system_b.ctm --table markdown
  asr score data/test whisper_json/ --normalizer basic --by speaker --worst 10 --html report.html

Reads TRN, STM, CTM, Kaldi's text (or its data folder), JSON and JSON lines (NeMo's manifests, whisper's output,
lhotse's cuts, `--json` files of this command), folders of .txt or .json, and, with --format lines, plain lines.
"""

import argparse
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from asr.cli.console import check_writable, write
from asr.cli.options import count
from asr.errors import TextError

if TYPE_CHECKING:
    from asr.scoring import ErrorReport
    from asr.scoring.calibration import Calibration

FORMATS = ("auto", "trn", "stm", "ctm", "kaldi", "json", "lines", "folder")
SPEAKER_IN_ID = "id"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("reference", metavar="REFERENCE", help="what was said")
    parser.add_argument(
        "hypotheses", nargs="+", metavar="HYPOTHESIS", help="what a system heard; several are ranked"
    )
    add_reading_arguments(parser)
    parser.add_argument(
        "--audio",
        metavar="FOLDER",
        help="with files named after the utterances, to play in the page (default: the reference's, if it is a folder)",
    )
    add_detail_arguments(parser)


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


def run(arguments: argparse.Namespace) -> int:
    """Score and print."""
    from asr.scoring.table import percent, row, summary, table

    for path in (arguments.html, arguments.json):
        check_writable(path)
    reports: dict[str, ErrorReport] = {}
    judged: dict[str, Calibration] = {}
    for name in arguments.hypotheses:
        reports[name], calibration = load_report(arguments, name)
        if calibration:
            judged[name] = calibration
    extra = {
        name: {"ECE %": percent(judged[name].error) if name in judged else "-"} for name in reports if judged
    }
    if arguments.html:
        from asr.scoring.html import render

        title = (
            f"{' and '.join(Path(name).name for name in reports)} against {Path(arguments.reference).name}"
        )
        audio = _sounds(arguments, next(iter(reports.values())).ids)
        one = judged.get(arguments.hypotheses[0]) if len(reports) == 1 else None
        write(
            arguments.html, render(reports, title, extra=extra, calibration=one, audio=audio, part="system")
        )
    if arguments.json:
        import json

        values = {
            name: {"expected_calibration_error": judged[name].error if name in judged else None}
            | report.to_dict()
            for name, report in reports.items()
        }
        one = next(iter(values.values()))
        write(
            arguments.json,
            json.dumps(values if len(values) > 1 else one, ensure_ascii=False, indent=2) + "\n",
        )
        if arguments.json == "-":
            return 0
    if len(reports) == 1 and arguments.table == "text":
        print(summary(next(iter(reports.values()))))
        for calibration in judged.values():
            print(f"expected calibration error of the confidences {percent(calibration.error)} %")
    else:
        ranked = sorted(reports.items(), key=lambda item: item[1].wer)
        print(
            table([row(name, report, extra.get(name), "system") for name, report in ranked], arguments.table)
        )
    for name, report in reports.items():
        parts = details(report, arguments)
        if parts and len(reports) > 1:
            print(f"\n== {name}")
        print(*(f"\n{part}" for part in parts), sep="\n", end="\n" if parts else "")
    return 0


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


def _sounds(arguments: argparse.Namespace, ids: Sequence[str]) -> dict[str, str]:
    """Address the utterances' audio, relative to the page; browsers say so where they cannot play a file."""
    from asr.reports.picture import PLAYED
    from asr.reports.render import address

    folder = Path(arguments.audio or arguments.reference)
    if not folder.is_dir():
        if arguments.audio:
            raise TextError(f"--audio {folder} is not a folder")
        return {}
    files = {}
    for path in folder.rglob("*"):
        if path.suffix.lower() in PLAYED:  # an id is a stem, or, where two files share one, the path to it
            files[path.stem] = files[path.relative_to(folder).with_suffix("").as_posix()] = path
    return {name: address(files[name], arguments.html) for name in ids if name in files}


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
