"""Curves as SVG, drawn by matplotlib, to stand inside a page."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.figure import Figure

from boxwright.evaluation.reading import Curves
from boxwright.reporting.gallery import PALETTE

# Text stays text, so that the page's font is used and the picture stays small; ids are the same each time.
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "boxwright",
    "font.size": 9,
    "axes.spines.top": False,
} | {
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.prop_cycle": cycler(color=list(PALETTE)),
}
MOST_CLASSES = 8  # curves in one plot


def line_plot(
    series: Mapping[str, tuple[Sequence, Sequence]], x_label: str, y_label: str, log: bool = False
) -> str:
    """Lines by name, each an x and a y."""

    def draw(axes: Any) -> None:
        for name, (x, y) in series.items():
            axes.plot(x, y, label=name, linewidth=1.6, marker="o" if len(x) < 20 else None, markersize=3)
        if log:
            axes.set_yscale("log")
        if len(series) > 1:
            axes.legend(frameon=False)
        axes.set(xlabel=x_label, ylabel=y_label)

    return _svg(draw)


def reading_plot(curves: Curves) -> str:
    """A reading's lines or bars."""
    if not curves.bars:
        return line_plot(curves.series, curves.x, curves.y)

    def draw(axes: Any) -> None:
        for name, (x, y) in curves.series.items():
            axes.bar(x, y, width=0.9 * (x[1] - x[0]) if len(x) > 1 else 0.9, label=name)
        axes.set(xlabel=curves.x, ylabel=curves.y)

    return _svg(draw)


def precision_recall_plot(curves: dict[str, np.ndarray]) -> str:
    """Precision (101,) at the recall points of COCO, by name; the first `MOST_CLASSES`."""
    recall = np.linspace(0, 1, 101)

    def draw(axes: Any) -> None:
        for name, precision in list(curves.items())[:MOST_CLASSES]:
            axes.plot(recall, precision, label=name, linewidth=1.6)
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.01))
        axes.legend(frameon=False, loc="lower left")

    return _svg(draw)


def size_plot(width: np.ndarray, height: np.ndarray, category: np.ndarray, names: list[str]) -> str:
    """Width against height of boxes, a sample of 2,000, coloured by class."""
    chosen = np.random.default_rng(0).permutation(len(width))[:2000]

    def draw(axes: Any) -> None:
        for k, name in enumerate(names[:MOST_CLASSES]):
            mine = chosen[category[chosen] == k]
            axes.scatter(width[mine], height[mine], s=5, alpha=0.5, label=name, rasterized=True)
        axes.set(xlabel="width, px", ylabel="height, px")
        axes.legend(frameon=False, markerscale=2)

    return _svg(draw)


def count_plot(counts: dict[str, int], x_label: str) -> str:
    """Horizontal bars, greatest first."""
    shown = sorted(counts.items(), key=lambda item: item[1])[-20:]

    def draw(axes: Any) -> None:
        axes.barh([name for name, _ in shown], [count for _, count in shown])
        axes.set(xlabel=x_label)
        axes.grid(axis="y", visible=False)

    return _svg(draw)


def _svg(draw: Any) -> str:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 3.0), layout="constrained")
        draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    # The size is the page's to choose; the view box keeps the shape.
    return re.sub(
        r'(<svg[^>]*?) height="[^"]*"',
        r"\1",
        re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1),
        count=1,
    )
