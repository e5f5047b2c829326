"""Curves, bars and points as SVG inside a page: in its colours, with values to be read beside the pointer.

Colours are the page's variables --c0 to --c7; `plots.js` shows the values beside the pointer.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import escape

from boxwright.evaluation.reading import Curves
from boxwright.reporting.gallery import PALETTE

Values = Sequence | np.ndarray
WIDTH, HEIGHT = 400, 250
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 12, 42  # margins
MOST_CLASSES = len(PALETTE)  # curves in one plot
TICKS = 5
MARKED = 20  # points of a line, below which each is marked


@dataclass(frozen=True)
class Axis:
    """A range of values along a side of the plot."""

    label: str
    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def place(self, values: Sequence[float] | np.ndarray) -> np.ndarray:
        """Where values stand, in the plot's units."""
        v = np.asarray(values, dtype=np.float64)
        low, high = self.low, self.high
        if self.log:
            v, low, high = np.log10(np.maximum(v, self.low)), math.log10(low), math.log10(high)
        return self.start + (v - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values within the range."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            factors = (1, 2, 5) if len(powers) < 4 else (1,)
            found = [f * 10.0**p for p in powers for f in factors if self.low <= f * 10.0**p <= self.high]
            if len(found) > 1:
                return found
        rough = (self.high - self.low) / TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


def line_plot(
    series: Mapping[str, tuple[Values, Values]],
    x_label: str,
    y_label: str,
    log: bool = False,
    unit: bool = False,
    marks: Mapping[str, tuple[float, float]] | None = None,
    log_x: bool = False,
) -> str:
    """Lines by name, each an x and a y.

    Args:
        series: the first `MOST_CLASSES` are drawn.
        x_label, y_label: of the axes.
        log: the y axis is logarithmic.
        unit: the y axis is 0 to 1.
        marks: a point of a line to look at, by its name.
        log_x: the x axis is logarithmic.
    """
    chosen = {name: _finite(x, y, log) for name, (x, y) in list(series.items())[:MOST_CLASSES]}
    xs = np.concatenate([x for x, _ in chosen.values()] or [np.zeros(1)])
    ys = np.concatenate([y for _, y in chosen.values()] or [np.ones(1)])
    x_axis = _axis(x_label, xs, LEFT, WIDTH - RIGHT, log_x)
    y_axis = _axis(y_label, np.array([0.0, 1.0]) if unit else ys, HEIGHT - BOTTOM, TOP, log)
    parts, data = [], []
    for n, (name, (x, y)) in enumerate(chosen.items()):
        at_x, at_y = x_axis.place(x), y_axis.place(y)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(at_x, at_y))
        parts.append(f'<polyline class="line" style="stroke:var(--c{n})" points="{points}"/>')
        if len(x) < MARKED:
            parts += [
                f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" style="fill:var(--c{n})"/>'
                for a, b in zip(at_x, at_y)
            ]
        if marks and name in marks:
            a, b = x_axis.place([marks[name][0]])[0], y_axis.place([marks[name][1]])[0]
            parts.append(f'<circle class="mark" cx="{a:.1f}" cy="{b:.1f}" r="5" style="stroke:var(--c{n})"/>')
        data.append(
            {"name": name, "color": n, "x": _short(x), "y": _short(y), "px": _short(at_x), "py": _short(at_y)}
        )
    legend = list(chosen) if len(chosen) > 1 else []
    return _svg(x_axis, y_axis, parts, legend, data)


def reading_plot(curves: Curves) -> str:
    """A reading's lines or bars."""
    if not curves.bars:
        return line_plot(curves.series, curves.x, curves.y)
    every = [(np.asarray(x, float), np.asarray(y, float)) for x, y in curves.series.values()]
    steps = [x[1] - x[0] if len(x) > 1 else 1.0 for x, _ in every]
    xs = np.concatenate([np.concatenate([x - s / 2, x + s / 2]) for (x, _), s in zip(every, steps)])
    x_axis = _axis(curves.x, xs, LEFT, WIDTH - RIGHT)
    y_axis = _axis(curves.y, np.concatenate([[0.0], *(y for _, y in every)]), HEIGHT - BOTTOM, TOP)
    parts = []
    for n, ((name, _), (x, y), step) in enumerate(zip(curves.series.items(), every, steps)):
        sides = x_axis.place(x - 0.45 * step), x_axis.place(x + 0.45 * step)
        for left, right, value, top in zip(*sides, y, y_axis.place(y)):
            told = escape(f"{name}: {value:.4g}")
            parts.append(
                f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" '
                f'height="{HEIGHT - BOTTOM - top:.1f}" style="fill:var(--c{n})"><title>{told}</title></rect>'
            )
    return _svg(x_axis, y_axis, parts, list(curves.series) if len(every) > 1 else [])


def precision_recall_plot(
    curves: dict[str, np.ndarray], marks: Mapping[str, tuple[float, float]] | None = None
) -> str:
    """Precision (101,) at the recall points of COCO, by name; `marks`: recall and precision in use."""
    recall = np.linspace(0, 1, 101)
    return line_plot(
        {n: (recall, p) for n, p in curves.items()}, "recall", "precision", unit=True, marks=marks
    )


def size_plot(width: np.ndarray, height: np.ndarray, category: np.ndarray, names: list[str]) -> str:
    """Width against height of boxes, a sample of 1,500, coloured by class."""
    chosen = np.random.default_rng(0).permutation(len(width))[:1500]
    x_axis = _axis("width, px", np.append(width[chosen], 0.0), LEFT, WIDTH - RIGHT)
    y_axis = _axis("height, px", np.append(height[chosen], 0.0), HEIGHT - BOTTOM, TOP)
    parts = []
    for k in range(min(len(names), MOST_CLASSES)):
        mine = chosen[category[chosen] == k]
        places = zip(x_axis.place(width[mine]), y_axis.place(height[mine]))
        dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in places)
        told = (
            escape(f"{names[k]}, median {np.median(width[mine]):.0f} x {np.median(height[mine]):.0f}")
            if dots
            else ""
        )
        parts.append(f'<path class="dots" style="stroke:var(--c{k})" d="{dots}"><title>{told}</title></path>')
    return _svg(x_axis, y_axis, parts, names[:MOST_CLASSES])


def place_plot(places: np.ndarray, counts: np.ndarray, labels: tuple[str, str]) -> str:
    """A dot for each place (N, 2), its area as the count there, at one scale along both axes."""
    x, y = places.T
    # The scale of the axis whose values need more room is that of both.
    reach = 0.55 * max(np.ptp(x) / (WIDTH - LEFT - RIGHT), np.ptp(y) / (HEIGHT - TOP - BOTTOM), 1e-5)
    sides = reach * (WIDTH - LEFT - RIGHT), reach * (HEIGHT - TOP - BOTTOM)
    middle = (x.min() + x.max()) / 2, (y.min() + y.max()) / 2
    x_axis = Axis(labels[0], middle[0] - sides[0], middle[0] + sides[0], LEFT, WIDTH - RIGHT)
    y_axis = Axis(labels[1], middle[1] - sides[1], middle[1] + sides[1], HEIGHT - BOTTOM, TOP)
    radius = np.maximum(2.5, 12 * np.sqrt(counts / counts.max()))
    parts = [
        f'<circle class="spot" cx="{a:.1f}" cy="{b:.1f}" r="{r:.1f}">'
        f"<title>{count:,.0f} at {at_x:.4f}, {at_y:.4f}</title></circle>"
        for a, b, r, count, at_x, at_y in zip(x_axis.place(x), y_axis.place(y), radius, counts, x, y)
    ]
    return _svg(x_axis, y_axis, parts, [])


def count_plot(counts: dict[str, int], x_label: str, sort: bool = True) -> str:
    """Horizontal bars, the first 20; `sort`: greatest first."""
    shown = sorted(counts.items(), key=lambda item: -item[1] if sort else 0)[:20]
    height = 26 * len(shown) + 8
    longest = max([count for _, count in shown], default=1) or 1
    parts = []
    for n, (name, count) in enumerate(shown):
        y, length = 4 + 26 * n, (WIDTH - 220) * count / longest
        label = name if len(name) < 24 else name[:22] + "…"
        parts.append(
            f'<text x="150" y="{y + 15}" text-anchor="end">{escape(label)}</text>'
            f'<rect x="158" y="{y + 2}" width="{max(length, 1):.1f}" height="18" style="fill:var(--c0)"/>'
            f'<text x="{164 + length:.1f}" y="{y + 15}">{count:,}</text>'
        )
    label, body = escape(x_label), "".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">{body}</svg>'


def _finite(x: Values, y: Values, log: bool) -> tuple[np.ndarray, np.ndarray]:
    values = [np.array([np.nan if v is None else v for v in side], dtype=np.float64) for side in (x, y)]
    keep = np.isfinite(values[0]) & np.isfinite(values[1])
    keep &= (values[1] > 0) if log else True
    return values[0][keep], values[1][keep]


def _axis(label: str, values: np.ndarray, start: float, end: float, log: bool = False) -> Axis:
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.1 if log else 0.0, 1.0)
    if high - low < 1e-12 * max(abs(high), 1e-9):
        low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5)
    return Axis(label, low, high, start, end, log)


def _short(values: np.ndarray) -> list[float]:
    return [float(f"{v:.5g}") for v in values]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _svg(
    x_axis: Axis, y_axis: Axis, parts: list[str], legend: list[str], data: list[dict] | None = None
) -> str:
    """The plot with its axes, and the legend above it."""
    frame = []
    for value, x in zip(x_axis.ticks(), x_axis.place(x_axis.ticks())):
        frame.append(
            f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{_number(value)}</text>'
        )
    for value, y in zip(y_axis.ticks(), y_axis.place(y_axis.ticks())):
        frame.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_number(value)}</text>'
        )
    across, up = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
    center = 'text-anchor="middle"'
    frame.append(f'<text x="{across}" y="{HEIGHT - 6}" {center}>{escape(x_axis.label)}</text>')
    frame.append(f'<text transform="rotate(-90)" x="{-up}" y="12" {center}>{escape(y_axis.label)}</text>')
    held = f" data-plot='{escape(json.dumps(data))}'" if data else ""
    label = escape(f"{y_axis.label} over {x_axis.label}")
    names = "".join(
        f'<span><i style="background:var(--c{n})"></i>{escape(name)}</span>' for n, name in enumerate(legend)
    )
    above = f'<div class="legend">{names}</div>' if legend else ""
    body = "".join(frame + parts)
    return f'{above}<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}"{held}>{body}</svg>'
