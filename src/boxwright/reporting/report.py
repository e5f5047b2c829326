"""`boxwright.report`: a run folder to one self-contained HTML page."""

import json
import os
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from markupsafe import Markup

from boxwright.data import formats
from boxwright.data.confident import UNKNOWN, confident, thresholds_by_name
from boxwright.data.formats.files import write_atomic
from boxwright.data.statistics import stats
from boxwright.errors import DataError
from boxwright.evaluation.accuracy import accuracy
from boxwright.evaluation.coco import ALL
from boxwright.evaluation.confusion import confusion
from boxwright.evaluation.evaluate import Evaluation, evaluate
from boxwright.evaluation.landmarks import landmarks
from boxwright.evaluation.reading import Reading, by_category, last_of_equal
from boxwright.progress import WAITING
from boxwright.reporting import plots
from boxwright.reporting.examples import box_rows, pictures_of
from boxwright.reporting.page import Picture, environment

EXAMPLES = 24  # pictures of false positives, of misses, and of true positives
EXAMPLES_OF_CELL = 6
MATRIX = 20  # classes in the matrix
CELLS = 24  # of the matrix, the largest wrong ones, that have pictures
SCORE_POINTS = 120  # of a curve over scores
SCORE_PLOTS = 12  # classes


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
    points, found = in_use(evaluation), landmark_errors(evaluation)
    page = (
        environment()
        .get_template("report.html")
        .render(
            name=folder.resolve().name,
            version=version("boxwright"),
            evaluation=evaluation,
            beside=_beside(evaluation, found),
            statistics=stats(evaluation.truth),
            points=points,
            fitted=bool(thresholds_by_name(evaluation.predictions.categories)),
            score_curves=_score_curves(points),
            curves=_curves(evaluation, metrics, points) | _landmark_curves(found),
            confusion=_confusion(evaluation),
            galleries=examples(evaluation),
            config=(folder / "config.yaml").read_text(encoding="utf-8"),
            facts=_read_facts(folder),
            seconds=float(metrics["seconds"].to_numpy().max()) if len(metrics) else None,
            speed=_last(metrics, "images_per_second"),
            waiting=_last(metrics, "waiting"),
            much=WAITING,
            evaluations=int(metrics["val/AP"].is_not_null().sum()) if "val/AP" in metrics.columns else 0,
        )
    )
    target = folder / "report" / "index.html"
    write_atomic(target, page.encode())
    return target


def landmark_errors(evaluation: Evaluation) -> Reading | None:
    """How far found landmarks lie off, where truth and predictions have some."""
    pair = evaluation.truth, evaluation.predictions
    if all(tables.boxes["landmarks"].is_not_null().any() for tables in pair):
        return landmarks(*pair)
    return None


def _beside(evaluation: Evaluation, found: Reading | None) -> dict[str, float | None]:
    """What is shown beside AP, by its label."""
    numbers = {"NME of landmarks": found.overall["NME"]} if found else {}
    truth = evaluation.truth
    sizes = truth.images[truth.boxes["image_id"]].select("width", "height").to_numpy()
    counted = ~truth.boxes["ignore"] & ~truth.boxes["crowd"]
    whole = (truth.boxes.select("w", "h").to_numpy() == sizes).all()
    if len(sizes) == len(truth.images) and counted.any() and whole:
        numbers["accuracy"] = accuracy(truth, evaluation.predictions).overall["top-1"]
    return numbers


@dataclass(frozen=True)
class InUse:
    """A class at its operating threshold, and along all scores.

    Attributes:
        name: of the class.
        threshold, precision, recall, f1: where its scores are cut.
        scores, curves: (N,) and lines of precision, recall and F1 by name, at IoU 0.50.
    """

    name: str
    threshold: float
    precision: float
    recall: float
    f1: float
    scores: np.ndarray
    curves: dict[str, np.ndarray]


def in_use(evaluation: Evaluation) -> list[InUse]:
    """Every class that has truth and detections."""
    matching, counts = evaluation.matching, evaluation.matching.truth_counts(ALL)
    known = thresholds_by_name(evaluation.predictions.categories)
    hit, result = matching.outcomes()[0], []
    for k, dets in by_category(matching):
        name, score = evaluation.truth.categories["name"][k], matching.det_score[dets]
        if not counts[k] or not len(dets):
            continue
        last = last_of_equal(score)
        tp = np.cumsum(hit[dets])[last]
        curves = {
            "precision": tp / (last + 1),
            "recall": tp / counts[k],
            "F1": 2 * tp / (last + 1 + counts[k]),
        }
        threshold = known.get(name, UNKNOWN)
        place = int(np.searchsorted(-score[last], -threshold, side="right")) - 1
        p, r, f1 = (float(c[place]) if place >= 0 else 0.0 for c in curves.values())
        chosen = np.unique(np.linspace(0, len(last) - 1, SCORE_POINTS).astype(int))
        held = {what: curve[chosen] for what, curve in curves.items()}
        result.append(InUse(name, threshold, p, r, f1, score[last][chosen], held))
    return result


def examples(evaluation: Evaluation) -> dict[str, list[Picture]]:
    """Pictures at IoU 0.50: the false positives of greatest score, the largest misses (truth that no
    detection of its class matched), and true positives of every score that is used, lowest first.
    """
    matching, truth, predictions = evaluation.matching, evaluation.truth, evaluation.predictions
    right, wrong = map(np.flatnonzero, matching.outcomes())
    wrong = matching.det_row[wrong[np.argsort(-matching.det_score[wrong], kind="stable")]]
    lost = ~matching.gt_ignored[ALL]
    matched = matching.found()
    lost[matched[matched >= 0]] = False
    missed = matching.gt_row[np.flatnonzero(lost)]
    missed = missed[np.argsort(-truth.boxes["area"].to_numpy()[missed], kind="stable")]
    used = confident(predictions)
    right = right[used[matching.det_row[right]]]
    right = right[np.argsort(matching.det_score[right], kind="stable")]
    right = matching.det_row[right[np.linspace(0, len(right) - 1, min(len(right), EXAMPLES)).astype(int)]]
    rows = {
        "False positives of greatest score": box_rows(predictions, wrong),
        "Largest misses": box_rows(truth, missed),
        "True positives": box_rows(predictions, right),
    }
    return {title: pictures_of(truth, predictions, boxes, EXAMPLES) for title, boxes in rows.items()}


def _confusion(evaluation: Evaluation) -> dict[str, Any]:
    """The matrix of the most frequent classes, and pictures of its largest wrong cells."""
    found = confusion(evaluation.truth, evaluation.predictions)
    counts, last = found.counts, len(found.names) - 1
    busiest = np.argsort(-(counts[:last].sum(1) + counts[:, :last].sum(0)), kind="stable")[:MATRIX]
    shown = [*sorted(busiest.tolist()), last]
    wrong = [(r, c) for r in shown for c in shown if r != c and counts[r, c]]
    wrong.sort(key=lambda cell: -counts[cell])
    pictures = {}
    for r, c in wrong[:CELLS]:
        table = found.truth if c == last else found.predictions
        key = table.boxes["area" if c == last else "score"].to_numpy()[found.examples[r, c]]
        rows = box_rows(table, found.examples[r, c][np.argsort(-key, kind="stable")])
        pictures[f"{r}-{c}"] = pictures_of(found.truth, found.predictions, rows, EXAMPLES_OF_CELL)
    total = np.maximum(counts.sum(1, keepdims=True), 1)
    return {
        "names": [found.names[n] for n in shown],
        "rows": [
            [(f"{r}-{c}", int(counts[r, c]), float((counts / total)[r, c])) for c in shown] for r in shown
        ],
        "titles": {f"{r}-{c}": _cell_title(found.names, r, c) for r, c in wrong[:CELLS]},
        "pictures": pictures,
        "left_out": last - len(busiest),
    }


def _cell_title(names: list[str], row: int, column: int) -> str:
    last = len(names) - 1
    if column == last:
        return f"{names[row]} that was missed"
    if row == last:
        return f"{names[column]} where there is none"
    return f"{names[row]} taken for {names[column]}"


def _score_curves(points: list[InUse]) -> dict[str, Markup]:
    """Precision, recall and F1 over score of each of the first classes, the operating point marked."""
    result = {}
    for point in points[:SCORE_PLOTS]:
        series = {what: (point.scores, values) for what, values in point.curves.items()}
        at = zip(("precision", "recall", "F1"), (point.precision, point.recall, point.f1))
        marks = {what: (point.threshold, value) for what, value in at}
        result[point.name] = Markup(plots.line_plot(series, "score threshold", "", unit=True, marks=marks))
    return result


def _curves(evaluation: Evaluation, metrics: pl.DataFrame, points: list[InUse]) -> dict[str, Markup]:
    """Every plot of the page, by title."""
    result: dict[str, str] = {}
    losses = [c for c in metrics.columns if c.startswith("loss/")]
    if losses:
        logged = metrics.filter(pl.col(losses[0]).is_not_null())
        series = {c.removeprefix("loss/"): (logged["step"].to_list(), logged[c].to_list()) for c in losses}
        result["Losses"] = plots.line_plot(series, "step", "loss", log=True)
        rate = (logged["step"].to_list(), logged["learning_rate"].to_list())
        result["Learning rate"] = plots.line_plot({"learning rate": rate}, "step", "")
    if "val/AP" in metrics.columns:
        judged = metrics.filter(pl.col("val/AP").is_not_null())
        series = {
            c: (judged["epoch"].to_list(), judged[f"val/{c}"].to_list()) for c in ("AP50", "AP", "AP75")
        }
        result["Validation"] = plots.line_plot(series, "epoch", "AP")
    names = evaluation.truth.categories["name"].to_list()
    at_50 = evaluation.curves.precision[0, :, :, ALL]
    defined = {n: at_50[:, k] for k, n in enumerate(names) if evaluation.curves.truth_count[k, ALL]}
    result["Precision and recall at IoU 0.50"] = plots.precision_recall_plot(
        defined, {point.name: (point.recall, point.precision) for point in points}
    )
    thresholds = list(evaluation.ap_by_iou)
    by_iou = {"AP": (thresholds, list(evaluation.ap_by_iou.values()))}
    result["AP by IoU threshold"] = plots.line_plot(by_iou, "IoU threshold", "AP")
    boxes = evaluation.truth.boxes
    counts = {c["name"]: c["count"] for c in stats(evaluation.truth)["classes"]}
    result["Boxes by class"] = plots.count_plot(counts, "boxes")
    width, height, category = (boxes[c].to_numpy() for c in ("w", "h", "category_id"))
    result["Box sizes"] = plots.size_plot(width, height, category, names)
    return {title: Markup(svg) for title, svg in result.items()}


def _landmark_curves(found: Reading | None) -> dict[str, Markup]:
    curves = found.curves if found else {}
    return {f"Landmarks: {title.lower()}": Markup(plots.reading_plot(c)) for title, c in curves.items()}


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
