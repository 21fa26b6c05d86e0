"""What a run leaves to look at: report.html, one file that needs nothing else, drawn from the run's folder."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from asr.data.cuts import Cut, load_cuts
from asr.data.reading import read_samples
from asr.data.shards import is_sharded
from asr.errors import AsrError
from asr.evaluation import utterance_picture
from asr.recognizer import Recognizer, load
from asr.reports.chart import chart
from asr.reports.render import render
from asr.scoring.align import align
from asr.training.averaging import rank
from asr.training.config import CONFIG
from asr.training.environment import environment
from asr.training.progress import METRICS, SAMPLES, WARNINGS, read_lines, read_metrics

RUN_FILE = "run.json"  # in the logs: where, when and how the run ran, and how it ended
EPOCHS = 6  # shown of each utterance's transcripts
LISTED = 100  # warnings and left-out utterances
LONGEST_PICTURE = 20.0  # seconds
CORPUS = "dev_wer/"  # begins the names of the corpora's WERs


def write_run_file(run: Path, ended: str, left_out: Mapping[str, str]) -> None:
    """Note where the run ran and how it ended, for its report."""
    values = {"ended": ended, "environment": environment(), "left_out": dict(left_out)}
    (run / "logs" / RUN_FILE).write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", "utf-8")


def write_report(run: Path) -> Path:
    """Draw a run's folder, at whatever point it ended, as report.html; returns its path.

    Raises AsrError where the folder holds no run that logged anything, or cannot be written.
    """
    logs = run / "logs"
    try:
        noted = json.loads((logs / RUN_FILE).read_text("utf-8"))
        config = (run / CONFIG).read_text("utf-8")
    except (OSError, ValueError) as error:
        raise AsrError(f"{run} is not the folder of a run that `asr train` made: {error}") from error
    rows = [_numbers(row) for row in read_metrics(logs / METRICS)]
    samples = read_lines(logs / SAMPLES)
    pictures, without_pictures = _pictures(run, config, samples)
    page = render(
        "training.html",
        title=f"Training of {run.resolve().name}",
        subtitle=noted["ended"],
        results=_results(rows),
        corpora=_corpora(rows),
        charts=_charts(rows),
        utterances=_utterances(samples),
        pictures=pictures,
        without_pictures=without_pictures,
        warnings=[f"step {w['step']}: {w['message']}" for w in read_lines(logs / WARNINGS)],
        left_out=[f"{name}: {reason}" for name, reason in sorted(noted["left_out"].items())],
        environment=noted["environment"],
        config=config,
        most=LISTED,
    )
    path = run / "report.html"
    try:
        path.write_text(page + "\n", "utf-8")
    except OSError as error:
        raise AsrError(f"cannot write {path}: {error.strerror}") from error
    return path


def _numbers(row: Mapping[str, str]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if value}


def _epochs(rows: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    return [row for row in rows if "dev_wer" in row]


def _results(rows: Sequence[Mapping[str, float]]) -> list[tuple[str, str, str]]:
    """Return what came of the run: (name, value, note) each."""
    epochs = _epochs(rows)
    speeds = sorted(row["speed"] for row in rows if "speed" in row)
    results = []
    if epochs:
        best, last = min(epochs, key=rank), epochs[-1]
        results = [
            ("best dev WER", f"{100 * best['dev_wer']:.2f} %", f"in epoch {best['epoch']:.0f}"),
            ("last dev WER", f"{100 * last['dev_wer']:.2f} %", f"dev loss {last['dev_loss']:.3f}"),
            ("epochs", f"{last['epoch']:.0f}", f"{last['step']:.0f} steps"),
            ("time", f"{last['minutes']:.1f} min", "dev included"),
        ]
    if speeds:
        results.append(("throughput", f"{speeds[len(speeds) // 2]:.0f} x", "seconds of speech a second"))
    return results


def _corpora(rows: Sequence[Mapping[str, float]]) -> list[tuple[str, str, str]]:
    """Return of each of several dev corpora its name and its WER in the best and in the last epoch, in percent."""
    epochs = _epochs(rows)
    if not epochs:
        return []
    best, last = min(epochs, key=rank), epochs[-1]
    names = [name for name in last if name.startswith(CORPUS)]
    return [
        (name.removeprefix(CORPUS), f"{100 * best.get(name, np.nan):.2f}", f"{100 * last[name]:.2f}")
        for name in names
    ]


def _charts(rows: Sequence[Mapping[str, float]]) -> list[str]:
    def curve(name: str, scale: float = 1.0) -> list[tuple[float, float]]:
        return [(row["step"], scale * row[name]) for row in rows if name in row]

    # From the input to the output.
    layers = dict.fromkeys(name for row in rows for name in row if name.startswith("gradient/"))
    corpora = dict.fromkeys(name for row in rows for name in row if name.startswith(CORPUS))
    charts = [
        chart("Loss", {"training": curve("loss"), "dev": curve("dev_loss")}, "nat a token"),
        chart("Errors on dev", {"words": curve("dev_wer", 100), "characters": curve("dev_cer", 100)}, "%"),
        chart("Learning rate", {"learning rate": curve("learning_rate")}, ""),
        chart("Gradient norm", {"all parameters": curve("gradient_norm")}, "before clipping", log=True),
        chart(
            "Gradient norm of each layer",
            {name.removeprefix("gradient/"): curve(name) for name in layers},
            "before clipping; a line that falls by powers of ten: vanishing, that rises so: exploding",
            log=True,
        ),
        chart("Throughput", {"speech": curve("speed")}, "seconds of speech a second"),
        chart(
            "Blanks on dev",
            {"blank frames": curve("blank_share", 100)},
            "% of the frames; a model near 100 outputs only blanks",
        ),
        chart("Entropy of a frame on dev", {"entropy": curve("entropy")}, "nat; near 0 the model is sure"),
    ]
    if corpora:
        series = {name.removeprefix(CORPUS): curve(name, 100) for name in corpora}
        charts.insert(2, chart("Word errors of each corpus on dev", series, "%"))
    return charts


def _utterances(samples: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, list]]:
    """Return what was recognized of some dev utterances after several epochs, aligned with the reference.

    Each is its id, its reference, and (epoch, columns of the alignment) for each of the epochs.
    """
    by_id: dict[str, list[Mapping[str, Any]]] = {}
    for sample in samples:
        by_id.setdefault(sample["id"], []).append(sample)
    utterances = []
    for name, of_epochs in by_id.items():
        places = np.linspace(0, len(of_epochs) - 1, min(EPOCHS, len(of_epochs)))
        shown = [of_epochs[i] for i in sorted({round(place) for place in places})]
        epochs = [
            (sample["epoch"], align(sample["reference"].split(), sample["hypothesis"].split()))
            for sample in shown
        ]
        utterances.append((name, of_epochs[0]["reference"], epochs))
    return utterances


def _pictures(
    run: Path, config: str, samples: Sequence[Mapping[str, Any]]
) -> tuple[list[tuple[str, str]], str]:
    """Draw the spectrogram and the best model's posteriors of the dev utterances whose transcripts are shown.

    Returns (id, drawing) of each, and why there is none.
    """
    import yaml

    names = dict.fromkeys(sample["id"] for sample in samples)
    dev = yaml.safe_load(config)["data"]["dev"]
    manifests = [dev] if isinstance(dev, str) else dev
    if not names or not (run / "bundle").is_dir():
        return [], "There is no model yet."
    if any(map(is_sharded, manifests)):
        return [], "Dev utterances in shards are not drawn."
    try:
        model = load(run / "bundle", "cpu", lm="none")
        cuts = {cut.id: cut for path in manifests for cut in load_cuts(path) if cut.id in names}
        drawn = [
            (name, _picture(model, cuts[name]))
            for name in names
            if name in cuts and cuts[name].duration <= LONGEST_PICTURE
        ]
    except AsrError as error:  # a report without pictures is better than none
        return [], f"They cannot be drawn: {error}"
    return drawn, "The utterances are too long to be drawn."


def _picture(model: Recognizer, cut: Cut) -> str:
    samples = read_samples(cut, model.sample_rate)
    return utterance_picture(model, samples, model.transcribe(samples))
