"""Score any system's transcripts against references.

  asr score reference.trn hypothesis.trn
  asr score reference.stm system_a.ctm system_b.ctm --table markdown
  asr score data/test whisper_json/ --normalizer basic --by speaker --worst 10 --html report.html

Reads TRN, STM, CTM, Kaldi's text (or its data folder), JSON and JSON lines (NeMo's manifests, whisper's output,
lhotse's cuts, `--json` files of this command), folders of .txt or .json, and, with --format lines, plain lines.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from asr.cli.console import check_writable, write
from asr.cli.results import add_detail_arguments, add_reading_arguments, details, load_report
from asr.errors import TextError

if TYPE_CHECKING:
    from asr.scoring import ErrorReport
    from asr.scoring.calibration import Calibration


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
