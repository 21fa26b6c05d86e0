"""What a language model's training reports: lines for people, curves, and report.html."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from asr.errors import AsrError
from asr.reports.chart import chart
from asr.reports.render import render
from asr.training.config import CONFIG
from asr.training.progress import METRICS, WARNINGS, Progress, read_lines, read_metrics
from asr.training.report import RUN_FILE


class LmProgress(Progress):
    """As `Progress`, of a run that counts tokens and measures perplexities."""

    amount = "tokens"

    def _line(self, numbers: Mapping[str, float]) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self.began), 60)
        return (
            f"epoch {numbers['epoch']:.2f}/{self.epochs:g}  loss {numbers['loss']:.3f}  "
            f"dev loss {numbers['dev_loss']:.3f}  dev perplexity {numbers['dev_perplexity']:.2f} a word  "
            f"{self.speed:.0f} tokens/s  {minutes}:{seconds:02}"
        )


def write_lm_report(run: Path) -> Path:
    """Draw a run's folder as report.html; return its path. Raises AsrError where it cannot be written."""
    logs = run / "logs"
    noted = json.loads((logs / RUN_FILE).read_text("utf-8"))
    rows = [
        {name: float(value) for name, value in row.items() if value} for row in read_metrics(logs / METRICS)
    ]
    page = render(
        "language.html",
        title=f"Training of {run.resolve().name}",
        subtitle=noted["ended"],
        results=_results(rows),
        charts=_charts(rows),
        warnings=[f"step {w['step']}: {w['message']}" for w in read_lines(logs / WARNINGS)],
        environment=noted["environment"],
        config=(run / CONFIG).read_text("utf-8"),
    )
    path = run / "report.html"
    try:
        path.write_text(page + "\n", "utf-8")
    except OSError as error:
        raise AsrError(f"cannot write {path}: {error.strerror}") from error
    return path


def _results(rows: Sequence[Mapping[str, float]]) -> list[tuple[str, str, str]]:
    """Return what came of the run: (name, value, note) each."""
    looks = [row for row in rows if "dev_perplexity" in row]
    if not looks:
        return []
    best, last = min(looks, key=lambda row: row["dev_perplexity"]), looks[-1]
    speeds = sorted(row["speed"] for row in rows if "speed" in row)
    results = [
        ("best dev perplexity", f"{best['dev_perplexity']:.2f}", f"a word, after {best['epoch']:.2f} epochs"),
        ("last dev perplexity", f"{last['dev_perplexity']:.2f}", f"dev loss {last['dev_loss']:.3f} a token"),
        ("epochs", f"{last['epoch']:.2f}", f"{last['step']:.0f} steps"),
        ("time", f"{last['minutes']:.1f} min", "dev included"),
    ]
    if speeds:
        results.append(("throughput", f"{speeds[len(speeds) // 2]:.0f}", "tokens a second"))
    return results


def _charts(rows: Sequence[Mapping[str, float]]) -> list[str]:
    def curve(name: str) -> list[tuple[float, float]]:
        return [(row["step"], row[name]) for row in rows if name in row]

    return [
        chart("Loss", {"training": curve("loss"), "dev": curve("dev_loss")}, "nat a token"),
        chart("Perplexity on dev", {"dev": curve("dev_perplexity")}, "a word", log=True),
        chart("Learning rate", {"learning rate": curve("learning_rate")}, ""),
        chart("Gradient norm", {"all parameters": curve("gradient_norm")}, "before clipping", log=True),
        chart("Throughput", {"training": curve("speed")}, "tokens a second"),
    ]
