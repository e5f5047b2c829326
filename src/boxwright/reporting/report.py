"""`boxwright.report`: a run folder to one self-contained HTML page."""

import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from markupsafe import Markup

from boxwright.data import formats
from boxwright.data.formats.files import write_atomic
from boxwright.data.statistics import stats
from boxwright.errors import DataError
from boxwright.evaluation.coco import ALL
from boxwright.evaluation.evaluate import Evaluation, evaluate
from boxwright.reporting import plots
from boxwright.reporting.examples import box_rows, pictures_of
from boxwright.reporting.page import Picture, environment

EXAMPLES = 24  # pictures of false positives, and of misses


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
    false_positives, misses = worst_examples(evaluation)
    page = (
        environment()
        .get_template("report.html")
        .render(
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
    )
    target = folder / "report" / "index.html"
    write_atomic(target, page.encode())
    return target


def worst_examples(evaluation: Evaluation) -> tuple[list[Picture], list[Picture]]:
    """Pictures of the false positives of greatest score, and of the largest truth that wasn't found.

    Both at IoU 0.50; a miss is truth that no detection of its class matched.
    """
    matching, truth, predictions = evaluation.matching, evaluation.truth, evaluation.predictions
    wrong = np.flatnonzero(matching.outcomes()[1])
    wrong = matching.det_row[wrong[np.argsort(-matching.det_score[wrong], kind="stable")]]
    lost = ~matching.gt_ignored[ALL]
    matched = matching.found()
    lost[matched[matched >= 0]] = False
    missed = matching.gt_row[np.flatnonzero(lost)]
    missed = missed[np.argsort(-truth.boxes["area"].to_numpy()[missed], kind="stable")]
    return (
        pictures_of(truth, predictions, box_rows(predictions, wrong), EXAMPLES),
        pictures_of(truth, predictions, box_rows(truth, missed), EXAMPLES),
    )


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
