"""Pages about predictions beside truth, about two tables beside each other, and about a calibration."""

import os
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from boxwright.evaluation.calibration import Calibration
from boxwright.evaluation.coco import ALL
from boxwright.evaluation.comparison import ALONE, Comparison
from boxwright.evaluation.evaluate import Evaluation
from boxwright.evaluation.matching import match
from boxwright.evaluation.metrics import SLICED
from boxwright.evaluation.reading import Reading
from boxwright.evaluation.slices import slices
from boxwright.evaluation.tide import MEANINGS, NAMES, tide
from boxwright.progress import track
from boxwright.reporting import plots
from boxwright.reporting.examples import box_rows, pictures_of
from boxwright.reporting.page import Section, section_of, write_page

EXAMPLES = 20  # pictures of each kind of error
EXAMPLES_OF_CELL = 5  # and of each cell of a table of slices
KEY = "Orange: the box in question; green: truth; blue: detections above their class's threshold."


def judgement_page(
    path: str | os.PathLike,
    evaluations: dict[str, Evaluation],
    readings: dict[str, dict[str, Reading]],
    chance: dict[str, list[Reading]],
) -> Path:
    """One page on one model, or on several side by side.

    Args:
        path: of the HTML file.
        evaluations: of one truth, by the model's name; changes are told from the first.
        readings: other metrics, by the metric's and the model's name.
        chance: intervals, as `all_intervals` gives them.
    """
    target = Path(path)
    sections = _coco_sections(evaluations)
    sections += [section_of({"": reading}) for reading in chain.from_iterable(chance.values())]
    (first, one), *others = evaluations.items()
    for metric, by_model in readings.items():
        sections.append(section_of(by_model))
        if metric.startswith(SLICED) and not others:
            sections[-1] = _with_examples(sections[-1], one, metric.removeprefix(SLICED))
    for name, evaluation in track("pictures", evaluations.items()):
        suffix = f", {name}" if others else ""
        sections.append(_error_section(f"The worst of each kind of error{suffix}", evaluation))
    sections += [_change_section(first, one, name, other) for name, other in others]
    truth = one.truth
    count = int((~truth.boxes["crowd"] & ~truth.boxes["ignore"]).sum())
    lead = f"{', '.join(evaluations)}; {len(truth.images):,} images with {count:,} objects to judge by."
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
        Section(
            "Agreement", {k: everything[k] for k in shown}, comparison.rows, figures, {}, comparison.notes
        ),
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


def _error_section(title: str, evaluation: Evaluation) -> Section:
    """Twenty pictures of each of TIDE's kinds: false positives by score, misses by size."""
    truth, found = evaluation.truth, evaluation.predictions
    errors = tide(truth, found, max_dets=evaluation.max_dets[-1]).errors
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


def _with_examples(section: Section, evaluation: Evaluation, by: str) -> Section:
    """The section of slices with the worst of each cell."""
    truth, found = evaluation.truth, evaluation.predictions
    galleries = {}
    for (name, cell), rows in slices(truth, found, by).examples.items():
        table = truth if cell == "FN" else found
        if len(rows):
            pictures = pictures_of(truth, found, box_rows(table, rows), EXAMPLES_OF_CELL)
            galleries[f"{name}: {cell} ({len(rows):,})"] = pictures
    return replace(section, galleries=galleries, folded=True)


def _change_section(first: str, a: Evaluation, second: str, b: Evaluation) -> Section:
    """Truth that only one of two models finds, at IoU 0.5 and any score."""
    found, truth = [], a.truth
    for model in (a, b):
        matching = match(truth, model.predictions, np.array([0.5]), max_dets=model.max_dets[-1])
        hit = matching.outcomes()[0]
        flags = np.zeros(len(truth.boxes), dtype=bool)
        flags[matching.gt_row[matching.found()[hit]]] = True
        found.append(flags)
    galleries = {}
    for name, mine, others, model in ((first, *found, a), (second, *found[::-1], b)):
        rows = np.flatnonzero(mine & ~others)
        area = truth.boxes["area"].to_numpy()[rows]
        boxes = box_rows(truth, rows[np.argsort(-area, kind="stable")])
        galleries[f"Found by {name} alone ({len(rows):,})"] = pictures_of(
            truth, model.predictions, boxes, EXAMPLES
        )
    return Section(f"{first} and {second}: what only one finds", galleries=galleries, notes=[KEY])
