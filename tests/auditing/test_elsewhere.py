"""Labels of places, carried from image to image, beside where the camera put them."""

import math
import re

import cv2
import numpy as np
import polars as pl
import pytest

from boxwright.auditing import elsewhere
from boxwright.auditing.elsewhere import ELSEWHERE_NUMBERS, Elsewhere, shown_elsewhere
from boxwright.auditing.evidence import Evidence
from boxwright.auditing.planting import corrupt
from boxwright.auditing.scoring import score_audit
from boxwright.auditing.suspicions import suspect
from boxwright.data.tables import BOX_SCHEMA, CATEGORY_SCHEMA, IMAGE_SCHEMA, Tables, frame
from tests.auditing.test_overlaps import SIZE, ground, piece, saved


def camera(x, y, turned=0.0, scale=1.0):
    """(2, 3) from a place to `piece` of it."""
    move = cv2.getRotationMatrix2D((float(x), float(y)), -turned, scale)
    move[:, 2] += np.array(SIZE) / 2 - (x, y)
    return move


def seen_by(move, boxes):
    """Boxes (N, 5) of a place as they lie in a picture."""
    boxes = np.array(boxes, dtype=float)
    boxes[:, :2] = boxes[:, :2] @ move[:, :2].T + move[:, 2]
    boxes[:, 2:4] *= math.hypot(move[0, 0], move[1, 0])
    boxes[:, 4] += math.atan2(move[1, 0], move[0, 0])
    return boxes


def labelled(paths, boxes, categories, oriented=True):
    """Tables of images with boxes (N, 5) and categories (N,) each."""
    rows = np.concatenate(boxes)
    x, y = rows[:, 0] - rows[:, 2] / 2, rows[:, 1] - rows[:, 3] / 2
    image = np.repeat(np.arange(len(paths)), [len(own) for own in boxes])
    columns = {"image_id": image, "category_id": np.concatenate(categories).astype(np.int32), "x": x, "y": y}
    columns |= {"w": rows[:, 2], "h": rows[:, 3], "area": rows[:, 2] * rows[:, 3]}
    if oriented:
        columns["angle"] = rows[:, 4]
    names = {"file_name": [f"{n}.png" for n in range(len(paths))], "path": paths}
    sizes = {"width": [SIZE[0]] * len(paths), "height": [SIZE[1]] * len(paths)}
    images = frame(IMAGE_SCHEMA, {"image_id": range(len(paths))} | names | sizes)
    categories = frame(CATEGORY_SCHEMA, {"category_id": [0, 1], "name": ["car", "van"]})
    return Tables(images, frame(BOX_SCHEMA, columns), categories)


def told(seen, tables, labels=None):
    rows, none = np.arange(len(tables.boxes)), np.full(len(tables.boxes), -1)
    before = Evidence(rows, np.zeros((len(rows), 2)), none, none)
    found = seen.beside(before, tables, tables if labels is None else labels)
    counts = shown_elsewhere(found, 2)
    return dict(zip(ELSEWHERE_NUMBERS, found.numbers[:, 2:].T)) | {"counts": counts.tolist()}


CAMERAS = [(430, 450), (470, 440, 25.0, 1.1), (450, 470, -70.0, 0.9)]
CARS = np.array([[440, 430, 30, 16, 0.3], [480, 470, 24, 14, 1.2]])


def views(folder, kept=((0, 1),) * 3, categories=((0, 1),) * 3, cameras=CAMERAS):
    """Pictures of one place and one of another, and the cars that are labelled in each."""
    place = ground(0)
    paths = saved(folder, [*(piece(place, *c) for c in cameras), piece(ground(1), 450, 450)])
    boxes = [seen_by(camera(*c), CARS)[list(own)] for c, own in zip(cameras, kept)]
    classes = [np.array(own)[list(rows)] for own, rows in zip(categories, kept)]
    alone = np.array([[100.0, 100, 30, 16, 0]])
    return labelled(paths, [*boxes, alone], [*classes, [0]])


@pytest.mark.parametrize(("together", "held"), [(2000, 1000), (3, 1000), (2000, 5)])
def test_labels_of_a_place_lie_where_the_camera_puts_them(tmp_path, monkeypatch, together, held):
    monkeypatch.setattr(elsewhere, "TOGETHER", together)
    monkeypatch.setattr(elsewhere, "HELD", held)
    tables = views(tmp_path)
    found = told(Elsewhere(tables), tables)
    assert found["counts"] == [[2, 2]] * 6 + [[0, 0]]
    assert (found["same"][:6] > 0.8).all()
    assert (found["other"][:6] == 0).all()
    assert (found["far"][:6] < 0.1).all()
    assert (found["grown"][:6] < 0.1).all()
    assert (found["angle"][:6] < 0.05).all()
    assert all(np.isnan(found[name][6]) for name in ELSEWHERE_NUMBERS[1:])


def test_what_is_left_out_moved_or_renamed_in_one_image_shows_in_the_others(tmp_path):
    tables = views(tmp_path, kept=((0, 1), (0,), (0, 1)), categories=((1, 1), (0, 1), (0, 1)))
    boxes = tables.boxes.with_columns(
        w=pl.when(pl.int_range(pl.len()) == 3).then(pl.col("w") * 1.5).otherwise("w")
    )
    tables = tables.with_boxes(boxes)  # the first car of the third image
    found = told(Elsewhere(tables), tables)
    assert found["counts"][:5] == [[2, 2], [2, 1], [2, 2], [2, 2], [2, 1]]
    assert found["same"][0] == 0 < 0.5 < found["other"][0]  # a van in this one alone
    assert found["grown"][3] == pytest.approx(math.log(1.5), abs=0.1)
    whole = views(tmp_path)
    missing = told(Elsewhere(whole), whole, tables)  # as predictions, of labels with faults
    assert missing["counts"][3] == [2, 2]  # the second car of the second image: both others label it


@pytest.mark.parametrize("oriented", [False, True])
def test_quarter_turns_of_upright_boxes_swap_their_sides(tmp_path, oriented):
    cars = np.array([[440, 430, 30, 16, 0.0]])
    cameras = [(430, 450), (450, 440, 90.0)]
    paths = saved(tmp_path, [piece(ground(0), *c) for c in cameras])
    boxes = [seen_by(camera(*c), cars) for c in cameras]
    if not oriented:
        boxes[1][0, 2:] = [16, 30, 0]
    tables = labelled(paths, boxes, [[0], [0]], oriented)
    found = told(Elsewhere(tables), tables)
    assert (found["same"] > 0.8).all()
    assert (found["angle"] < 0.05).all()
    assert (found["grown"] < 0.1).all()


def test_headings_count_where_labels_have_them(tmp_path):
    tables = views(tmp_path)
    turned = tables.boxes.with_columns(
        angle=pl.when(pl.int_range(pl.len()) == 0).then(pl.col("angle") - math.pi).otherwise("angle")
    )
    backwards = tables.with_boxes(turned)
    assert backwards.has_headings()
    found = told(Elsewhere(backwards), backwards)
    assert found["heading"][0] == pytest.approx(math.pi, abs=0.1)
    assert found["angle"][0] < 0.05


def test_what_another_image_cuts_is_not_shown_there(tmp_path):
    cameras = [(430, 450), (590, 450)]  # the first car lies at the border of the second image
    tables = views(tmp_path, kept=((0, 1), (1,)), categories=((0, 1),) * 2, cameras=cameras)
    found = told(Elsewhere(tables), tables)
    assert found["counts"][:2] == [[0, 0], [1, 1]]


def test_without_pictures_nothing_is_shown(tmp_path):
    tables = views(tmp_path)
    steps = []
    images = tables.images.with_columns(path=pl.lit(None, dtype=pl.String))
    unknown = Tables(images, tables.boxes, tables.categories)
    found = told(Elsewhere(unknown, steps.append), unknown)
    assert sum(steps) == len(unknown.images)
    assert found["counts"] == [[0, 0]] * 7
    assert not len(told(Elsewhere(unknown), unknown.with_boxes(unknown.boxes.clear()))["same"])


@pytest.mark.parametrize("overlapping", [True, False])
def test_what_is_labelled_in_no_image_of_a_place_isnt_missing(overlapping, tmp_path):
    """Windows look like cars to a detector, and nobody labels them."""
    rng, pictures, boxes, extra = np.random.default_rng(0), [], [], []
    for n in range(48):
        seed = n // 4 if overlapping else n
        place, own = ground(seed, (600, 600)), np.random.default_rng(seed)
        spots = own.permutation(np.stack(np.meshgrid(*[np.arange(180, 430, 40)] * 2), -1).reshape(-1, 2))[:16]
        cars = np.column_stack([spots, own.uniform(14, 24, (16, 2)), np.zeros(16)])
        c = (300 + rng.integers(-15, 16), 300 + rng.integers(-15, 16))
        there = seen_by(camera(*c), cars)
        inside = ((there[:, :2] > 20) & (there[:, :2] < np.array(SIZE) - 20)).all(axis=1)
        pictures.append(piece(place, *map(float, c)))
        boxes.append(there[:10][inside[:10]])
        extra.append(there[10:][inside[10:]])
    paths = saved(tmp_path, pictures)
    truth = labelled(paths, boxes, [np.arange(len(own)) % 2 for own in boxes], oriented=False)
    both = [np.concatenate(own) for own in zip(boxes, extra)]
    found = labelled(paths, both, [np.arange(len(own)) % 2 for own in both], oriented=False)
    count = len(found.boxes)
    found = found.with_boxes(
        found.boxes.with_columns(
            pl.col("x") + pl.Series(rng.normal(0, 1, count)),
            pl.col("y") + pl.Series(rng.normal(0, 1, count)),
            score=pl.Series(rng.beta(8, 2, count)),
        )
    )
    planted = corrupt(truth, {"missing": 0.1, "spurious": 0.05}, seed=1)
    suspicions = suspect(planted.tables, found)
    likely = suspicions.filter((pl.col("kind") == "missing") & (pl.col("probability") > 0.5))
    assert all(
        re.fullmatch(r"labelled in [23] of [23] other images of this place", d) for d in likely["detail"]
    )
    assert len(likely) > 20 if overlapping else not len(likely)
    row = next(row for row in score_audit(suspicions, planted.answers) if row["kind"] == "missing")
    assert row["planted"] > 25
    assert row["AP"] > 0.9 if overlapping else row["AP"] < 0.6
