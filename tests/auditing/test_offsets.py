"""Labels that were given to frames before or after their own."""

import numpy as np
import polars as pl
import pytest

from boxwright.auditing.offsets import FARTHEST, frame_offsets
from boxwright.data.builder import pack
from boxwright.data.tables import BOX_SCHEMA, CATEGORY_SCHEMA, IMAGE_SCHEMA, Tables, frame

FRAMES = 30


def driving(speed, oriented=False, seed=0):
    """Two videos of vehicles that drive to the right, so many px a frame."""
    rng = np.random.default_rng(seed)
    boxes = []
    for video in range(2):
        starts = rng.random((6, 2)) * (200, 400)
        boxes += [
            (video * FRAMES + n, k % 2, x + speed * n, y, 40.0, 20.0, 0.1 if oriented else None)
            for n in range(FRAMES)
            for k, (x, y) in enumerate(starts)
        ]
    columns = dict(zip(("image_id", "category_id", *"xywh", "angle"), zip(*boxes)))
    names = [f"{video}/{n:03d}.png" for video in "ab" for n in range(FRAMES)]
    images = {"image_id": range(2 * FRAMES), "file_name": names, "width": [640] * len(names)}
    told = [pack({"video": name[0], "frame": int(name[2:5])}) for name in names]
    images |= {"height": [480] * len(names), "attributes": told}
    categories = {"category_id": [0, 1], "name": ["car", "van"]}
    tables = frame(IMAGE_SCHEMA, images), frame(BOX_SCHEMA, columns), frame(CATEGORY_SCHEMA, categories)
    return Tables(*tables)


def found_in(truth, seed=1):
    """What a detector finds: nearly all, a little off."""
    rng = np.random.default_rng(seed)
    noise = {n: pl.col(n) + pl.Series(rng.normal(0, 1, len(truth.boxes))) for n in "xy"}
    boxes = truth.boxes.with_columns(score=pl.lit(0.8), **noise)
    return truth.with_boxes(boxes.filter(pl.Series(rng.random(len(boxes)) < 0.95)))


def moved(truth, offset):
    """Labels of the second video given to frames so many before those they belong to."""
    second = pl.col("image_id") >= FRAMES
    boxes = truth.boxes.with_columns(pl.when(second).then(pl.col("image_id") - offset).otherwise("image_id"))
    within = ~pl.Series(truth.boxes["image_id"] >= FRAMES) | boxes["image_id"].is_between(
        FRAMES, 2 * FRAMES - 1
    )
    return truth.with_boxes(boxes.filter(within))


@pytest.mark.parametrize("oriented", [False, True])
@pytest.mark.parametrize("offset", [2, -1, FARTHEST])
def test_the_frame_where_labels_belong_is_found(offset, oriented):
    truth = driving(6.0, oriented)
    (row,) = frame_offsets(moved(truth, offset), found_in(truth))
    assert row["video"] == "b"
    assert row["offset"] == offset
    assert row["iou_there"] > row["iou"] + 0.1
    assert ("later" in row["told"]) == (offset > 0)


def test_labels_in_their_place_and_vehicles_that_stand_are_left_alone():
    for seed in range(5):
        truth = driving(6.0, seed=seed)
        assert frame_offsets(truth, found_in(truth, seed)) == []
        parked = driving(0.0, seed=seed)
        assert frame_offsets(moved(parked, 2), found_in(parked, seed)) == []
    empty = truth.select_images(np.zeros(2 * FRAMES, dtype=bool))
    assert frame_offsets(empty, found_in(empty)) == []
