"""Pages about predictions beside truth, about two tables beside each other, and about a calibration."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from boxwright.data.tables import Tables
from boxwright.evaluation.calibration import Calibration
from boxwright.evaluation.coco import ALL
from boxwright.evaluation.comparison import ALONE, Comparison
from boxwright.evaluation.evaluate import Evaluation, evaluate
from boxwright.evaluation.intervals import intervals
from boxwright.evaluation.matching import match
from boxwright.evaluation.metrics import SLICED, USUAL, find_metric
from boxwright.evaluation.slices import slices
from boxwright.evaluation.tide import MEANINGS, NAMES, tide
from boxwright.progress import progress_bar
from boxwright.reporting import plots
from boxwright.reporting.examples import box_rows, pictures_of
from boxwright.reporting.page import Section, section_of, write_page

EXAMPLES = 20  # pictures of each kind of error
EXAMPLES_OF_CELL = 5  # and of each cell of a table of slices
KEY = "Orange: the box in question; green: truth; blue: detections above 0.3."


def judgement_page(
    path: str | os.PathLike,
    truth: Tables,
    models: dict[str, Tables],
    metrics: Sequence[str] = USUAL,
    max_dets: tuple[int, ...] = (1, 10, 100),
    resamples: int = 300,
) -> Path:
    """One page on one model, or on several side by side.

    Args:
        path: of the HTML file.
        truth: what is judged against.
        models: aligned predictions by name; differences are taken from the first.
        metrics: names as `evaluation.metrics` knows them, beside COCO's numbers.
        max_dets: limits of detections an image and class.
        resamples: bootstrap draws for the intervals.

    Raises:
        DataError: the tables lack what a metric needs.
        ConfigError: an unknown metric.
    """
    target = Path(path)
    judges = {name: find_metric(name) for name in metrics}
    evaluations = {name: evaluate(truth, found, max_dets) for name, found in models.items()}
    sections = _coco_sections(evaluations)
    first = next(iter(models))
    others = [name for name in models if name != first]
    with progress_bar("report", len(judges) + len(models) + 1) as advance:
        for name in others or [first]:
            other = models[name] if others else None
            reading = intervals(truth, models[first], other, resamples, max_dets=max_dets[-1])
            title = f"{reading.title}: {name} against {first}" if others else reading.title
            sections.append(Section(title, rows=reading.rows, notes=reading.notes, source=reading.source))
        advance(1)
        for metric, judge in judges.items():
            sections.append(section_of({name: judge(truth, found) for name, found in models.items()}))
            if metric.startswith(SLICED) and not others:
                sections[-1] = _with_examples(sections[-1], truth, models[first], metric.removeprefix(SLICED))
            advance(1)
        for name, found in models.items():
            suffix = f", {name}" if others else ""
            sections.append(_error_section(f"The worst of each kind of error{suffix}", truth, found))
            advance(1)
    for name in others:
        sections.append(_change_section(truth, first, models[first], name, models[name]))
    count = int((~truth.boxes["crowd"] & ~truth.boxes["ignore"]).sum())
    lead = f"{', '.join(models)}; {len(truth.images):,} images with {count:,} objects to judge by."
    write_page(target, "Side by side" if others else first, lead, sections)
    return target


def comparison_page(path: str | os.PathLike, comparison: Comparison, names: tuple[str, str]) -> Path:
    """What two tables agree on, and pictures of what they don't."""
    target, (a, b) = Path(path), names
    galleries = {}
    for title, tables, outcome in (
        (f"Only in {a}", comparison.a, comparison.outcome_a),
        (f"Only in {b}", comparison.b, comparison.outcome_b),
    ):
        rows = np.flatnonzero(outcome == ALONE)
        area = tables.boxes["area"].to_numpy()[rows]
        found = box_rows(tables, rows[np.argsort(-area, kind="stable")])
        galleries[title] = pictures_of(comparison.a, comparison.b, found, EXAMPLES)
    pairs = comparison.pairs.sort("iou")
    for title, outcome in (("Matched, least IoU", "matched"), ("Of another class", "other class")):
        rows = pairs.filter(pairs["outcome"] == outcome)["b_row"].to_numpy()
        galleries[title] = pictures_of(comparison.a, comparison.b, box_rows(comparison.b, rows), EXAMPLES)
    figures = {title: Markup(plots.reading_plot(c)) for title, c in comparison.curves.items()}
    everything = comparison.rows[0]
    shown = ("matched", "only A", "only B", "other class", "mean IoU", "agreement")
    key = f"Green: {a}; blue: {b} above 0.3; orange: the box in question."
    sections = [
        Section("Agreement", {k: everything[k] for k in shown}, comparison.rows, figures),
        Section("Where they differ", galleries=galleries, notes=[key]),
    ]
    write_page(target, f"{a} (A) and {b} (B)", f"{len(comparison.a.images):,} images.", sections)
    return target


def calibration_page(path: str | os.PathLike, calibration: Calibration) -> Path:
    """What was fitted, what it brought, and AP over each factor."""
    rows: list[dict[str, Any]] = [
        {"group": name or "all", "w": c.w, "h": c.h, "angle, degrees": float(np.degrees(c.angle))}
        for name, c in calibration.corrections.items()
    ]
    figures = {title: Markup(plots.reading_plot(c)) for title, c in calibration.curves.items()}
    section = Section(
        "Corrections", calibration.fitted | {"temperature": calibration.temperature}, rows, figures
    )
    write_page(Path(path), "Calibration", f"Fitted by {calibration.by}.", [section])
    return Path(path)


def _coco_sections(evaluations: dict[str, Evaluation]) -> list[Section]:
    if len(evaluations) > 1:
        rows = [{"model": name} | _defined(e.coco) for name, e in evaluations.items()]
        by_iou = [
            {"model": name} | {f"{t:g}": ap for t, ap in e.ap_by_iou.items()}
            for name, e in evaluations.items()
        ]
        curves = {n: (list(e.ap_by_iou), list(e.ap_by_iou.values())) for n, e in evaluations.items()}
        figure = {"AP by IoU threshold": Markup(plots.line_plot(curves, "IoU threshold", "AP"))}
        classes = [
            {"class": row["name"], "truth": row["truth"]}
            | {n: e.per_class[k]["AP"] for n, e in evaluations.items()}
            for k, row in enumerate(next(iter(evaluations.values())).per_class)
        ]
        return [
            Section("COCO's numbers", rows=rows, notes=_notes(evaluations), source="COCO, as pycocotools"),
            Section("AP by IoU threshold", rows=by_iou, figures=figure),
            Section("AP by class", rows=classes),
        ]
    ((_, evaluation),) = evaluations.items()
    rows = [{k: v for k, v in row.items() if k != "id"} for row in evaluation.per_class]
    by_iou = {"AP": (list(evaluation.ap_by_iou), list(evaluation.ap_by_iou.values()))}
    defined = {
        row["name"]: evaluation.curves.precision[0, :, k, ALL]
        for k, row in enumerate(evaluation.per_class)
        if row["truth"]
    }
    figures = {
        "Precision and recall at the least IoU": Markup(plots.precision_recall_plot(defined)),
        "AP by IoU threshold": Markup(plots.line_plot(by_iou, "IoU threshold", "AP")),
    }
    numbers = _defined(evaluation.coco)
    return [Section("COCO's numbers", numbers, rows, figures, {}, evaluation.notes, "COCO, as pycocotools")]


def _defined(numbers: dict[str, float]) -> dict[str, float | None]:
    return {name: None if value < 0 else value for name, value in numbers.items()}


def _notes(evaluations: dict[str, Evaluation]) -> list[str]:
    return [f"{name}: {note}" for name, e in evaluations.items() for note in e.notes]


def _error_section(title: str, truth: Tables, found: Tables) -> Section:
    """Twenty pictures of each of TIDE's kinds: false positives by score, misses by size."""
    errors = tide(truth, found).errors
    galleries = {}
    for kind, name in NAMES.items():
        mine = errors.filter(errors["kind"] == name)
        table, column = (truth, "gt_row") if name == "Miss" else (found, "det_row")
        rows = mine[column].to_numpy()
        weight = table.boxes["area" if name == "Miss" else "score"].to_numpy()[rows]
        boxes = box_rows(table, rows[np.argsort(-weight, kind="stable")])
        pictures = pictures_of(truth, found, boxes, EXAMPLES)
        galleries[f"{name}: {MEANINGS[kind]} ({len(mine):,})"] = pictures
    return Section(title, galleries=galleries, notes=[KEY])


def _with_examples(section: Section, truth: Tables, found: Tables, by: str) -> Section:
    """The section of slices with the worst of each cell."""
    galleries = {}
    for (name, cell), rows in slices(truth, found, by).examples.items():
        table = truth if cell == "FN" else found
        if len(rows):
            pictures = pictures_of(truth, found, box_rows(table, rows), EXAMPLES_OF_CELL)
            galleries[f"{name}: {cell} ({len(rows):,})"] = pictures
    return replace(section, galleries=galleries, folded=True)


def _change_section(truth: Tables, first: str, a: Tables, second: str, b: Tables) -> Section:
    """Truth that only one of two models finds, at IoU 0.5 and any score."""
    found = []
    for tables in (a, b):
        matching = match(truth, tables, np.array([0.5]), max_dets=100)
        hit = matching.outcomes()[0]
        flags = np.zeros(len(truth.boxes), dtype=bool)
        flags[matching.gt_row[matching.found()[hit]]] = True
        found.append(flags)
    galleries = {}
    for name, mine, others, tables in ((first, *found, a), (second, *found[::-1], b)):
        rows = np.flatnonzero(mine & ~others)
        area = truth.boxes["area"].to_numpy()[rows]
        boxes = box_rows(truth, rows[np.argsort(-area, kind="stable")])
        galleries[f"Found by {name} alone ({len(rows):,})"] = pictures_of(truth, tables, boxes, EXAMPLES)
    return Section(f"{first} and {second}: what only one finds", galleries=galleries, notes=[KEY])
