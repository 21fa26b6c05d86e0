"""Say how well a model does on manifests: WER and CER with their intervals, what the errors are, and how fast it was.

  asr evaluate --model runs/an4/bundle --manifest data/an4/cuts_dev.jsonl.gz --json result.json
  asr evaluate --model BUNDLE --manifest test-clean.jsonl.gz test-other.jsonl.gz --table markdown
  asr evaluate --model BUNDLE --manifest cuts_dev.jsonl.gz --html report.html

References and hypotheses go through the normaliser that the model was trained with, or the one named. --nbest N adds
the error rate of the best of N hypotheses. Words never seen in training are told apart where the training manifests
are at hand.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.cli import decoding_options
from asr.cli.score import add_detail_arguments, check_writable, details, write
from asr.cli.transcribe import load_recogniser, progress_bar, report_failures
from asr.errors import AsrError

if TYPE_CHECKING:
    from asr.cli.evaluation import Evaluation
    from asr.scoring.breakdown import Group

LONG_NAMES = {"RTF": "real-time factor", "ECE %": "expected calibration error of the confidences %"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--model", required=True, metavar="BUNDLE", help="folder of a trained model")
    parser.add_argument(
        "--manifest",
        required=True,
        nargs="+",
        metavar="CUTS",
        help="cuts.jsonl.gz with references; one set each",
    )
    parser.add_argument("--normaliser", metavar="NAME", help="of both sides (default: the model's)")
    parser.add_argument(
        "--training-manifest",
        nargs="+",
        metavar="CUTS",
        help="what the model was trained on, to know the words it has never seen (default: as the model says)",
    )
    add_detail_arguments(parser, confusions=5, worst=5)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU (default: torch's choice)")
    parser.add_argument(
        "--batch-seconds", type=float, default=240.0, help="seconds of audio computed together (default: 240)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    decoding_options.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate; 1 if any utterance could not be read."""
    from asr.cli.evaluation import evaluate, familiarity, reliability, trained_on, training_words
    from asr.data import load_cuts
    from asr.scoring.report import check_normaliser
    from asr.transcribe import load

    for path in (arguments.html, arguments.json):
        check_writable(path)
    sets = {name: load_cuts(path) for name, path in _names(arguments.manifest).items()}
    recogniser = load_recogniser(load, arguments)
    normaliser = arguments.normaliser or recogniser.bundle.normaliser
    check_normaliser(normaliser)
    manifests = arguments.training_manifest or trained_on(recogniser.bundle.training)
    vocabulary = training_words(manifests, normaliser)
    failures: list[str] = []
    evaluations: dict[str, Evaluation] = {}
    for name, cuts in sets.items():
        with progress_bar(cuts, f"evaluating {name}", quiet=arguments.quiet) as bar:
            evaluation = evaluate(
                recogniser, cuts, normaliser, arguments.batch_seconds, failures, lambda bar=bar: bar.update(1)
            )
        if evaluation.report.utterances:
            evaluations[name] = evaluation
    asked_for = sum(map(len, sets.values()))
    if not evaluations:
        report_failures(failures, asked_for)
        raise AsrError("no utterance could be read, so there is nothing to score")
    reports = {name: evaluation.report for name, evaluation in evaluations.items()}
    seen = familiarity(reports, vocabulary)
    if arguments.json != "-":
        _print(evaluations, seen, str(recogniser.device), arguments)
    if arguments.html:
        from asr.cli.evaluation import sounds_and_pictures
        from asr.scoring.html import render

        audio, pictures = sounds_and_pictures(recogniser, evaluations, Path(arguments.html))
        seams = {name: parts for name, one in evaluations.items() if (parts := one.by_seam())}
        page = render(
            reports,
            f"{Path(arguments.model).resolve().name} on {', '.join(reports)}",
            extra={
                name: {LONG_NAMES.get(short, short): value for short, value in _extra(evaluation).items()}
                for name, evaluation in evaluations.items()
            },
            breakdowns=({"familiarity of the word": seen} if seen else {})
            | {f"place in long audio of {name}": parts for name, parts in seams.items()},
            calibration=reliability(evaluations),
            audio=audio,
            pictures=pictures,
        )
        write(arguments.html, page)
    if arguments.json:
        values = {name: _values(evaluation) for name, evaluation in evaluations.items()}
        result = next(iter(values.values())) if len(values) == 1 else {"sets": values}
        write(arguments.json, json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    return report_failures(failures, asked_for)


def _names(manifests: list[str]) -> dict[str, str]:
    """Name the sets by what tells their manifests apart."""
    names = [
        Path(path).name.removesuffix(".gz").removesuffix(".jsonl").removeprefix("cuts_") for path in manifests
    ]
    return dict(zip(names if len(set(names)) == len(names) else manifests, manifests, strict=True))


def _print(
    evaluations: "dict[str, Evaluation]", seen: "list[Group]", device: str, arguments: argparse.Namespace
) -> None:
    """Show one set in detail, several as a table with the details of each; a table to be read on stands alone."""
    from asr.scoring.table import footnote, row, table

    notes = [f"computed on {device}"]
    if seen:
        missed = (f"{100 * group.errors.rate:.2f} % of {group.errors.length} {group.name}" for group in seen)
        notes.append(f"words missed: {', '.join(missed)}")
    one = next(iter(evaluations.values()))
    if len(evaluations) == 1 and arguments.table == "text":
        report = one.report
        figures = ", ".join(f"{LONG_NAMES.get(name, name)} {value}" for name, value in _extra(one).items())
        print(f"WER {100 * report.wer:.2f} %, CER {100 * report.cer:.2f} %\n\n{report.table()}\n\n{figures}")
    else:
        rows = [row(name, one.report, _extra(one)) for name, one in evaluations.items()]
        print(table(rows, arguments.table))
        notes.insert(0, footnote(one.report))
    print("\n".join(notes), file=sys.stdout if arguments.table == "text" else sys.stderr)
    for name, evaluation in evaluations.items():
        for part in details(evaluation.report, arguments):
            print(f"\n== {name}\n\n{part}" if len(evaluations) > 1 else f"\n{part}")
    sys.stdout.flush()


def _extra(evaluation: "Evaluation") -> dict[str, str]:
    """Give the figures that only a model's own evaluation has."""
    from asr.cli.evaluation import reliability

    judged = reliability({"": evaluation})
    best = evaluation.best
    return {
        "RTF": f"{evaluation.rtf:.4f}",
        "ECE %": "-" if judged is None else f"{100 * judged.error:.2f}",
        **({"oracle WER %": f"{100 * best.wer:.2f}"} if best else {}),
    }


def _values(evaluation: "Evaluation") -> dict[str, Any]:
    from asr.cli.evaluation import reliability

    judged = reliability({"": evaluation})
    values = evaluation.report.to_dict()
    hypotheses = values.pop("hypotheses")
    return values | {
        "expected_calibration_error": None if judged is None else judged.error,
        "oracle_wer": evaluation.best.wer if evaluation.best else None,
        "rtf": evaluation.rtf,
        "hypotheses": hypotheses,
    }
