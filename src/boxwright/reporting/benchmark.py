"""The page of a benchmark: its table, and which detectors no other beats in both time and AP."""

import platform
from pathlib import Path
from typing import Any

from markupsafe import Markup

from boxwright.reporting import plots
from boxwright.reporting.page import Section, write_page

MOST = 7  # detectors that are drawn beside the front


def write_benchmark(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the page.

    Args:
        path: of the page.
        rows: of `benchmark`, a dict a timing.
    """
    front = pareto_front(rows)
    shown = [
        {"checkpoint": row["name"], "runtime": row["runtime"], "AP": row["ap"], "AP50": row["ap50"]}
        | {"front": "yes" if n in front else ""}
        | {"size": f"{row['width']} x {row['height']}", "batch": row["batch"], "threads": row["threads"]}
        | {f"{p} ms": row[p] for p in ("p50", "p95", "p99")}
        | {"images/s": row["images_per_second"], "MiB": row["memory"]}
        for n, row in enumerate(rows)
    ]
    series = {"front": _points([rows[n] for n in front])}
    names = list(dict.fromkeys((row["name"], row["runtime"]) for row in rows))
    for name, runtime in names[:MOST]:
        mine = [row for row in rows if (row["name"], row["runtime"]) == (name, runtime)]
        series[f"{name}, {runtime}"] = _points(mine)
    plot = plots.line_plot(series, "milliseconds an image, median", "AP", log_x=True)
    notes = [
        f"Measured on {platform.machine()}, {platform.system()} {platform.release()}.",
        "Timed: from fitted pixels in memory to detections, in one view, warmed up. AP: of these images.",
        "Memory is that of the whole process. Front: what no other beats in both time and AP.",
    ]
    sections = [Section("Time and AP", rows=shown, figures={"AP over time": Markup(plot)}, notes=notes)]
    write_page(path, "Benchmark", f"{len(rows):,} combinations.", sections)


def pareto_front(rows: list[dict[str, Any]]) -> list[int]:
    """Rows that no other beats in both the time an image takes and AP, fastest first."""
    order = sorted(range(len(rows)), key=lambda n: (rows[n]["p50"] / rows[n]["batch"], -rows[n]["ap"]))
    front: list[int] = []
    for n in order:
        if not front or rows[n]["ap"] > rows[front[-1]]["ap"]:
            front.append(n)
    return front


def _points(rows: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    ordered = sorted((row["p50"] / row["batch"], row["ap"]) for row in rows)
    return [ms for ms, _ in ordered], [ap for _, ap in ordered]
