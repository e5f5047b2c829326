"""Crops beside the places of the image that they should show."""

import math

import numpy as np
import polars as pl
import pytest
from PIL import Image

from boxwright.data.builder import TableBuilder
from boxwright.data.crops import MARGIN, SIDE, cut_crops

WIDTH, HEIGHT = 240, 200


@pytest.fixture
def slopes(tmp_path):
    """A picture whose red tells x and whose green tells y, of pixels' middles."""
    x, y = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    Image.fromarray(np.stack([x, y, 0 * x], axis=2).round().astype(np.uint8)).save(tmp_path / "a.png")
    return str(tmp_path / "a.png")


def tables_of(path, boxes):
    builder = TableBuilder("crops", "radians", headings=True)
    builder.category("thing")
    builder.image("a.png", path, WIDTH, HEIGHT)
    builder.image("gone.png", str(path) + ".gone", WIDTH, HEIGHT)
    for image, cx, cy, w, h, angle in boxes:
        builder.box(("box", image), image, 0, (cx, cy, w, h, angle))
    return builder.build()


@pytest.mark.parametrize("angle", [0.0, 0.7, math.pi / 2, -3.0])
@pytest.mark.parametrize("side", [20.0, 110.0])
def test_each_pixel_shows_its_place(slopes, angle, side):
    tables = tables_of(slopes, [(0, 121.3, 99.6, side, side / 2, angle)])
    rows, crops = cut_crops(tables, np.array([0]))
    assert rows.tolist() == [0]
    # From the middle of the crop along the heading and to its right.
    own = ((np.arange(SIDE) + 0.5) / SIDE - 0.5) * MARGIN * side
    ahead, right = np.meshgrid(own, own)
    x = 121.3 + ahead * math.cos(angle) - right * math.sin(angle)
    y = 99.6 + ahead * math.sin(angle) + right * math.cos(angle)
    inside = (x > 2) & (x < WIDTH - 2) & (y > 2) & (y < HEIGHT - 2)
    assert inside.mean() > 0.9
    # Half a grey value of the picture's rounding, and what is left of a pixel where it is shrunk.
    assert np.abs(crops[0, ..., 0] - x)[inside].max() < 1.6
    assert np.abs(crops[0, ..., 1] - y)[inside].max() < 1.6


def test_beyond_the_image_is_grey_and_unreadable_images_are_left_out(slopes):
    tables = tables_of(slopes, [(1, 50, 50, 20, 20, 0), (0, 0, 0, 40, 40, 0), (0, 900, 900, 40, 40, 0)])
    told = []
    rows, crops = cut_crops(tables, np.array([0, 1, 2]), told.append)
    assert rows.tolist() == [1, 2]
    assert sum(told) == 3
    assert (crops[0, : SIDE // 2 - 3, : SIDE // 2 - 3] == 114).all()
    assert (crops[1] == 114).all()


def test_images_without_a_file(slopes):
    tables = tables_of(slopes, [(0, 50, 50, 20, 20, 0)])
    unknown = tables.images.with_columns(path=pl.lit(None, dtype=pl.String))
    rows, crops = cut_crops(type(tables)(unknown, tables.boxes, tables.categories), np.array([0]))
    assert len(rows) == len(crops) == 0
