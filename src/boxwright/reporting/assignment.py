"""A picture of which anchors or points are assigned to which box."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from boxwright.data.tables import Tables
from boxwright.reporting.gallery import PALETTE, draw_box, draw_label, open_tile, save_picture

MISSING = "#D55E00"  # a box without an assigned prior
IGNORED = "#999999"
SIDE = 960  # px, longest side of the picture
DOT = 3  # px, radius of a point
COLORS = tuple(color for color in PALETTE if color not in (MISSING, IGNORED))


@dataclass(frozen=True)
class Assigned:
    """One image's boxes and priors, xyxy in its own pixels.

    Attributes:
        boxes: (G, 4).
        labels: (G,) categories.
        priors: (K, 4) those assigned to the box; points have no area.
        matched: (K,) the box of each.
        ignored: (G,) bool, regions that don't count.
    """

    boxes: np.ndarray
    labels: np.ndarray
    priors: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray


def draw_assignment(tables: Tables, image_id: int, assigned: Assigned) -> Image.Image:
    """The image, each box in a colour of its own with the anchors or points assigned to it.

    Raises:
        DataError: the image can't be read.
    """
    picture, factor = open_tile(tables, image_id, SIDE)
    enlarged = max(1, SIDE // max(picture.size))  # a small image's points would lie upon each other
    picture, factor = picture.resize((picture.width * enlarged, picture.height * enlarged)), factor * enlarged
    draw = ImageDraw.Draw(picture)
    names = tables.categories["name"].to_list()
    for prior, box in zip(assigned.priors * factor, assigned.matched):
        color = COLORS[box % len(COLORS)]
        if (prior[2:] > prior[:2]).all():
            draw_box(draw, _corners(prior), color, 1)
        else:
            x, y = prior[:2]
            draw.ellipse([x - DOT, y - DOT, x + DOT, y + DOT], fill=color, outline="white")
    counts = np.bincount(assigned.matched, minlength=len(assigned.boxes))
    for n, box in enumerate(assigned.boxes * factor):
        lost = counts[n] == 0 and not assigned.ignored[n]
        color = IGNORED if assigned.ignored[n] else MISSING if lost else COLORS[n % len(COLORS)]
        draw_box(draw, _corners(box), color, 3, dashed=bool(assigned.ignored[n]))
        told = "ignored" if assigned.ignored[n] else "none" if lost else f"{counts[n]}"
        draw_label(draw, _corners(box), f"{names[assigned.labels[n]]}: {told}", color)
    return picture


def save_assignments(pictures: list[Image.Image], output: str | os.PathLike) -> Path:
    """The pictures below each other in one file, .png or .jpg.

    Raises:
        DataError: the suffix is of no picture.
    """
    sheet = Image.new("RGB", (max(p.width for p in pictures), sum(p.height + 4 for p in pictures)), "white")
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height + 4
    return save_picture(sheet, output)


def _corners(box: np.ndarray) -> np.ndarray:
    x1, y1, x2, y2 = box
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
