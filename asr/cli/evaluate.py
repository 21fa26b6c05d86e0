"""Say how well a model does on manifests: WER and CER with their intervals, what the errors are, and how fast it was.

  asr evaluate --model runs/an4/bundle --manifest data/an4/cuts_dev.jsonl.gz --json result.json
  asr evaluate --model BUNDLE --manifest test-clean.jsonl.gz test-other.jsonl.gz --table markdown
  asr evaluate --model BUNDLE --manifest cuts_dev.jsonl.gz --html report.html

References and hypotheses go through the normaliser that the model was trained with.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.cli import decoding_options
from asr.cli.transcribe import load_recogniser, progress_bar, report_failures
from asr.errors import AsrError

if TYPE_CHECKING:
    from asr.scoring import ErrorReport
    from asr.transcribe import Recogniser


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
    parser.add_argument("--json", metavar="FILE", help="write the result and all hypotheses there")
    parser.add_argument("--html", metavar="FILE", help="write a report to look at in a browser")
    parser.add_argument(
        "--table",
        choices=("text", "markdown", "csv", "latex"),
        default="text",
        help="form of the table of sets (default: text)",
    )
    parser.add_argument("--worst", type=int, default=5, help="utterances to show aligned (default: 5)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU (default: torch's choice)")
    parser.add_argument(
        "--batch-seconds", type=float, default=240.0, help="seconds of audio computed together (default: 240)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    decoding_options.add_arguments(parser)


@dataclass
class Evaluation:
    """One set's result: its report, the confidence of every hypothesis's words, and how long it took."""

    report: "ErrorReport"
    confidences: list[list[float]]
    audio_seconds: float
    elapsed: float

    @property
    def rtf(self) -> float:
        """Real-time factor: seconds of work for a second of audio, reading included."""
        return self.elapsed / self.audio_seconds if self.audio_seconds else 0.0


def run(arguments: argparse.Namespace) -> int:
    """Evaluate; 1 if any utterance could not be read."""
    from asr.data import load_cuts
    from asr.transcribe import load

    recogniser = load_recogniser(load, arguments)
    sets = {name: load_cuts(path) for name, path in _names(arguments.manifest).items()}
    failures: list[str] = []
    evaluations = {name: _evaluate(recogniser, cuts, arguments, failures) for name, cuts in sets.items()}
    asked_for = sum(map(len, sets.values()))
    if not any(evaluation.report.utterances for evaluation in evaluations.values()):
        report_failures(failures, asked_for)
        raise AsrError("no utterance could be read, so there is nothing to score")
    for part in _printed(evaluations, arguments):
        print(part, end="\n\n")
    normaliser = recogniser.bundle.normaliser
    print(f"normaliser {normaliser}, computed on {recogniser.device}", flush=True)
    if arguments.html:
        from asr.scoring.html import render

        reports = {name: evaluation.report for name, evaluation in evaluations.items()}
        _write(arguments.html, render(reports, f"{arguments.model} on {', '.join(reports)}"))
    if arguments.json:
        values = {name: _values(evaluation) for name, evaluation in evaluations.items()}
        result = next(iter(values.values())) if len(values) == 1 else {"sets": values}
        _write(
            arguments.json,
            json.dumps(result | {"normaliser": normaliser}, indent=2, ensure_ascii=False) + "\n",
        )
    return report_failures(failures, asked_for)


def _names(manifests: list[str]) -> dict[str, str]:
    """Name the sets by what tells their manifests apart."""
    names = [
        Path(path).name.removesuffix(".gz").removesuffix(".jsonl").removeprefix("cuts_") for path in manifests
    ]
    return dict(zip(names if len(set(names)) == len(names) else manifests, manifests, strict=True))


def _evaluate(
    recogniser: "Recogniser", cuts: list, arguments: argparse.Namespace, failures: list[str]
) -> Evaluation:
    """Transcribe and score one set; what cannot be read goes to `failures`."""
    from asr.data.loading import read_samples
    from asr.data.manifests import speaker_of, text_of
    from asr.scoring import score
    from asr.transcribe import Source, Transcript

    sources = [
        Source(cut.id, lambda cut=cut: read_samples(cut, recogniser.sample_rate), cut.duration)
        for cut in cuts
    ]
    transcripts: dict[int, Transcript] = {}
    progress = progress_bar(sources, "evaluating", quiet=arguments.quiet)
    began = time.perf_counter()
    for index, outcome in recogniser.transcribe_sources(sources, arguments.batch_seconds):
        progress.update(1)
        if isinstance(outcome, Transcript):
            transcripts[index] = outcome
        else:
            failures.append(f"{cuts[index].id}: {outcome}")
    elapsed = time.perf_counter() - began
    progress.close()
    done = sorted(transcripts)
    speakers = [speaker_of(cuts[i]) or "" for i in done]
    report = score(
        [text_of(cuts[i]) or "" for i in done],
        [transcripts[i].text for i in done],
        ids=[cuts[i].id for i in done],
        speakers=speakers if all(speakers) else None,
        fields={"seconds": [cuts[i].duration for i in done]},
        normaliser=recogniser.bundle.normaliser,
    )
    confidences = [[word.confidence for word in transcripts[i].words] for i in done]
    return Evaluation(report, confidences, sum(cuts[i].duration for i in done), elapsed)


def _printed(evaluations: dict[str, Evaluation], arguments: argparse.Namespace) -> list[str]:
    """Give what people read: one set in detail, several as a table with the worst of each."""
    from asr.scoring.table import row, table

    parts = []
    if len(evaluations) > 1 or arguments.table != "text":
        rows = [
            row(name, e.report, {"RTF": f"{e.rtf:.4f}", "ECE %": _percent(_calibration_error(e))})
            for name, e in evaluations.items()
        ]
        parts.append(table(rows, arguments.table))
    for name, evaluation in evaluations.items():
        report = evaluation.report
        if len(evaluations) == 1 and arguments.table == "text":
            rtf = evaluation.rtf
            parts += [
                f"WER {100 * report.wer:.2f} %, CER {100 * report.cer:.2f} %",
                report.table(),
                f"real-time factor {rtf:.4f} ({1 / rtf:.0f} times real time), expected calibration error of the words' "
                f"confidences {_percent(_calibration_error(evaluation))} %",
            ]
        worst = report.worst(arguments.worst) if arguments.worst else ""
        if worst:
            parts.append(f"== worst of {name}\n\n{worst}")
    return parts


def _calibration_error(evaluation: Evaluation) -> float | None:
    """Say how far confidences are from the share of right words; None where the normaliser joined or cut words."""
    from asr.scoring.calibration import calibration

    counts = [len(text.split()) for text in evaluation.report.hypotheses]
    if counts != list(map(len, evaluation.confidences)) or not sum(counts):
        return None
    return calibration(evaluation.report, evaluation.confidences).error


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.2f}"


def _values(evaluation: Evaluation) -> dict[str, Any]:
    report = evaluation.report
    return {
        "wer": report.wer,
        "cer": report.cer,
        "wer_interval": report.wer_interval,
        "cer_interval": report.cer_interval,
        "substitutions": report.substitutions,
        "deletions": report.deletions,
        "insertions": report.insertions,
        "words": report.words,
        "utterances": report.utterances,
        "sentence_error_rate": report.sentence_error_rate,
        "expected_calibration_error": _calibration_error(evaluation),
        "rtf": evaluation.rtf,
        "hypotheses": [
            {"id": name, "reference": reference, "hypothesis": hypothesis}
            for name, reference, hypothesis in zip(
                report.ids, report.references, report.hypotheses, strict=True
            )
        ],
    }


def _write(path: str, content: str) -> None:
    try:
        Path(path).write_text(content, "utf-8")
    except OSError as error:
        raise AsrError(f"cannot write {path}: {error.strerror}") from error
    sys.stdout.flush()
