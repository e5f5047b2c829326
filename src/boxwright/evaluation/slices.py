"""Where a detector is good and where it isn't: one match, cut by any property of boxes and images."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from boxwright.data.builder import unpack
from boxwright.data.tables import Tables
from boxwright.errors import ConfigError
from boxwright.evaluation.average_precision import average_precision
from boxwright.evaluation.matching import match
from boxwright.evaluation.reading import Reading, mean

SIZE_EDGES = np.array([16.0, 32.0, 64.0, 96.0, 192.0]) ** 2  # px^2
ASPECT_EDGES = np.array([1 / 3, 1 / 2, 0.8, 1.25, 2.0, 3.0])  # w / h
DENSITY_EDGES = np.array([2, 6, 11, 21, 51])  # boxes in the image
ABSENT = "(none)"


@dataclass(frozen=True)
class Slices:
    """The table, and what stands behind each cell.

    Attributes:
        reading: AP, TP, FP, FN and count of truth by slice.
        examples: slice and cell ("TP", "FP", "FN") to rows of the box tables: of the predictions for TP and
            FP by descending score, of the truth for FN by descending area.
    """

    reading: Reading
    examples: dict[tuple[str, str], np.ndarray]


def slices(truth: Tables, predictions: Tables, by: str = "size", iou: float = 0.5) -> Slices:
    """AP, TP, FP and FN of each slice.

    A truth belongs to the slice of its own value, a true positive to that of its truth, a false positive to
    its own. Truth of other slices, and what found it, doesn't count in a slice's AP.

    Args:
        truth, predictions: aligned tables.
        by: "size" (of the side, in pixels), "aspect" (w / h), "position" (of the centre, in thirds of the
            image), "source", "density" (objects in the image), "image:KEY" or "box:KEY" (an attribute).
        iou: from which a detection is true.

    Raises:
        ConfigError: a property there is none of.
    """
    names, gt_slice, det_slice = slices_of(truth, predictions, by)
    matching = match(truth, predictions, np.array([iou]))
    hit, false = matching.outcomes()
    found = matching.found()
    gt_of, det_of = gt_slice[matching.gt_row], det_slice[matching.det_row].copy()
    det_of[hit] = gt_of[found[hit]]
    counted = ~matching.gt_ignored[0]
    lost = counted.copy()
    lost[found[hit]] = False
    area = truth.boxes["area"].to_numpy()[matching.gt_row]
    rows, examples = [], {}
    for s, name in enumerate(names):
        aps = []
        for k in range(len(truth.categories)):
            dets = matching.order[matching.starts[k] : matching.starts[k + 1]]
            dets = dets[(hit | false)[dets] & (det_of[dets] == s)]
            aps.append(
                average_precision(
                    hit[dets], int((counted & (gt_of == s) & (matching.gt_category == k)).sum())
                )
            )
        cells = {"TP": hit & (det_of == s), "FP": false & (det_of == s)}
        for cell, flags in cells.items():
            at = np.flatnonzero(flags)
            examples[name, cell] = matching.det_row[at[np.argsort(-matching.det_score[at], kind="stable")]]
        at = np.flatnonzero(lost & (gt_of == s))
        examples[name, "FN"] = matching.gt_row[at[np.argsort(-area[at], kind="stable")]]
        row: dict[str, Any] = {by: name, "AP": mean(aps)}
        row |= {cell: len(examples[name, cell]) for cell in ("TP", "FP", "FN")}
        row["truth"] = int((counted & (gt_of == s)).sum())
        if row["truth"] or row["FP"]:
            rows.append(row)
    notes = []
    if by.startswith("box:") and ABSENT in names and (det_slice == names.index(ABSENT)).any():
        notes.append(f"predictions don't carry '{by[4:]}': their false positives stand under {ABSENT}.")
    reading = Reading(
        title=f"By {by}, IoU {iou:g}",
        overall={"worst AP": min((r["AP"] for r in rows if r["AP"] is not None), default=None)},
        rows=rows,
        notes=notes,
        beside="AP",
    )
    return Slices(reading, examples)


def size_names() -> list[str]:
    """Names of the slices by size."""
    return _bin_names(np.sqrt(SIZE_EDGES), " px")


def slices_of(truth: Tables, predictions: Tables, by: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names of the slices, and the slice of each row of both box tables.

    Raises:
        ConfigError: nothing is known by that name, or no box has it.
    """
    numeric: dict[str, tuple[Callable[[Tables], np.ndarray], np.ndarray, list[str]]] = {
        "size": (lambda t: t.boxes["w"].to_numpy() * t.boxes["h"].to_numpy(), SIZE_EDGES, size_names()),
        "aspect": (_aspect, ASPECT_EDGES, _bin_names(ASPECT_EDGES, "")),
        "density": (lambda t: _density(truth, t), DENSITY_EDGES, _bin_names(DENSITY_EDGES, " objects")),
    }
    if by in numeric:
        values, edges, names = numeric[by]
        return names, np.digitize(values(truth), edges), np.digitize(values(predictions), edges)
    if by == "position":
        names = [f"{v} {h}" for v in ("top", "middle", "bottom") for h in ("left", "centre", "right")]
        return names, _position(truth, truth), _position(truth, predictions)
    if by == "source":
        own = truth.boxes["source"].fill_null(ABSENT).to_list()
        labels = own, _source_of_images(truth, predictions)
    elif by.startswith("image:"):
        values = _attribute(truth.images, by[6:])
        labels = tuple([values[i] for i in t.boxes["image_id"]] for t in (truth, predictions))
    elif by.startswith("box:"):
        labels = _attribute(truth.boxes, by[4:]), _attribute(predictions.boxes, by[4:])
    else:
        known = (*numeric, "position", "source", "image:KEY", "box:KEY")
        raise ConfigError(f"slices by '{by}', expected one of {', '.join(known)}.")
    if all(label == ABSENT for label in labels[0]):
        raise ConfigError(f"no truth has a value for '{by}'.")
    names = sorted({str(v) for part in labels for v in part})
    place = {name: n for n, name in enumerate(names)}
    of_truth, of_found = (np.array([place[str(v)] for v in part], dtype=np.int64) for part in labels)
    return names, of_truth, of_found


def _bin_names(edges: np.ndarray, unit: str) -> list[str]:
    text = [f"{e:.3g}" for e in edges]
    return [
        f"< {text[0]}{unit}",
        *(f"{a} to {b}{unit}" for a, b in pairwise(text)),
        f">= {text[-1]}{unit}",
    ]


def _aspect(tables: Tables) -> np.ndarray:
    return tables.boxes["w"].to_numpy() / np.maximum(tables.boxes["h"].to_numpy(), 1e-9)


def _density(truth: Tables, tables: Tables) -> np.ndarray:
    boxes = truth.boxes.filter(~(pl.col("crowd") | pl.col("ignore")))
    count = np.bincount(boxes["image_id"].to_numpy(), minlength=len(truth.images))
    return count[tables.boxes["image_id"].to_numpy()]


def _position(truth: Tables, tables: Tables) -> np.ndarray:
    if truth.images.select("width", "height").null_count().sum_horizontal().item():
        raise ConfigError("slices by position need the size of every image; some are unknown.")
    image = tables.boxes["image_id"].to_numpy()
    third = []
    for corner, side, extent in (("y", "h", "height"), ("x", "w", "width")):
        middle = tables.boxes[corner].to_numpy() + tables.boxes[side].to_numpy() / 2
        third.append(np.clip(3 * middle / truth.images[extent].to_numpy()[image], 0, 2).astype(np.int64))
    return 3 * third[0] + third[1]


def _source_of_images(truth: Tables, predictions: Tables) -> list[str]:
    """The truth's source of each prediction's image: a prediction's own is its model."""
    first = truth.boxes.unique("image_id", keep="first")
    source = dict(zip(first["image_id"], first["source"].fill_null(ABSENT)))
    return [source.get(i, ABSENT) for i in predictions.boxes["image_id"]]


def _attribute(table: pl.DataFrame, key: str) -> list[Any]:
    return [unpack(text).get(key, ABSENT) for text in table["attributes"]]
