"""`boxwright.report`: a run folder to one self-contained HTML page."""

import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from PIL import Image, ImageDraw

from boxwright.data import formats
from boxwright.data.formats.files import write_atomic
from boxwright.data.statistics import stats
from boxwright.errors import DataError
from boxwright.evaluation.coco import ALL
from boxwright.evaluation.evaluate import Evaluation, evaluate
from boxwright.reporting import plots
from boxwright.reporting.gallery import corners_of, draw_box, draw_label, open_tile, to_data_uri

EXAMPLES = 12  # pictures of false positives, and of misses
TRUTH, FOUND, WRONG = "#009E73", "#56B4E9", "#D55E00"


def report(run: str | os.PathLike) -> Path:
    """Write `report/index.html` of a run.

    Args:
        run: a run folder with truth.parquet and predictions.parquet.

    Raises:
        DataError: a file of the run is missing or damaged.
    """
    folder = Path(run)
    for name in ("truth.parquet", "predictions.parquet", "config.yaml"):
        if not (folder / name).is_file():
            raise DataError(f"{folder / name} is missing; has the run been finished? (--resume)")
    evaluation = evaluate(
        formats.read(folder / "truth.parquet"), formats.read(folder / "predictions.parquet")
    )
    metrics = _read_metrics(folder)
    environment = Environment(
        loader=PackageLoader("boxwright.reporting"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    false_positives, misses = worst_examples(evaluation)
    page = environment.get_template("report.html").render(
        name=folder.resolve().name,
        version=version("boxwright"),
        evaluation=evaluation,
        statistics=stats(evaluation.truth),
        curves=_curves(evaluation, metrics),
        false_positives=false_positives,
        misses=misses,
        config=(folder / "config.yaml").read_text(encoding="utf-8"),
        facts=_read_facts(folder),
        seconds=float(metrics["seconds"].to_numpy().max()) if len(metrics) else None,
        speed=_last(metrics, "images_per_second"),
        evaluations=int(metrics["val/AP"].is_not_null().sum()) if "val/AP" in metrics.columns else 0,
    )
    target = folder / "report" / "index.html"
    write_atomic(target, page.encode())
    return target


def worst_examples(evaluation: Evaluation) -> tuple[list[dict], list[dict]]:
    """Pictures of the false positives of greatest score, and of the largest truth that wasn't found.

    Both at IoU 0.50; a miss is truth that no detection of its class matched.
    """
    matching, matched = evaluation.matching, evaluation.matching.found()
    wrong = np.flatnonzero(matching.outcomes()[1])
    wrong = wrong[np.argsort(-matching.det_score[wrong], kind="stable")]
    found = np.zeros(len(matching.gt_row), dtype=bool)
    found[matched[matched >= 0]] = True
    missed = np.flatnonzero(~found & ~matching.gt_ignored[ALL])
    areas = evaluation.truth.boxes["area"].to_numpy()[matching.gt_row[missed]]
    missed = missed[np.argsort(-areas, kind="stable")]
    names = evaluation.truth.categories["name"].to_list()
    false_positives = [
        (evaluation.predictions.boxes.row(int(matching.det_row[d]), named=True), names) for d in wrong
    ]
    misses = [(evaluation.truth.boxes.row(int(matching.gt_row[g]), named=True), names) for g in missed[:200]]
    return _pictures(evaluation, false_positives[:200]), _pictures(evaluation, misses)


def _pictures(evaluation: Evaluation, rows: list[tuple[dict, list[str]]]) -> list[dict]:
    """Crops around boxes, one an image at first, so that one bad image doesn't fill the page."""
    seen: set[int] = set()
    fresh = [r for r in rows if not (r[0]["image_id"] in seen or seen.add(r[0]["image_id"]))]
    ordered = fresh + [r for r in rows if r not in fresh]
    pictures = []
    for row, names in ordered[:EXAMPLES]:
        try:
            picture = _draw_example(evaluation, row, names[row["category_id"]])
        except DataError:
            # The images have moved since; the table says more than an empty frame.
            picture = None
        score = None if row["score"] is None else row["score"]
        pictures.append(
            {
                "picture": Markup(to_data_uri(picture)) if picture else None,
                "image": evaluation.truth.images["file_name"][row["image_id"]],
                "category": names[row["category_id"]],
                "score": score,
                "size": f"{row['w']:.0f} x {row['h']:.0f}",
            }
        )
    return pictures


def _draw_example(evaluation: Evaluation, row: dict, name: str) -> Image.Image:
    """The image with its truth, confident detections, and the box in question, cut to its surroundings."""
    picture, factor = open_tile(evaluation.truth, row["image_id"])
    draw = ImageDraw.Draw(picture)
    truth, predictions = evaluation.truth.boxes, evaluation.predictions.boxes
    for other in predictions.filter(
        (pl.col("image_id") == row["image_id"]) & (pl.col("score") > 0.3)
    ).iter_rows(named=True):
        draw_box(draw, corners_of(other) * factor, FOUND, 1)
    for other in truth.filter(pl.col("image_id") == row["image_id"]).iter_rows(named=True):
        draw_box(draw, corners_of(other) * factor, TRUTH, 1, dashed=other["crowd"] or other["ignore"])
    corners = corners_of(row) * factor
    draw_box(draw, corners, WRONG, 3)
    draw_label(draw, corners, name if row["score"] is None else f"{name} {row['score']:.2f}", WRONG)
    low, high = corners.min(axis=0), corners.max(axis=0)
    reach = max(120.0, float((high - low).max()) * 1.5)
    center = (low + high) / 2
    box = np.concatenate([center - reach, center + reach])
    box = np.clip(box, 0, [*picture.size, *picture.size]).round().astype(int)
    return picture.crop(tuple(box.tolist()))


def _curves(evaluation: Evaluation, metrics: pl.DataFrame) -> dict[str, Markup]:
    """Every plot of the page, by title."""
    result: dict[str, str] = {}
    losses = [c for c in metrics.columns if c.startswith("loss/")]
    if losses:
        logged = metrics.filter(pl.col(losses[0]).is_not_null())
        series = {c.removeprefix("loss/"): (logged["step"].to_list(), logged[c].to_list()) for c in losses}
        result["Losses"] = plots.line_plot(series, "step", "loss", log=True)
        rate = (logged["step"].to_list(), logged["learning_rate"].to_list())
        result["Learning rate"] = plots.line_plot({"learning rate": rate}, "step", "learning rate")
    if "val/AP" in metrics.columns:
        judged = metrics.filter(pl.col("val/AP").is_not_null())
        series = {
            c: (judged["epoch"].to_list(), judged[f"val/{c}"].to_list()) for c in ("AP50", "AP", "AP75")
        }
        result["Validation"] = plots.line_plot(series, "epoch", "AP")
    names = evaluation.truth.categories["name"].to_list()
    at_50 = evaluation.curves.precision[0, :, :, ALL]
    defined = {n: at_50[:, k] for k, n in enumerate(names) if evaluation.curves.truth_count[k, ALL]}
    result["Precision and recall at IoU 0.50"] = plots.precision_recall_plot(defined)
    thresholds = list(evaluation.ap_by_iou)
    by_iou = {"AP": (thresholds, list(evaluation.ap_by_iou.values()))}
    result["AP by IoU threshold"] = plots.line_plot(by_iou, "IoU threshold", "AP")
    boxes = evaluation.truth.boxes
    counts = {c["name"]: c["count"] for c in stats(evaluation.truth)["classes"]}
    result["Boxes by class"] = plots.count_plot(counts, "boxes")
    width, height, category = (boxes[c].to_numpy() for c in ("w", "h", "category_id"))
    result["Box sizes"] = plots.size_plot(width, height, category, names)
    return {title: Markup(svg) for title, svg in result.items()}


def _read_metrics(folder: Path) -> pl.DataFrame:
    path = folder / "metrics.parquet"
    if not path.is_file():
        return pl.DataFrame()
    try:
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path}: can't be read: {error}.") from error


def _read_facts(folder: Path) -> dict[str, Any]:
    path = folder / "environment.json"
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}.") from error


def _last(metrics: pl.DataFrame, column: str) -> float | None:
    values = metrics[column].drop_nulls() if column in metrics.columns else []
    return float(values[-1]) if len(values) else None
