"""Pictures of single boxes in their surroundings: what is right and what is wrong."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl
from PIL import Image, ImageDraw

from boxwright.data.confident import confident
from boxwright.data.tables import Tables
from boxwright.errors import DataError
from boxwright.geometry.conventions import respell
from boxwright.geometry.iou import pairwise_iou
from boxwright.reporting.gallery import (
    corners_of,
    draw_box,
    draw_label,
    draw_landmarks,
    open_tile,
    to_data_uri,
)
from boxwright.reporting.page import Picture

TRUTH, FOUND, WRONG = "#009E73", "#56B4E9", "#D55E00"
CANDIDATES = 200  # of the worst, among which images are varied
LEAST_REACH = 120.0  # px of the tile around a box's centre


def pictures_of(
    truth: Tables, predictions: Tables, rows: Iterable[dict[str, Any]], count: int
) -> list[Picture]:
    """Crops around boxes, one an image at first, so that one bad image doesn't fill the page.

    Args:
        truth, predictions: aligned tables; both are drawn around the box in question.
        rows: boxes of either table, worst first.
        count: pictures at most.
    """
    rows = [row for row, _ in zip(rows, range(CANDIDATES))]
    seen: set[int] = set()
    fresh = [n for n, r in enumerate(rows) if not (r["image_id"] in seen or seen.add(r["image_id"]))]
    order = fresh + [n for n in range(len(rows)) if n not in set(fresh)]
    names = truth.categories["name"].to_list()
    shown = predictions.with_boxes(predictions.boxes.filter(confident(predictions)))
    pictures = []
    for row in (rows[n] for n in order[:count]):
        name = names[row["category_id"]]
        title = name if row["score"] is None else f"{name}, score {row['score']:.2f}"
        try:
            source = to_data_uri(_draw(truth, shown, row, title))
        except DataError:
            # The images have moved since; the text says more than an empty frame.
            source = None
        image = truth.images["file_name"][row["image_id"]] or f"image {row['image_id']}"
        keys = _keys(row, truth if row["score"] is not None else predictions)
        off = f", {keys['angle error']:.0f}° off" if "angle error" in keys else ""
        detail = f"{row['w']:.0f} x {row['h']:.0f} px{off}, {image}"
        pictures.append(Picture(source, title, detail, keys))
    return pictures


def _keys(row: dict[str, Any], others: Tables) -> dict[str, float]:
    """What a gallery may be sorted by: size in px, aspect ratio, and the angle in degrees to the box of the
    other table that overlaps this one most.
    """
    long, short = max(row["w"], row["h"]), min(row["w"], row["h"])
    keys = {
        "size": round(math.sqrt(row["w"] * row["h"]), 2),
        "aspect ratio": round(long / max(short, 1e-9), 3),
    }
    if row["angle"] is None:
        return keys
    same = (pl.col("image_id") == row["image_id"]) & (pl.col("category_id") == row["category_id"])
    near = others.with_boxes(others.boxes.filter(same & pl.col("angle").is_not_null())).rotated()
    own = np.array([[row["x"] + row["w"] / 2, row["y"] + row["h"] / 2, row["w"], row["h"], row["angle"]]])
    iou = pairwise_iou(own, near)[0]
    if len(iou) and iou.max() > 0:
        turn = respell(own)[0, 4] - respell(near[iou.argmax()][None])[0, 4]
        keys["angle error"] = round(abs(math.degrees((turn + math.pi / 2) % math.pi - math.pi / 2)), 2)
    return keys


def box_rows(tables: Tables, rows: np.ndarray) -> list[dict[str, Any]]:
    """Rows of the box table as dicts, the first `CANDIDATES`."""
    return tables.boxes[rows[:CANDIDATES].tolist()].to_dicts() if len(rows) else []


def _draw(truth: Tables, predictions: Tables, row: dict, title: str) -> Image.Image:
    """The image with its truth, confident detections, and the box in question, cut to its surroundings."""
    picture, factor = open_tile(truth, row["image_id"])
    draw = ImageDraw.Draw(picture)
    here = pl.col("image_id") == row["image_id"]
    for other in predictions.boxes.filter(here).iter_rows(named=True):
        draw_box(draw, corners_of(other) * factor, FOUND, 1, ahead=other["angle"] is not None)
        draw_landmarks(draw, other["landmarks"], factor)
    for other in truth.boxes.filter(here).iter_rows(named=True):
        dashed, oriented = other["crowd"] or other["ignore"], other["angle"] is not None
        draw_box(draw, corners_of(other) * factor, TRUTH, 1, dashed, oriented)
    corners = corners_of(row) * factor
    draw_box(draw, corners, WRONG, 3, ahead=row["angle"] is not None)
    draw_label(draw, corners, title.replace(", score", ""), WRONG)
    low, high = corners.min(axis=0), corners.max(axis=0)
    reach = max(LEAST_REACH, float((high - low).max()) * 1.5)
    center = (low + high) / 2
    box = np.concatenate([center - reach, center + reach])
    box = np.clip(box, 0, [*picture.size, *picture.size]).round().astype(int)
    return picture.crop(tuple(box.tolist()))
