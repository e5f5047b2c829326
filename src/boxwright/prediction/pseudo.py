"""`boxwright.pseudo_label`: what a detector finds in images without labels, to learn from."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from boxwright.data import formats
from boxwright.data.confident import confident, thresholds_by_name, with_thresholds
from boxwright.data.naming import join_names
from boxwright.data.tables import Tables
from boxwright.errors import ConfigError
from boxwright.evaluation.matching import match
from boxwright.evaluation.pairing import align
from boxwright.evaluation.thresholds import threshold
from boxwright.prediction.predict import predict

IOU = 0.5  # from which a pseudo-label is right


@dataclass(frozen=True)
class PseudoLabels:
    """Boxes with scores, and thresholds from which they may be learnt.

    Attributes:
        tables: all that was found; categories know their thresholds, boxes where they come from.
        rows: of each class the threshold, certain and doubtful boxes, and where truth was given the share of
            certain ones that are right, and of the truth that they are.
    """

    tables: Tables
    rows: list[dict[str, Any]]


def pseudo_label(
    images: str | os.PathLike,
    checkpoint: str | os.PathLike,
    output: str | os.PathLike | None = None,
    precision: float | None = None,
    score: float | None = None,
    labelled: Tables | str | os.PathLike | None = None,
    truth: Tables | str | os.PathLike | None = None,
    **options: Any,
) -> PseudoLabels:
    """Find objects in images without labels, and say from which score each class can be learnt.

    A source with `role: pseudo` learns from the file: boxes at their class's threshold or above it are
    objects, doubtful ones are neither objects nor background.

    Args:
        images: a file or a folder.
        checkpoint: a run folder or a .safetensors file.
        output: .parquet, which keeps scores, sources and thresholds.
        precision: that certain boxes of each class had on the validation images of the run, a folder.
        score: the threshold of all classes. With neither the thresholds are the checkpoint's own.
        labelled: truth of images that are left out, as they need no pseudo-labels.
        truth: of these images, to see how many pseudo-labels are right; nothing is learnt from it.
        options: of `predict`.

    Raises:
        DataError, CheckpointError, ConfigError: as `predict`, or no threshold is known.

    Example:
        >>> boxwright.pseudo_label("unlabelled/", "runs/teacher", "pseudo.parquet", precision=0.9).rows
    """
    if precision is not None and score is not None:
        raise ConfigError("both a precision and a score are wanted; one threshold can't promise both.")
    if output is not None and Path(output).suffix != ".parquet":
        raise ConfigError(f"{output}: expected a .parquet, which keeps scores, sources and thresholds.")
    known = None if precision is None else _thresholds_of_run(Path(checkpoint), precision)
    found = predict(images, checkpoint, **options)
    if labelled is not None:
        found = _without(found, labelled if isinstance(labelled, Tables) else formats.read(labelled))
    names = found.categories["name"].to_list()
    if score is not None:
        known = dict.fromkeys(names, score)
    known = thresholds_by_name(found.categories) if known is None else known
    missing = [name for name in names if name not in known]
    if missing:
        raise ConfigError(f"no threshold is known for '{missing[0]}'; expected a score, or a precision.")
    found = replace(found, categories=with_thresholds(found.categories, known))
    if output is not None:
        formats.write(found, output)
    if truth is not None:
        truth = truth if isinstance(truth, Tables) else formats.read(truth)
    return PseudoLabels(found, _rows(found, known, truth))


def _thresholds_of_run(folder: Path, precision: float) -> dict[str, float]:
    """The lowest thresholds that had a precision on a run's validation images.

    Raises:
        ConfigError: they aren't there, or a class never had it.
    """
    paths = [folder / "truth.parquet", folder / "predictions.parquet"]
    if not all(path.is_file() for path in paths):
        raise ConfigError(
            f"{folder}: a precision wants a finished run, with truth.parquet and predictions.parquet."
        )
    rows = threshold(*paths, precision=precision, iou=IOU).rows
    never = [row["class"] for row in rows if row["threshold"] is None]
    if never:
        raise ConfigError(f"'{never[0]}' never has a precision of {precision:g} in {folder}; expected less.")
    return {row["class"]: row["threshold"] for row in rows}


def _without(found: Tables, labelled: Tables) -> Tables:
    """What was found in other images than those labelled."""
    place = join_names(labelled.images["file_name"].to_list(), found.images["file_name"].to_list())
    return found.select_images(np.array(place) < 0)


def _rows(found: Tables, known: dict[str, float], truth: Tables | None) -> list[dict[str, Any]]:
    certain = confident(found)
    category = found.boxes["category_id"].to_numpy()
    rows: list[dict[str, Any]] = []
    for k, name in enumerate(found.categories["name"]):
        mine = category == k
        counts = {"certain": int((certain & mine).sum()), "below": int((~certain & mine).sum())}
        rows.append({"class": name, "threshold": known[name], **counts})
    if truth is None:
        return rows
    place = join_names(found.images["file_name"].to_list(), truth.images["file_name"].to_list())
    truth = truth.select_images(np.array(place) >= 0)
    kept = found.with_boxes(found.boxes.filter(pl.Series(certain, dtype=pl.Boolean)))
    matching = match(truth, align(truth, kept), np.array([IOU]))
    true, false = matching.outcomes()
    counts = dict(zip(truth.categories["name"], matching.truth_counts()))
    of_name = {name: n for n, name in enumerate(truth.categories["name"])}
    for row in rows:
        mine = matching.det_category == of_name.get(row["class"], -1)
        right, wrong = int(true[mine].sum()), int(false[mine].sum())
        there = int(counts.get(row["class"], 0))
        row["right"] = right / (right + wrong) if right + wrong else None
        row["of the truth"] = right / there if there else None
    return rows
