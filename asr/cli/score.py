"""Score any system's transcripts against references.

  asr score reference.trn hypothesis.trn
  asr score reference.stm system_a.ctm system_b.ctm --names A B --table markdown
  asr score data/test whisper_json/ --normalizer basic --by speaker --worst 10 --html report.html

Reads TRN, STM, CTM, Kaldi's text (or its data folder), JSON and JSON lines (NeMo's manifests, whisper's output,
lhotse's cuts, `--json` files of this command), tables (CSV, TSV), subtitles (SRT, VTT), folders of such files and plain
lines. A file is recognized by its name and content, and the command prints what it read each file as. If the first
word of a line could be an id or a word, --format kaldi or --format lines says which.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from asr.cli import results
from asr.cli.console import STDOUT, check_writable, note, write
from asr.errors import TextError

if TYPE_CHECKING:
    from asr.scoring.files import Scored


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    results.add_sides(parser, least=1)
    results.add_details(parser)
    parser.add_argument(
        "--audio",
        metavar="FOLDER",
        help="folder of audio files named after the utterances, to play in the page (default: the reference's folder)",
    )
    parser.add_argument(
        "--per-utt", metavar="FILE", help="file to write: every utterance aligned, in Kaldi's form of per_utt"
    )
    results.add_reading(parser)


def run(arguments: argparse.Namespace) -> int:
    """Score and print."""
    from asr.scoring.files import score_systems

    for path in (arguments.html, arguments.json, arguments.per_utt):
        check_writable(path)
    systems = results.systems(arguments)
    if arguments.per_utt and len(systems) > 1:
        raise TextError(f"--per-utt takes one system; found {len(systems)}")
    scored = score_systems(arguments.reference, systems, results.reading(arguments))
    results.print_notes(scored, arguments)
    extra = _extra(scored)
    if arguments.html:
        write(arguments.html, _page(scored, extra, arguments))
    if arguments.per_utt:
        from asr.scoring.table import per_utterance

        write(arguments.per_utt, per_utterance(next(iter(scored.values())).report) + "\n")
    if arguments.json:
        write(arguments.json, _json(scored))
    if STDOUT not in (arguments.json, arguments.html, arguments.per_utt):
        _print(scored, extra, arguments)
    return 0


def _extra(scored: "dict[str, Scored]") -> dict[str, dict[str, str]]:
    """Return the calibration error of each system's confidences, where any system has some."""
    from asr.scoring.table import percent

    if not any(system.calibration for system in scored.values()):
        return {}
    errors = {
        name: system.calibration.error if system.calibration else None for name, system in scored.items()
    }
    return {name: {"ECE %": "-" if error is None else percent(error)} for name, error in errors.items()}


def _page(
    scored: "dict[str, Scored]", extra: dict[str, dict[str, str]], arguments: argparse.Namespace
) -> str:
    from asr.scoring.html import SYSTEM, render

    first = next(iter(scored.values()))
    return render(
        {name: system.report for name, system in scored.items()},
        results.title(arguments, list(scored)),
        extra=extra,
        calibration=first.calibration if len(scored) == 1 else None,
        audio=_audio(arguments, first.report.ids),
        part=SYSTEM,
    )


def _json(scored: "dict[str, Scored]") -> str:
    values = {
        name: {"expected_calibration_error": system.calibration.error if system.calibration else None}
        | system.report.to_dict()
        for name, system in scored.items()
    }
    result = values if len(values) > 1 else next(iter(values.values()))
    return json.dumps(result, ensure_ascii=False, indent=2) + "\n"


def _print(
    scored: "dict[str, Scored]", extra: dict[str, dict[str, str]], arguments: argparse.Namespace
) -> None:
    """Print one system in detail, several as a table with the details of each; other tables stand alone."""
    from asr.scoring.files import read_as
    from asr.scoring.table import results as table_of_results
    from asr.scoring.table import summary

    if len(scored) == 1 and arguments.table == "text":
        print(summary(next(iter(scored.values())).report))
        for figures in extra.values():
            print(f"expected calibration error of the confidences {figures['ECE %']} %")
    else:
        ranked = sorted(scored, key=lambda name: scored[name].report.wer)
        reports = {name: scored[name].report for name in ranked}
        print(table_of_results(reports, arguments.table, extra, "system"))
    if arguments.table == "text":
        print(read_as(scored))
    else:
        note(read_as(scored))
    for name, system in scored.items():
        parts = results.details(system.report, arguments)
        if parts and len(scored) > 1:
            print(f"\n== {name}")
        print(*(f"\n{part}" for part in parts), sep="\n", end="\n" if parts else "")


def _audio(arguments: argparse.Namespace, ids: Sequence[str]) -> dict[str, str]:
    """Return URLs of the utterances' audio, relative to the page, which reports files that cannot be played."""
    from asr.reports.picture import PLAYED
    from asr.reports.render import address

    folder = Path(arguments.audio or arguments.reference)
    if not folder.is_dir():
        if arguments.audio:
            raise TextError(f"--audio {folder} is not a folder")
        return {}
    files = {}
    for path in folder.rglob("*"):
        if path.suffix.lower() in PLAYED:
            # An id is a stem or, where two files share one, the path to it.
            files[path.stem] = files[path.relative_to(folder).with_suffix("").as_posix()] = path
    return {name: address(files[name], arguments.html) for name in ids if name in files}
