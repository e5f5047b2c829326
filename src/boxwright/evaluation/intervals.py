"""How much of a number is chance: bootstrap over images, alone and paired.

Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13 and 16.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from boxwright.data.tables import Tables
from boxwright.errors import ConfigError
from boxwright.evaluation import coco
from boxwright.evaluation.evaluate import Evaluation
from boxwright.evaluation.kernels import accumulate_weighted
from boxwright.evaluation.matching import Matching, in_parts
from boxwright.evaluation.reading import Reading
from boxwright.progress import progress_bar


def all_intervals(
    evaluations: dict[str, Evaluation], judges: dict[str, Callable], resamples: int
) -> dict[str, list[Reading]]:
    """Intervals of COCO's numbers and each metric's, by the model; of several, of differences from the first.

    Args:
        evaluations: of one truth, by the model's name.
        judges: metrics by name, as `find_metric` gives them.
        resamples: draws.
    """
    (first, one), *others = evaluations.items()
    readings = {}
    for name, other in others or [(first, None)]:
        found = None if other is None else other.predictions
        mine = [intervals(one, other, resamples)]
        for metric, judge in judges.items():
            mine.append(intervals_of(judge, one.truth, one.predictions, found, resamples, title=metric))
        against = f": {name} against {first}" if others else ""
        readings[name] = [replace(reading, title=reading.title + against) for reading in mine]
    return readings


def intervals(
    evaluation: Evaluation,
    other: Evaluation | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Reading:
    """Percentile intervals of COCO's numbers and of each class's AP; with `other`, of the differences.

    Images are drawn with replacement; both models are judged on the same draws, so that what is hard for
    both cancels out. `p` is the two-sided share of draws in which the difference changes sides.

    Args:
        evaluation: what `evaluate` found, with the IoU grid, areas and limits that it was asked for.
        other: a second model's, of the same truth and options.
        resamples: draws.
        level: of the intervals.
        seed: of the draws.

    Raises:
        ConfigError: fewer than 10 resamples, or a level outside (0, 1).
    """
    _check(resamples, level)
    matchings = [e.matching for e in (evaluation, other) if e is not None]
    single = [name for name, _ in coco.single_thresholds(evaluation.matching.thresholds)]
    classes = [f"AP {row['name']}" for row in evaluation.per_class]
    names = ["AP", *single, "APs", "APm", "APl", "AR", *classes]
    rng = np.random.default_rng(seed)
    images = len(evaluation.truth.images)
    drawn = np.empty((len(matchings), resamples, len(names)))
    with progress_bar("resampling", resamples) as advance:
        for n in range(resamples):
            weights = rng.multinomial(images, np.full(images, 1 / images)).astype(np.float64)
            for m, matching in enumerate(matchings):
                drawn[m, n] = _numbers(matching, weights)
            advance(1)
    exact = np.stack([_numbers(m, np.ones(images)) for m in matchings])
    return _reading(names, exact, drawn, level, "COCO's numbers")


def intervals_of(
    metric: Callable[[Tables, Tables], Reading],
    truth: Tables,
    predictions: Tables,
    other: Tables | None = None,
    resamples: int = 200,
    level: float = 0.95,
    seed: int = 0,
    title: str = "numbers",
) -> Reading:
    """The same of every number of any metric: the images are truly drawn again."""
    _check(resamples, level)
    tables = [predictions] + ([] if other is None else [other])
    first = [metric(truth, t).numbers() for t in tables]
    names = [name for name, value in first[0].items() if value is not None]
    rng = np.random.default_rng(seed)
    drawn = np.full((len(tables), resamples, len(names)), np.nan)
    with progress_bar("resampling", resamples) as advance:
        for n in range(resamples):
            rows = rng.integers(0, len(truth.images), len(truth.images))
            sample = take_images(truth, rows)
            for m, table in enumerate(tables):
                numbers = metric(sample, take_images(table, rows)).numbers()
                drawn[m, n] = [np.nan if numbers.get(name) is None else numbers[name] for name in names]
            advance(1)
    exact = np.array([[np.nan if f.get(name) is None else f[name] for name in names] for f in first])
    return _reading(names, exact, drawn, level, title)


def take_images(tables: Tables, rows: np.ndarray) -> Tables:
    """The images at `rows`, as often as they stand there, with their boxes; ids are new."""
    image = tables.boxes["image_id"].to_numpy()
    order = np.argsort(image, kind="stable")
    start = np.searchsorted(image[order], rows, side="left")
    count = np.searchsorted(image[order], rows, side="right") - start
    inner = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    boxes = tables.boxes[order[np.repeat(start, count) + inner]]
    new = pl.Series(np.repeat(np.arange(len(rows)), count), dtype=pl.Int64)
    ids = pl.int_range(len(rows), dtype=pl.Int64, eager=True)
    images = tables.images[rows].with_columns(image_id=ids, source_id=ids)
    return Tables(images, boxes.with_columns(image_id=new), tables.categories)


def _check(resamples: int, level: float) -> None:
    if resamples < 10 or not 0 < level < 1:
        raise ConfigError(f"{resamples} resamples, level {level}; expected 10 or more, and 0 to 1.")


def _numbers(matching: Matching, weights: np.ndarray) -> np.ndarray:
    """COCO's numbers and the AP of each class, where image n counts `weights[n]` times."""
    _, areas, thresholds = matching.matches.shape
    categories = len(matching.starts) - 1
    gt_weight = weights[matching.gt_image]
    counts = np.stack(
        [
            np.bincount(matching.gt_category, gt_weight * ~matching.gt_ignored[a], categories)
            for a in range(areas)
        ],
        axis=1,
    )
    ap, recall = np.full((2, thresholds, categories, areas), np.nan)
    m, weight = matching, weights[matching.det_image]
    in_parts(
        m.starts,
        lambda first, last: accumulate_weighted(
            m.order, m.starts, weight, m.det_outside, m.candidate, m.matches, m.gt_ignored, counts,
            coco.RECALL_POINTS, first, last, ap, recall,
        ),
    )  # fmt: skip
    every = ap[:, :, coco.ALL]
    single = [every[t] for _, t in coco.single_thresholds(m.thresholds)]
    overall = [every, *single, *(ap[:, :, a] for a in (coco.SMALL, coco.MEDIUM, coco.LARGE))]
    values = [_mean(v) for v in (*overall, recall[:, :, coco.ALL])]
    return np.array([*values, *(_mean(every[:, k]) for k in range(categories))])


def _mean(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else np.nan


def _reading(names, exact: np.ndarray, drawn: np.ndarray, level: float, what: str) -> Reading:
    """`exact` (M, N) and `drawn` (M, R, N) of one or two models."""
    tail = 50 * (1 - level)
    rows: list[dict[str, Any]] = []
    for n, name in enumerate(names):
        if np.isnan(exact[:, n]).any():
            continue
        values = drawn[:, :, n]
        values = values[:, ~np.isnan(values).any(axis=0)]
        if values.shape[1] == 0:
            continue
        row: dict[str, Any] = {"number": name, "value": float(exact[0, n])}
        row["low"], row["high"] = (float(v) for v in np.percentile(values[0], [tail, 100 - tail]))
        if len(exact) == 2:
            gap = values[1] - values[0]
            # The exact difference counts as one draw, so that p is never 0.
            rarer = min(np.count_nonzero(gap <= 0), np.count_nonzero(gap >= 0)) + 1
            row |= {"other": float(exact[1, n]), "difference": float(exact[1, n] - exact[0, n])}
            low, high = np.percentile(gap, [tail, 100 - tail])
            row |= {"from": float(low), "to": float(high), "p": float(min(1, 2 * rarer / (len(gap) + 1)))}
        rows.append(row)
    notes = []
    if len(exact) == 2 and rows:
        chance = rows[0]["from"] <= 0 <= rows[0]["to"]
        notes.append(
            f"{rows[0]['number']} differs by {rows[0]['difference']:+.4f}: "
            + ("within what chance does on these images." if chance else "more than chance on these images.")
        )
    return Reading(
        title=f"{100 * level:g} % intervals of {what}, {drawn.shape[1]:,} bootstrap draws of images",
        overall={},
        rows=rows,
        notes=notes,
        source="Efron and Tibshirani, An Introduction to the Bootstrap, 1993",
    )
