"""Any number of runs beside each other: settings, AP, curves, and what is more than chance."""

import os
from pathlib import Path
from typing import Any

import polars as pl
from markupsafe import Markup

from boxwright.data.tables import Tables
from boxwright.errors import ConfigError, nearest
from boxwright.evaluation.evaluate import Evaluation, evaluate
from boxwright.evaluation.intervals import intervals
from boxwright.reporting.page import Section, write_page
from boxwright.reporting.plots import line_plot
from boxwright.reporting.runs import RunRow, runs

RESAMPLES = 500
# Of metrics.parquet: title of the plot, column, logarithmic.
CURVES = (
    ("AP on the validation images, while training", "val/AP", False),
    ("Loss", "loss/total", True),
    ("Learning rate", "learning_rate", False),
)


def paired(folder: str | os.PathLike, against: str, resamples: int = RESAMPLES) -> list[dict[str, Any]]:
    """How AP and AP50 of each finished run differ from one run's, with 95 % intervals, best first.

    Both are judged on the same draws of the images. A run that was judged by other images, boxes or classes
    has no difference, and says so.

    Args:
        folder: of run folders.
        against: name of the run that the others are compared with.
        resamples: draws.

    Raises:
        ConfigError: there is no such finished run.
        DataError: a run's tables can't be read.
    """
    finished = [row.name for row in runs(folder) if row.finished]
    if against not in finished:
        raise ConfigError(f"no finished run '{against}' in {folder}. {nearest(against, finished)}")
    first = _judged(Path(folder) / against)
    rows: list[dict[str, Any]] = []
    for name in finished:
        if name == against:
            continue
        other = _judged(Path(folder) / name)
        if not _same(first.truth, other.truth):
            rows.append({"run": name, "number": "judged by other truth"})
            continue
        for row in intervals(first, other, resamples).rows:
            if row["number"] in ("AP", "AP50"):
                shown = {key: row[key] for key in ("number", "other", "difference", "from", "to", "p")}
                rows.append({"run": name} | shown)
    return rows


def runs_page(folder: str | os.PathLike, output: str | os.PathLike, against: str | None = None) -> Path:
    """Write a page that compares all runs of a folder.

    Args:
        folder: of run folders.
        output: the page, .html.
        against: the run that the others are compared with; None: the best.

    Raises:
        DataError, ConfigError: as `runs` and `paired`.
    """
    rows = runs(folder)
    finished = [row for row in rows if row.finished]
    sections = [Section("Runs", rows=[_cells(row) for row in rows], figures=_figures(Path(folder), rows))]
    if len(finished) > 1:
        against = against or finished[0].name
        differences = paired(folder, against)
        keys = list(dict.fromkeys(key for row in differences for key in row))
        filled = [{key: row.get(key) for key in keys} for row in differences]
        source = "Efron and Tibshirani, An Introduction to the Bootstrap, 1993"
        notes = ["An interval that holds 0 is a difference that chance makes on these images."]
        sections.append(Section(f"Difference from {against}", rows=filled, notes=notes, source=source))
    path = Path(output)
    lead = f"{len(rows)} runs of {folder}, {len(finished)} finished; best first."
    write_page(path, "Runs", lead, sections)
    return path


def _judged(folder: Path) -> Evaluation:
    return evaluate(folder / "truth.parquet", folder / "predictions.parquet")


def _same(one: Tables, other: Tables) -> bool:
    """Whether two runs were judged by the same images, boxes and classes."""
    columns = ["image_id", "category_id", "x", "y", "w", "h", "angle", "crowd", "ignore"]
    return (
        one.images["file_name"].equals(other.images["file_name"])
        and one.categories["name"].equals(other.categories["name"])
        and one.boxes.select(columns).equals(other.boxes.select(columns))
    )


def _cells(row: RunRow) -> dict[str, Any]:
    minutes = None if row.seconds is None else row.seconds / 60
    cells = {
        "run": row.name,
        "AP": row.ap,
        "AP50": row.ap_by_iou.get("0.50"),
        "AP75": row.ap_by_iou.get("0.75"),
    }
    changes = ", ".join(row.differs)
    return cells | {"epochs": row.epochs, "minutes": minutes, "differs in": changes or "nothing"}


def _figures(folder: Path, rows: list[RunRow]) -> dict[str, Markup]:
    """Curves of the runs, laid over each other; of many those of the best."""
    tables = {
        row.name: pl.read_parquet(folder / row.name / "metrics.parquet")
        for row in rows
        if (folder / row.name / "metrics.parquet").is_file()
    }
    figures = {}
    for title, column, log in CURVES:
        series = {}
        for name, table in tables.items():
            if column in table.columns:
                own = table.drop_nulls(column)
                series[name] = (own["step"].to_list(), own[column].to_list())
        if series:
            figures[title] = Markup(line_plot(series, "step", "", log=log))
    by_iou = {
        row.name: ([float(iou) for iou in row.ap_by_iou], list(row.ap_by_iou.values()))
        for row in rows
        if row.ap_by_iou
    }
    if by_iou:
        figures["AP by IoU threshold"] = Markup(line_plot(by_iou, "IoU", "AP"))
    return figures
