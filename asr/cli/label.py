"""Label untranscribed speech with a model's own transcripts, to train on where it is sure.

  asr label runs/an4/bundle recordings/ -o cuts_labeled.jsonl.gz --min-confidence 0.9
  asr label runs/an4/bundle recordings/ -o cuts_labeled.jsonl.gz --held-out cuts_dev.jsonl.gz --max-wer 5
  asr label runs/an4/bundle recordings/ -o cuts_labeled.jsonl.gz --by-hand to_transcribe.csv

Long recordings are divided at their pauses. The confidence of a label is the mean of its words'. With --held-out, a
manifest with references from the same kind of speech, a table shows what each confidence keeps of it and how many of
the words kept are wrong. --by-hand lists the stretches in which transcribing a second by hand mends the most words.
"""

import argparse
import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from asr.cli import options
from asr.cli.console import Failure, check_writable, note, report_failures, speech_progress, write
from asr.cli.inputs import find_audio
from asr.errors import AsrError

if TYPE_CHECKING:
    from asr import Recognizer
    from asr.label import Label

DEFAULT_CONFIDENCE = 0.9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help="folder of a trained model, or a name such as an4")
    parser.add_argument("audio", nargs="+", metavar="AUDIO", help="audio files, folders, globs or @lists")
    parser.add_argument(
        "-o", "--output", required=True, metavar="CUTS", help="manifest to write: .jsonl or .jsonl.gz"
    )
    parser.add_argument(
        "--min-confidence",
        type=float,
        metavar="C",
        help=f"least confidence of a label that is kept, from 0 to 1 (default: {DEFAULT_CONFIDENCE})",
    )
    parser.add_argument(
        "--held-out", metavar="CUTS", help="manifest with references that shows how wrong labels are"
    )
    parser.add_argument(
        "--max-wer",
        type=float,
        metavar="PERCENT",
        help="held-out WER that chooses --min-confidence: the least that stays at or below it",
    )
    parser.add_argument(
        "--by-hand", metavar="CSV", help="table of the stretches most worth transcribing by hand"
    )
    parser.add_argument(
        "--by-hand-count", type=options.count(1), default=100, metavar="N", help="lines of it (default: 100)"
    )
    parser.add_argument("--recursive", action="store_true", help="subfolders are read, too")
    options.add_computing(parser)
    options.add_decoding(parser)


def run(arguments: argparse.Namespace) -> int:
    """Label; 1 if any file could not be read."""
    from asr.data.corpora.utterances import build_cuts
    from asr.data.cuts import write_manifest
    from asr.label import most_worth_transcribing

    _check(arguments)
    paths, failures = find_audio(arguments.audio, arguments.recursive)
    model = options.load_recognizer(arguments)
    confidence = _min_confidence(model, arguments)
    labels = _labels(model, list(paths), arguments, failures)
    kept = [item for item in labels if item.confidence >= confidence]
    if arguments.by_hand:
        write(arguments.by_hand, _table(most_worth_transcribing(labels, arguments.by_hand_count)))
    if not kept:
        report_failures(failures, len(paths))
        raise AsrError(
            f"none of {len(labels)} labels has a confidence of at least {confidence:g}; lower --min-confidence"
        )
    cuts, problems = build_cuts([item.utterance() for item in kept])
    write_manifest(cuts, Path(arguments.output))
    hours = [sum(item.end - item.start for item in part) / 3600 for part in (kept, labels)]
    print(
        f"{len(kept)} of {len(labels)} labels have a confidence of at least {confidence:g}: {hours[0]:.2f} of "
        f"{hours[1]:.2f} h of speech; written: {arguments.output}"
    )
    return report_failures([*failures, *problems], len(paths))


def _check(arguments: argparse.Namespace) -> None:
    for path in (arguments.output, arguments.by_hand):
        check_writable(path)
    if arguments.max_wer is not None and not arguments.held_out:
        raise AsrError("--max-wer is measured on held-out speech; name its manifest with --held-out")
    if arguments.max_wer is not None and arguments.min_confidence is not None:
        raise AsrError("--max-wer chooses the confidence that --min-confidence sets; leave one of them out")
    if arguments.min_confidence is not None and not 0 <= arguments.min_confidence <= 1:
        raise AsrError(f"--min-confidence is {arguments.min_confidence}; expected a number from 0 to 1")


def _min_confidence(model: "Recognizer", arguments: argparse.Namespace) -> float:
    """Return the least confidence of what is kept; print what it keeps of the held-out set."""
    from asr.evaluation import evaluate
    from asr.label import held_out, least_confidence

    chosen = DEFAULT_CONFIDENCE if arguments.min_confidence is None else arguments.min_confidence
    if not arguments.held_out:
        return chosen
    bounds = held_out(evaluate(model, arguments.held_out, batch_seconds=arguments.batch_seconds))
    print(f"{'least confidence':>16}  {'words kept %':>12}  {'their WER %':>11}   of {arguments.held_out}")
    for bound in bounds:
        print(f"{bound.confidence:16.2f}  {100 * bound.share:12.1f}  {100 * bound.wer:11.2f}")
    return chosen if arguments.max_wer is None else least_confidence(bounds, arguments.max_wer / 100)


def _labels(
    model: "Recognizer", paths: Sequence[str], arguments: argparse.Namespace, failures: list[Failure]
) -> "list[Label]":
    from asr.label import label
    from asr.sources import header_seconds

    labels: list[Label] = []
    known: set[str] = set()
    seconds = sum(header_seconds(path) for path in paths)
    with speech_progress(seconds, len(paths), "labeling", quiet=arguments.quiet) as bar:
        for path, outcome in label(model, paths, arguments.batch_seconds, bar.update):
            if isinstance(outcome, AsrError):
                failures.append(Failure(path, str(outcome), type(outcome).__name__))
            elif clash := known & {item.id for item in outcome}:
                message = (
                    f"{path}: another file has the same name, of which {min(clash)} is labeled; rename one"
                )
                failures.append(Failure(path, message))
            else:
                known |= {item.id for item in outcome}
                labels += outcome
    if not labels:
        note("no speech was recognized in any file")
    return labels


def _table(labels: "Sequence[Label]") -> str:
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["id", "audio", "start", "end", "confidence", "doubt", "text"])
    for item in labels:
        numbers = (f"{item.confidence:.4f}", f"{item.doubt:.4f}")
        writer.writerow([item.id, item.audio, item.start, item.end, *numbers, item.text])
    return file.getvalue()
