"""Say how well a model does on a manifest: WER and CER, what the errors are, and how fast it was.

  asr evaluate --model runs/an4/bundle --manifest data/an4/cuts_dev.jsonl.gz --json result.json

References and hypotheses go through the normaliser that the model was trained with.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from asr.cli.transcribe import load_recogniser, progress_bar, report_failures
from asr.errors import AsrError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--model", required=True, metavar="BUNDLE", help="folder of a trained model")
    parser.add_argument(
        "--manifest", required=True, nargs="+", metavar="CUTS", help="cuts.jsonl.gz with references"
    )
    parser.add_argument("--json", metavar="FILE", help="write the result and all hypotheses there")
    parser.add_argument("--worst", type=int, default=5, help="utterances to show aligned (default: 5)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU (default: torch's choice)")
    parser.add_argument(
        "--batch-seconds", type=float, default=240.0, help="seconds of audio computed together (default: 240)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(arguments: argparse.Namespace) -> int:
    """Evaluate; 1 if any utterance could not be read."""
    from asr.data import load_cuts
    from asr.data.loading import read_samples
    from asr.data.manifests import speaker_of, text_of
    from asr.scoring import score
    from asr.text import normalise
    from asr.transcribe import Source, Transcript, load

    recogniser = load_recogniser(load, arguments)
    cuts = [cut for manifest in arguments.manifest for cut in load_cuts(manifest)]
    sources = [
        Source(cut.id, lambda cut=cut: read_samples(cut, recogniser.sample_rate), cut.duration)
        for cut in cuts
    ]
    hypotheses: dict[int, str] = {}
    failures = []
    progress = progress_bar(sources, "evaluating", quiet=arguments.quiet)
    began = time.perf_counter()
    for index, outcome in recogniser.transcribe_sources(sources, arguments.batch_seconds):
        progress.update(1)
        if isinstance(outcome, Transcript):
            hypotheses[index] = outcome.text
        else:
            failures.append(f"{cuts[index].id}: {outcome}")
    elapsed = time.perf_counter() - began
    progress.close()
    if not hypotheses:
        report_failures(failures, len(cuts))
        raise AsrError("no utterance could be read, so there is nothing to score")

    done = sorted(hypotheses)
    normaliser = recogniser.bundle.normaliser
    references = [normalise(text_of(cuts[i]) or "", normaliser) for i in done]
    heard = [normalise(hypotheses[i], normaliser) for i in done]
    ids = [cuts[i].id for i in done]
    speakers = [speaker_of(cuts[i]) or "" for i in done]
    report = score(references, heard, ids=ids, speakers=speakers if all(speakers) else None)
    rtf = elapsed / sum(cuts[i].duration for i in done)
    print(f"WER {100 * report.wer:.2f} %, CER {100 * report.cer:.2f} %\n\n{report.table()}")
    if arguments.worst:
        print(f"\n{report.worst(arguments.worst)}")
    print(
        f"\nnormaliser {normaliser}, real-time factor {rtf:.4f} ({1 / rtf:.0f} times real time) on {recogniser.device}"
    )
    if arguments.json:
        result = {
            "wer": report.wer,
            "cer": report.cer,
            "substitutions": report.substitutions,
            "deletions": report.deletions,
            "insertions": report.insertions,
            "words": report.words,
            "utterances": report.utterances,
            "rtf": rtf,
            "normaliser": normaliser,
            "hypotheses": [
                {"id": name, "reference": reference, "hypothesis": hypothesis}
                for name, reference, hypothesis in zip(ids, references, heard, strict=True)
            ],
        }
        try:
            Path(arguments.json).write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", "utf-8")
        except OSError as error:
            raise AsrError(f"cannot write {arguments.json}: {error.strerror}") from error
    sys.stdout.flush()
    return report_failures(failures, len(cuts))
