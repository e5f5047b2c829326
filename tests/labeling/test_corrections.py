"""Corrections as a table, and what two people agree on, beside scikit-learn's kappa."""

import math
import os
import time
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import cohen_kappa_score

from boxwright.data.synthetic import make_scenes
from boxwright.labeling.corrections import agreement, corrections, kappa, review, wilson
from boxwright.labeling.store import Change, Store
from tests.cli.test_cli import run
from tests.scenes import small_tables

NAMES = ("category_id", "x", "y", "w", "h", "angle")


class Reviewer:
    """Somebody who corrects, with a clock."""

    def __init__(self, store: Store, person: str = "ada"):
        self.store, self.person, self.count = store, person, 0

    def act(self, image_id: int = 0, **what) -> dict:
        self.count += 1
        key = f"{self.person}-{self.count:06}"
        return self.store.act(Change(key, self.person, image_id, seconds=what.pop("seconds", 2.0), **what))

    def set(self, box: dict, **new) -> dict:
        after = {name: box[name] for name in NAMES} | new
        return self.act(box["image_id"], box_id=box["box_id"], version=box["version"], after=after)["box"]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "review.sqlite", small_tables(tmp_path))


def test_corrections_are_what_is_left_of_all_actions(store):
    ada, boxes = Reviewer(store), store.boxes(0)
    moved = ada.set(ada.set(boxes[0], x=boxes[0]["x"] + 1), x=boxes[0]["x"] + boxes[0]["w"] / 2)
    other = ada.set(boxes[1], category_id=1 - boxes[1]["category_id"])
    ada.set(ada.set(store.boxes(1)[0], x=0.5), x=store.boxes(1)[0]["x"])  # the same as before: where it is
    shape = {"category_id": 0, "x": 1.0, "y": 1.0, "w": 5.0, "h": 5.0, "angle": None}
    added = ada.act(after=shape, origin="model")
    gone = ada.act(after=shape)["box"]
    ada.act(box_id=gone["box_id"], version=0)  # drawn and taken out: nothing
    table = {row["box_id"]: row for row in corrections(store).to_dicts()}
    assert table[moved["box_id"]]["kind"] == "location"
    assert table[moved["box_id"]]["seconds"] == 4.0
    assert table[moved["box_id"]]["iou"] == pytest.approx(1 / 3)
    assert table[other["box_id"]]["kind"] == "class"
    assert table[other["box_id"]]["iou"] == pytest.approx(1.0)
    assert table[added["box_id"]]["kind"] == "missing"
    assert table[added["box_id"]]["origin"] == "model"
    assert table[added["box_id"]]["x"] is None
    assert gone["box_id"] not in table


def test_what_is_taken_back_is_no_correction(store):
    ada, box = Reviewer(store), store.boxes(0)[0]
    ada.set(ada.set(box, x=box["x"] + 3), x=box["x"])
    ada.act(box_id=box["box_id"], version=2)
    back = {name: box[name] for name in NAMES}
    ada.act(box_id=box["box_id"], version=3, after=back, undo=True)
    assert len(corrections(store)) == 0


def test_angles_are_compared_around_the_circle(tmp_path):
    scenes = make_scenes(tmp_path / "scenes", 1, size=(160, 128))
    boxes = scenes.boxes.with_columns(angle=pl.lit(-math.pi), area=pl.lit(1.0)).head(3)
    store = Store(tmp_path / "headings.sqlite", scenes.with_boxes(boxes))
    ada, (first, second, third) = Reviewer(store), store.boxes(0)
    ada.set(first, angle=math.pi - 1e-9)  # the same direction from the other side
    ada.set(second, angle=0.0)
    ada.set(third, angle=math.pi - 0.3)
    assert corrections(store)["kind"].to_list() == ["heading", "angle"]
    boxes = boxes.with_columns(angle=pl.lit(-math.pi / 2))
    axes = Store(tmp_path / "axes.sqlite", scenes.with_boxes(boxes))
    ada, (first, second, _) = Reviewer(axes), axes.boxes(0)
    ada.set(first, angle=math.pi / 2 - 1e-9)
    ada.set(second, angle=math.pi / 2 - 0.3)
    assert corrections(axes)["kind"].to_list() == ["angle"]


def test_missing_boxes_are_a_share_of_all_that_are_there(store):
    ada, count = Reviewer(store), len(store.boxes(0))
    shape = {"category_id": 0, "x": 1.0, "y": 1.0, "w": 5.0, "h": 5.0, "angle": None}
    for n in range(6):
        ada.act(after=shape | {"x": float(n)})
    ada.act(state="accepted")
    (row,) = [row for row in review(store).kinds if row["class"] == "all"]
    assert row["boxes"] == count + 6
    assert row["per hundred"] == pytest.approx(100 * 6 / (count + 6))
    assert row["from"] < row["per hundred"] < row["to"]


def test_the_report_counts_accepted_images_alone(store):
    ada = Reviewer(store)
    boxes = [store.boxes(n) for n in (0, 1)]
    ada.act(box_id=boxes[0][0]["box_id"], version=0, seconds=4.0)
    ada.act(1, box_id=boxes[1][0]["box_id"], version=0)
    ada.act(state="accepted", seconds=8.0)
    found = review(store)
    assert found.work["images accepted"] == 1
    assert found.work["boxes looked at"] == len(boxes[0])
    assert found.work["boxes corrected"] == 1
    assert found.work["minutes an image, median"] == pytest.approx(12 / 60)
    (row,) = [row for row in found.kinds if row["class"] == "all"]
    assert row["kind"] == "spurious"
    assert row["per hundred"] == pytest.approx(100 / len(boxes[0]))
    assert row["from"] < row["per hundred"] < row["to"]


def test_predictions_that_were_taken_save_what_drawing_takes_longer(store):
    ada = Reviewer(store)
    shape = {"category_id": 0, "x": 1.0, "y": 1.0, "w": 5.0, "h": 5.0, "angle": None}
    for origin, seconds in (("drawn", 10.0), ("drawn", 12.0), ("model", 1.0), ("model", 3.0), ("model", 2.0)):
        ada.act(after=shape | {"x": seconds}, origin=origin, seconds=seconds)
    ada.act(state="accepted")
    assert review(store).work["minutes saved by predictions"] == pytest.approx((11 - 2) * 3 / 60)


def test_kappa_is_scikit_learns():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(4, size=(2, 60))
        table = np.zeros((4, 4))
        np.add.at(table, (a, b), 1)
        assert kappa(table) == pytest.approx(cohen_kappa_score(a, b))
    assert math.isnan(kappa(np.diag([5.0, 0.0])))


def test_wilson_holds_the_share_of_draws():
    rng = np.random.default_rng(1)
    held = [low <= 0.1 <= high for low, high in (wilson(int(n), 80) for n in rng.binomial(80, 0.1, 2000))]
    assert 0.92 < np.mean(held) < 0.98


def test_two_people_agree_where_they_leave_the_same(tmp_path):
    labels = small_tables(tmp_path)
    stores = [Store(tmp_path / f"{name}.sqlite", labels) for name in ("a", "b")]
    people = [Reviewer(store, name) for store, name in zip(stores, ("ada", "bob"))]
    for person in people:
        for image in range(len(labels.images)):
            person.act(image, state="accepted")
    rows = {row["number"]: row["value"] for row in agreement(*stores)}
    assert rows["boxes in both"] == 1
    assert rows["mean IoU"] == pytest.approx(1)
    assert rows["kappa"] == pytest.approx(1)
    box = stores[1].boxes(0)[0]
    people[1].set(box, category_id=1 - box["category_id"])
    people[1].act(box_id=stores[1].boxes(0)[1]["box_id"], version=0)
    rows = {row["number"]: row for row in agreement(*stores)}
    count = len(labels.boxes)
    assert rows["boxes in both"]["value"] == pytest.approx(2 * (count - 1) / (2 * count - 1))
    own = stores[0].tables().boxes.filter(pl.col("image_id") >= 0)["category_id"].to_numpy()
    changed = {b["box_id"]: b["category_id"] for n in range(len(labels.images)) for b in stores[1].boxes(n)}
    pairs = [(c, changed[n]) for n, c in zip(_ids(stores[0]), own) if n in changed]
    assert rows["kappa"]["value"] == pytest.approx(cohen_kappa_score(*zip(*pairs)))
    assert rows["kappa"]["from"] <= rows["kappa"]["value"] <= rows["kappa"]["to"]


def _ids(store: Store) -> list[int]:
    boxes = [b for b in store.every_box() if b["now"]]
    return [b["box_id"] for b in sorted(boxes, key=lambda b: (b["image_id"], b["box_id"]))]


def test_corrections_since_a_time_or_a_run(store, tmp_path):
    ada, (first, second) = Reviewer(store), store.boxes(0)[:2]
    ada.set(first, x=first["x"] + 3)
    time.sleep(0.05)
    between = datetime.now(UTC)
    time.sleep(0.05)
    ada.set(second, x=second["x"] + 3)
    assert corrections(store, between)["box_id"].to_list() == [second["box_id"]]
    assert len(corrections(store, between.astimezone(timezone(timedelta(hours=5))))) == 1
    assert len(corrections(store)) == 2
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("{}")
    os.utime(tmp_path / "run/config.yaml", (between.timestamp(), between.timestamp()))
    words = ["label", "report", store.path, "--since"]
    told = run(*words, tmp_path / "run", "-o", tmp_path / "new.csv").stdout
    assert "1 corrections since" in told
    assert len(pl.read_csv(tmp_path / "new.csv")) == 1
    assert "expected the like of" in run(*words, "yesterday", "-o", tmp_path / "new.csv", check=2).stderr
    assert "with it" in run(*words, "2026-01-01", check=2).stderr
