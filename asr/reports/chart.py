"""Charts of curves as SVG."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from asr.reports.render import render

Points = Sequence[tuple[float, float]]  # (step, value) each

POINTS = 300  # of a curve; more are averaged
WIDTH, HEIGHT = 420, 200  # of a chart, in its own pixels
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 10, 22  # its margins
DASHES = ("", "7 3", "2 3")
FIRST_HUE, LAST_HUE = 255, 25  # blue and red


def chart(title: str, series: Mapping[str, Points], unit: str, log: bool = False) -> str:
    """Return curves of (step, value) as a figure with SVG, in colors from blue for the first to red for the last.

    Values that are not finite, and on a logarithmic axis those not above 0, leave gaps and are counted.
    """
    series = {name: points for name, points in series.items() if points}
    total = sum(map(len, series.values()))
    good = [(x, y) for points in series.values() for x, y in points if _is_shown(y, log)]
    note = f"{total - len(good)} of {total} values are not finite" if len(good) < total else ""
    values: dict[str, Any] = {"title": title, "unit": unit, "note": note, "good": bool(good)}
    if good:
        axes = _Axes(good, log)
        ends = "; ".join(f"{n}: from {p[0][1]:.4g} to {p[-1][1]:.4g}" for n, p in series.items())
        values |= {
            "size": (WIDTH, HEIGHT, LEFT, WIDTH - RIGHT),
            "ticks": [(f"{axes.down(tick):.1f}", f"{tick:.4g}") for tick in axes.ticks],
            "first": f"{axes.left:.0f}",
            "last": f"{axes.right:.0f}",
            "description": ends,
            "curves": [axes.curve(index, name, series) for index, name in enumerate(series)],
        }
    return render("chart.html", **values)


def _is_shown(y: float, log: bool) -> bool:
    return math.isfinite(y) and (y > 0 or not log)


class _Axes:
    """Places of steps and values in a chart."""

    def __init__(self, points: Points, log: bool):
        self.log = log
        self.left, self.right = min(x for x, _ in points), max(x for x, _ in points)
        self.ticks = log_ticks([y for _, y in points]) if log else ticks([0.0, *(y for _, y in points)])

    def across(self, x: float) -> float:
        """Return the pixel of a step, from the left."""
        share = (x - self.left) / (self.right - self.left) if self.right > self.left else 0.5
        return LEFT + (WIDTH - LEFT - RIGHT) * share

    def down(self, y: float) -> float:
        """Return the pixel of a value, from the top."""
        place = math.log10 if self.log else float
        low, high = place(self.ticks[0]), place(self.ticks[-1])
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (place(y) - low) / (high - low)

    def curve(self, index: int, name: str, series: Mapping[str, Points]) -> dict[str, Any]:
        """Return what the template draws of a curve: name, hue, dashes, path, and a dot for a single point."""
        runs, pen, dot = [], "M", None
        for x, y in _averaged(series[name]):
            if _is_shown(y, self.log):
                dot = (f"{self.across(x):.1f}", f"{self.down(y):.1f}")
                runs.append(f"{pen}{dot[0]} {dot[1]}")
                pen = "L"
            else:
                pen = "M"
        hue = FIRST_HUE + (LAST_HUE - FIRST_HUE) * index / max(1, len(series) - 1)
        return {
            "name": name,
            "hue": f"{hue:.0f}",
            "dashes": DASHES[index % len(DASHES)],
            "path": "".join(runs),
            "dot": dot if len(series[name]) == 1 else None,
        }


def _averaged(points: Points) -> list[tuple[float, float]]:
    """Average neighbors until a curve has few enough points."""
    size = -(-len(points) // POINTS)
    groups = (points[start : start + size] for start in range(0, len(points), size))
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def ticks(values: Sequence[float]) -> list[float]:
    """Return three to six round numbers around the values.

    >>> ticks([0.0, 0.9]), ticks([3.0, 3.0])
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [3.0, 4.0])
    """
    low, high = min(values), max(values)
    rough = (high - low) / 5 or max(abs(high) / 5, 1e-9)
    power = 10.0 ** math.floor(math.log10(rough))
    size = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / size + 1e-9), math.ceil(high / size - 1e-9)
    return [round(index * size, 12) for index in range(first, max(last, first + 1) + 1)]


def log_ticks(values: Sequence[float]) -> list[float]:
    """Return powers of ten around the values, at most seven.

    >>> log_ticks([0.02, 3.0])
    [0.01, 0.1, 1.0, 10.0]
    """
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    last = max(last, first + 1)
    step = -(-(last - first) // 6)
    return [10.0**power for power in range(first, last + step, step)]
