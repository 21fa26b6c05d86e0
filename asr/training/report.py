"""What a run leaves to look at: report.html, one file that needs nothing else, drawn from the run's folder."""

import json
import math
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asr.data.cuts import Cut, load_cuts
from asr.data.reading import read_samples
from asr.data.shards import is_sharded
from asr.errors import AsrError
from asr.evaluation import utterance_picture
from asr.recognizer import Recognizer, load
from asr.scoring.align import align
from asr.scoring.html import fill_in as fill
from asr.scoring.html import head
from asr.training.averaging import rank
from asr.training.progress import METRICS, SAMPLES, WARNINGS, read_lines, read_metrics
from asr.version import __version__

RUN_FILE = "run.json"  # in the logs: where, when and how the run ran, and how it ended
POINTS = 300  # of a curve; more are averaged
EPOCHS = 6  # shown of each utterance's transcripts
LISTED = 100  # warnings and left-out utterances
LONGEST_PICTURE = 20.0  # seconds
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = (
    420,
    200,
    46,
    8,
    10,
    22,
)  # of a chart and its margins, in its own pixels

PAGE = """<!doctype html>
<html lang="en">
<head>
{{head}}
<style>
:root { --curve: 45%; } [data-theme=dark] { --curve: 70%; }
@media print { :root { --curve: 45% !important; } }
figure { margin: 0; break-inside: avoid; } figcaption { font-weight: 600; font-size: .95rem; }
.chart { width: 100%; height: auto; display: block; }
.chart text { font: 11px system-ui, sans-serif; fill: var(--quiet); }
.chart .grid { stroke: var(--line); fill: none; }
.chart .curve { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.curve, .dot { stroke: oklch(var(--curve) .14 var(--hue)); } .dot { fill: oklch(var(--curve) .14 var(--hue)); }
.legend { display: flex; flex-wrap: wrap; gap: .1rem .9rem; margin: 0; padding: 0; list-style: none; }
.legend li, pre { font-size: .85rem; }
.legend svg { display: inline-block; width: 1.6rem; height: .6rem; margin-right: .3rem; }
figcaption .quiet { font-weight: normal; } caption { padding-top: .8rem; }
tbody > tr > :first-child { white-space: nowrap; }
td.words { text-align: left; font-size: 1rem; width: 99%; } td.words > * { margin-right: .3rem; }
tr.truth td { color: var(--quiet); }
pre { background: var(--box); border: 1px solid var(--line); border-radius: 6px; padding: .6rem; }
pre { white-space: pre-wrap; } pre, li, td.words { overflow-wrap: anywhere; }
@media print {
  .wide { overflow: visible; } .picture { max-width: 100%; height: auto; break-inside: avoid; }
  .picture image { filter: none !important; }
  h2, h3, .key { break-after: avoid; } table, pre, .key { break-inside: avoid; }
  pre { columns: 3; font-size: .7rem; }
}
</style>
</head>
<body>
<header>
<div><h1>{{title}}</h1><p class="quiet">{{ended}}</p></div><button id="theme" type="button">Dark</button>
</header>
<main>
{{body}}
</main>
<script>
"use strict";
const button = document.getElementById("theme");
const shown = document.documentElement.dataset;
const theme = (name) => { shown.theme = name; button.textContent = name === "dark" ? "Light" : "Dark"; };
theme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
button.addEventListener("click", () => theme(shown.theme === "dark" ? "light" : "dark"));
</script>
</body>
</html>
"""


def environment() -> dict[str, str]:
    """Say what this process runs on: versions, machine, and the revision of the code."""
    found = {
        "command": " ".join(["asr", *sys.argv[1:]]),
        "asr": __version__,
        "git revision": git_revision(),
        "Python": platform.python_version(),
        "PyTorch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
    }
    if torch.cuda.is_available():
        found["GPU"] = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return found


def git_revision() -> str:
    """Give the commit of the code that runs, and whether files differ from it; what is installed has none."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    revision = git("rev-parse", "HEAD") if git("ls-files", Path(__file__).name) else ""
    if not revision:
        return "none: asr is not run from a checkout"
    changed = len(git("status", "--porcelain", "--untracked-files=no").splitlines())
    return revision + (f", {changed} files changed since" if changed else "")


def write_run_file(run: Path, ended: str, left_out: Mapping[str, str]) -> None:
    """Note where the run ran and how it ended, for its report."""
    values = {"ended": ended, "environment": environment(), "left_out": dict(left_out)}
    (run / "logs" / RUN_FILE).write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", "utf-8")


def write_report(run: Path) -> Path:
    """Draw a run's folder, at whatever point it ended, as report.html; gives its path.

    Raises AsrError where the folder holds no run that logged anything, or cannot be written.
    """
    logs = run / "logs"
    try:
        noted = json.loads((logs / RUN_FILE).read_text("utf-8"))
        config = (run / "config.yaml").read_text("utf-8")
    except (OSError, ValueError) as error:
        raise AsrError(f"{run} is not the folder of a run that `asr train` made: {error}") from error
    rows = [_numbers(row) for row in read_metrics(logs / METRICS)]
    samples = read_lines(logs / SAMPLES)
    sections = [
        _figures(rows),
        _section("Curves", f'<div class="columns">{"".join(_charts(rows))}</div>'),
        _section("Transcripts through time", _transcripts(samples)),
        _section("What the model sees", _pictures(run, config, samples)),
        _section(
            "Warnings", _list([f"step {w['step']}: {w['message']}" for w in read_lines(logs / WARNINGS)])
        ),
        _section("Utterances left out", _list([f"{n}: {r}" for n, r in sorted(noted["left_out"].items())])),
        _section("Environment", _table(noted["environment"])),
        _section("Configuration", f"<pre>{escape(config)}</pre>"),
    ]
    title = f"Training of {run.resolve().name}"
    page = fill(
        PAGE,
        {
            "head": head(title),
            "title": escape(title),
            "ended": escape(noted["ended"]),
            "body": "\n".join(sections),
        },
    )
    path = run / "report.html"
    try:
        path.write_text(page, "utf-8")
    except OSError as error:
        raise AsrError(f"cannot write {path}: {error.strerror}") from error
    return path


def _numbers(row: Mapping[str, str]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if value}


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>"


def _figures(rows: Sequence[Mapping[str, float]]) -> str:
    """Show in large figures what came of the run."""
    epochs = [row for row in rows if "dev_wer" in row]
    speeds = sorted(row["speed"] for row in rows if "speed" in row)
    figures = []
    if epochs:
        best, last = min(epochs, key=rank), epochs[-1]
        figures = [
            ("best dev WER", f"{100 * best['dev_wer']:.2f} %", f"in epoch {best['epoch']:.0f}"),
            ("last dev WER", f"{100 * last['dev_wer']:.2f} %", f"dev loss {last['dev_loss']:.3f}"),
            ("epochs", f"{last['epoch']:.0f}", f"{last['step']:.0f} steps"),
            ("time", f"{last['minutes']:.1f} min", "dev included"),
        ]
    if speeds:
        figures.append(("throughput", f"{speeds[len(speeds) // 2]:.0f} x", "seconds of speech a second"))
    items = "".join(
        f'<li>{name}<b>{value}</b><span class="quiet">{note}</span></li>' for name, value, note in figures
    )
    return f'<ul class="figures">{items}</ul>' if items else "<p>No step was logged.</p>"


def _charts(rows: Sequence[Mapping[str, float]]) -> list[str]:
    def curve(name: str, scale: float = 1.0) -> list[tuple[float, float]]:
        return [(row["step"], scale * row[name]) for row in rows if name in row]

    layers = list(
        dict.fromkeys(name for row in rows for name in row if name.startswith("gradient/"))
    )  # from the input to the output
    return [
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
            "% of the frames; a model near 100 says nothing",
        ),
        chart("Entropy of a frame on dev", {"entropy": curve("entropy")}, "nat; near 0 the model is sure"),
    ]


def chart(
    title: str, series: Mapping[str, Sequence[tuple[float, float]]], unit: str, log: bool = False
) -> str:
    """Draw curves of (step, value) as SVG, in colors from blue for the first to red for the last.

    Values that are not finite, and on a logarithmic axis those not above 0, leave gaps and are counted.
    """
    series = {name: points for name, points in series.items() if points}
    good = [
        (x, y) for points in series.values() for x, y in points if math.isfinite(y) and (y > 0 or not log)
    ]
    total = sum(map(len, series.values()))
    note = f"{total - len(good)} of {total} values are not finite" if len(good) < total else ""
    caption = f'<figcaption>{escape(title)} <span class="quiet">{escape(unit)}</span></figcaption>'
    if not good:
        return f'<figure>{caption}<p class="quiet">{note or "nothing was logged"}</p></figure>'
    left, right = min(x for x, _ in good), max(x for x, _ in good)
    ticks = _log_ticks([y for _, y in good]) if log else _ticks([0.0, *(y for _, y in good)])
    place = math.log10 if log else float
    low, high = place(ticks[0]), place(ticks[-1])

    def across(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * ((x - left) / (right - left) if right > left else 0.5)

    def down(y: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (place(y) - low) / (high - low)

    parts = []
    for tick in ticks:
        parts.append(f'<path class="grid" d="M{LEFT} {down(tick):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 4}" y="{down(tick) + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 6}">step {left:.0f}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{right:.0f}</text>')
    legend = []
    for index, (name, points) in enumerate(series.items()):
        hue = 255 - 230 * index / max(1, len(series) - 1)
        style = (
            f'style="--hue: {hue:.0f}"'
            + ("", ' stroke-dasharray="7 3"', ' stroke-dasharray="2 3"')[index % 3]
        )
        runs, pen = [], "M"
        for x, y in _averaged(points):
            if math.isfinite(y) and (y > 0 or not log):
                runs.append(f"{pen}{across(x):.1f} {down(y):.1f}")
                pen = "L"
            else:
                pen = "M"
        parts.append(f'<path class="curve" {style} d="{"".join(runs)}"/>')
        if len(points) == 1 and runs:
            parts.append(f'<circle class="dot" {style} cx="{across(x):.1f}" cy="{down(y):.1f}" r="3"/>')
        line = f'<path class="curve" {style} d="M0 4H26"/>'
        sign = f'<svg class="chart" viewBox="0 0 26 8" aria-hidden="true">{line}</svg>'
        legend.append(f"<li>{sign}{escape(name)}</li>")
    told = escape("; ".join(f"{n}: from {p[0][1]:.4g} to {p[-1][1]:.4g}" for n, p in series.items()))
    frame = f'<svg class="chart" role="img" viewBox="0 0 {WIDTH} {HEIGHT}">'
    drawing = f"{frame}<title>{told}</title>{''.join(parts)}</svg>"
    names = f'<ul class="legend">{"".join(legend)}</ul>' if len(series) > 1 else ""
    return f"<figure>{caption}{drawing}{names}" + (f'<p class="key">{note}</p>' if note else "") + "</figure>"


def _averaged(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Average neighbors until a curve has few enough points."""
    size = -(-len(points) // POINTS)
    groups = (points[start : start + size] for start in range(0, len(points), size))
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def _ticks(values: Sequence[float]) -> list[float]:
    """Give three to six round numbers around the values.

    >>> _ticks([0.0, 0.9]), _ticks([3.0, 3.0])
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [3.0, 4.0])
    """
    low, high = min(values), max(values)
    rough = (high - low) / 5 or max(abs(high) / 5, 1e-9)
    power = 10.0 ** math.floor(math.log10(rough))
    size = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / size + 1e-9), math.ceil(high / size - 1e-9)
    return [round(index * size, 12) for index in range(first, max(last, first + 1) + 1)]


def _log_ticks(values: Sequence[float]) -> list[float]:
    """Give powers of ten around the values, at most seven."""
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    last = max(last, first + 1)
    step = -(-(last - first) // 6)
    return [10.0**power for power in range(first, last + step, step)]


def _transcripts(samples: Sequence[Mapping[str, Any]]) -> str:
    """Show what was heard of some dev utterances after several epochs, aligned with what was said."""
    by_id: dict[str, list[Mapping[str, Any]]] = {}
    for sample in samples:
        by_id.setdefault(sample["id"], []).append(sample)
    if not by_id:
        return "<p>No epoch was finished.</p>"
    key = (
        '<p class="key"><span class="swap"><del>said</del><ins>heard</ins></span> taken for another &nbsp; '
        "<del>said</del> missed &nbsp; <ins>heard</ins> invented</p>"
    )
    tables = []
    for name, told in by_id.items():
        shown = sorted({round(i) for i in np.linspace(0, len(told) - 1, min(EPOCHS, len(told)))})
        lines = [
            f'<tr><td>epoch {told[i]["epoch"]}</td><td class="words">'
            f"{_aligned(told[i]['reference'], told[i]['hypothesis'])}</td></tr>"
            for i in shown
        ]
        truth = f'<tr class="truth"><td>said</td><td class="words">{escape(told[0]["reference"])}</td></tr>'
        tables.append(
            f"<table><caption>{escape(name)}</caption><tbody>{truth}{''.join(lines)}</tbody></table>"
        )
    return key + "".join(tables)


def _aligned(reference: str, hypothesis: str) -> str:
    words = []
    for kind, said, heard in align(reference.split(), hypothesis.split()):
        said, heard = escape(said or ""), escape(heard or "")
        words.append(
            {
                "=": f"<span>{said}</span>",
                "D": f"<del>{said}</del>",
                "I": f"<ins>{heard}</ins>",
                "S": f'<span class="swap"><del>{said}</del><ins>{heard}</ins></span>',
            }[kind]
        )
    return " ".join(words)


def _pictures(run: Path, config: str, samples: Sequence[Mapping[str, Any]]) -> str:
    """Draw the spectrogram and the best model's posteriors of the dev utterances whose transcripts are shown."""
    import yaml

    names = dict.fromkeys(sample["id"] for sample in samples)
    dev = yaml.safe_load(config)["data"]["dev"]
    manifests = [dev] if isinstance(dev, str) else dev
    if not names or not (run / "bundle").is_dir():
        return "<p>There is no model yet.</p>"
    if any(map(is_sharded, manifests)):
        return "<p>Dev utterances in shards are not drawn.</p>"
    try:
        model = load(run / "bundle", "cpu")
        cuts = {cut.id: cut for path in manifests for cut in load_cuts(path) if cut.id in names}
        drawn = [
            f"<h3>{escape(name)}</h3>"
            f'<div class="wide" role="region" aria-label="Spectrogram, scrollable" tabindex="0">'
            f"{_picture(model, cuts[name])}</div>"
            for name in names
            if name in cuts and cuts[name].duration <= LONGEST_PICTURE
        ]
    except AsrError as error:  # a report without pictures is better than none
        return f"<p>They cannot be drawn: {escape(str(error))}</p>"
    key = (
        "The best model's words above, spectrogram, and how likely it found each token: blank in gray, those that "
        "lost in red."
    )
    return f'<p class="key">{key}</p>{"".join(drawn)}'


def _picture(model: Recognizer, cut: Cut) -> str:
    samples = read_samples(cut, model.sample_rate)
    return utterance_picture(model, samples, model.transcribe(samples))


def _list(lines: Sequence[str]) -> str:
    if not lines:
        return "<p>None.</p>"
    items = "".join(f"<li>{escape(line)}</li>" for line in lines[:LISTED])
    more = f"<p>and {len(lines) - LISTED} more</p>" if len(lines) > LISTED else ""
    return f"<ul>{items}</ul>{more}"


def _table(values: Mapping[str, str]) -> str:
    lines = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="words">{escape(value)}</td></tr>'
        for name, value in values.items()
    )
    return f"<table><tbody>{lines}</tbody></table>"
