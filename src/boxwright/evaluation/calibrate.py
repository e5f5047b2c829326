"""`boxwright.calibrate`: factors that make a detector's boxes right, fitted and cross-validated."""

import math
import os
from collections.abc import Callable

import numpy as np
import polars as pl

from boxwright.data.tables import Tables
from boxwright.errors import ConfigError, DataError
from boxwright.evaluation import coco
from boxwright.evaluation.bounds import average_precisions, moved
from boxwright.evaluation.calibration import GROUPS, Calibration, Correction, group_names, tempered
from boxwright.evaluation.confidence import confidence
from boxwright.evaluation.matching import match
from boxwright.evaluation.pairing import read_pair
from boxwright.evaluation.reading import Curves, mean
from boxwright.progress import progress_bar

FACTORS = np.round(np.arange(0.70, 1.31, 0.05), 4)
TURNS = np.radians(np.arange(-10.0, 10.1, 2.5))
TEMPERATURES = np.exp(np.linspace(math.log(0.25), math.log(4), 81))
FINER = 3  # rounds, each with a third of the step


def calibrate(
    truth: Tables | str | os.PathLike,
    predictions: Tables | str | os.PathLike,
    by: str = "class",
    folds: int = 5,
    iou_thresholds: np.ndarray = coco.IOU_THRESHOLDS,
    max_dets: int = 100,
    seed: int = 0,
) -> Calibration:
    """Fit factors of width and height, an offset of the angle, and a temperature of the scores.

    The factors maximise AP over `iou_thresholds`, the temperature minimises the surprise (negative log
    likelihood) of true and false at the least of them. The gain is measured on images the fit didn't see,
    fold by fold; the calibration itself is fitted on all. A group whose held-out AP isn't better is left as
    it is.

    Args:
        truth, predictions: tables or paths of a validation set, not of the test set.
        by: a fit for "all" boxes, or for each "class" or "source".
        folds: of the cross-validation, over images.
        iou_thresholds: the grid of AP.
        max_dets: detections an image and class.
        seed: of the folds.

    Raises:
        DataError: a file can't be read, or nothing was predicted.
        ConfigError: an unknown `by`, or more folds than images.

    Example:
        >>> boxwright.calibrate("val.parquet", "predictions.parquet").save("calibration.json")
    """
    truth, predictions = read_pair(truth, predictions)
    if not len(predictions.boxes):
        raise DataError("there are no predictions to calibrate by.")
    if by not in GROUPS:
        raise ConfigError(f"calibrate by '{by}', expected one of {', '.join(GROUPS)}.")
    if not 2 <= folds <= len(truth.images):
        raise ConfigError(f"{folds} folds of {len(truth.images)} images, expected 2 to {len(truth.images)}.")
    fold = np.random.default_rng(seed).permutation(np.arange(len(truth.images)) % folds)
    groups = sorted(set(group_names(predictions, by)))
    names = np.array(group_names(predictions, by), dtype=object)

    def objective(true: Tables, found: Tables) -> float:
        ap = average_precisions(true, found, max_dets, iou_thresholds)["AP"]
        return math.nan if ap is None else ap

    corrections: dict[str, Correction] = {}
    curves: dict[str, Curves] = {}
    held_out: dict[str, list[tuple[float, float]]] = {}
    with progress_bar("calibrating", len(groups) * (folds + 1)) as advance:
        for name in groups:
            true, found = _of_group(truth, predictions, by, name, names)
            for n in range(folds):
                seen, unseen = ([t.select_images(m) for t in (true, found)] for m in (fold != n, fold == n))
                correction = _fit(seen[0], seen[1], objective)
                scores = objective(*unseen), objective(unseen[0], _corrected(unseen[1], correction))
                held_out.setdefault(name, []).append(scores)
                advance(1)
            gain = mean(b - a for a, b in held_out[name]) or 0.0
            best = _fit(true, found, objective, curves, name)
            corrections[name] = best if gain > 0 else Correction()
            advance(1)
    least = float(iou_thresholds.min())
    temperature = _fit_temperature(truth, predictions, least)
    calibrated = Calibration(by, corrections, temperature).apply(predictions)
    pairs = [pair for name in groups for pair in held_out[name]]
    fitted = {
        "AP before": objective(truth, predictions),
        "AP after": objective(truth, calibrated),
        "held-out AP before": mean(before for before, _ in pairs),
        "held-out AP after": mean(after for _, after in pairs),
        "D-ECE before": confidence(truth, predictions, least).overall["D-ECE"],
        "D-ECE after": confidence(truth, calibrated, least).overall["D-ECE"],
    }
    return Calibration(by, corrections, temperature, fitted, curves)


def _fit(
    truth: Tables,
    found: Tables,
    objective: Callable[[Tables, Tables], float],
    curves: dict[str, Curves] | None = None,
    name: str = "",
) -> Correction:
    """Each parameter in turn over a grid about the best so far, then over finer ones."""
    if len(found.boxes) == 0 or len(truth.boxes) == 0:
        return Correction()
    oriented = not found.boxes["angle"].is_null().all()
    grids = {"w": FACTORS - 1, "h": FACTORS - 1} | ({"angle": TURNS} if oriented else {})
    start = {"w": 1.0, "h": 1.0, "angle": 0.0}
    best, values = objective(truth, found), dict(start)
    for n in range(FINER + 1):
        for key, grid in grids.items():
            # The first round covers the whole grid; a later one, a third of a step either side.
            steps = grid if n == 0 else np.array([-2, -1, 1, 2]) * (grid[1] - grid[0]) / 3**n
            tried = []
            origin = start[key] if n == 0 else values[key]
            for step in steps:
                candidate = values | {key: origin + float(step)}
                tried.append((candidate[key], objective(truth, _corrected(found, Correction(**candidate)))))
            if n == 0 and curves is not None:
                axis = "degrees" if key == "angle" else "factor"
                shown = [math.degrees(v) if key == "angle" else v for v, _ in tried]
                title = f"AP over {key}" + (f", {name}" if name else "")
                curves[title] = Curves(axis, "AP", {key: (shown, [ap for _, ap in tried])})
            top = max(tried, key=lambda pair: pair[1])
            if top[1] > best:
                best, values[key] = top[1], top[0]
    return Correction(**values)


def _corrected(tables: Tables, correction: Correction) -> Tables:
    return moved(tables, width=correction.w, height=correction.h, turn=correction.angle)


def _of_group(
    truth: Tables, predictions: Tables, by: str, name: str, names: np.ndarray
) -> tuple[Tables, Tables]:
    found = predictions.with_boxes(predictions.boxes.filter(pl.Series(names == name)))
    if by != "class":
        return truth, found
    of_class = pl.Series(np.array(group_names(truth, by), dtype=object) == name)
    return truth.with_boxes(truth.boxes.filter(of_class)), found


def _fit_temperature(truth: Tables, found: Tables, iou: float) -> float:
    matching = match(truth, found, np.array([iou]))
    (hit, false), score = matching.outcomes(), matching.det_score
    inner = (hit | false) & (score > 0) & (score < 1)
    true, score = hit[inner], score[inner]
    if len(score) == 0 or true.all() or not true.any():
        return 1.0

    def surprise(temperature: float) -> float:
        p = np.clip(tempered(score, temperature), 1e-12, 1 - 1e-12)
        return float(-np.mean(np.where(true, np.log(p), np.log1p(-p))))

    return float(min(TEMPERATURES, key=surprise))
