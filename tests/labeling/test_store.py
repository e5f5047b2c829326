"""The store of a review: nothing is lost, nothing is overwritten."""

import math
import subprocess
import sys
import threading

import polars as pl
import pytest

from boxwright.data.synthetic import make_scenes
from boxwright.errors import ConfigError, DataError
from boxwright.labeling.store import Change, ChangedMeanwhileError, Store
from tests.scenes import small_tables

SHAPE = {"category_id": 0, "x": 5.0, "y": 6.0, "w": 7.0, "h": 8.0, "angle": None}


def change(key: str, **what) -> Change:
    return Change(**({"key": key, "person": "ada", "image_id": 0} | what))


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "review.sqlite", small_tables(tmp_path))
    yield made
    made.close()


def test_labels_come_out_as_they_went_in(tmp_path):
    labels = small_tables(tmp_path)
    store = Store(tmp_path / "review.sqlite", labels)
    for tables in (store.tables(), store.tables(first=True)):
        assert tables.images.equals(labels.images)
        assert tables.categories.equals(labels.categories)
        assert tables.boxes.sort("image_id", "x", "y").equals(labels.boxes.sort("image_id", "x", "y"))


def test_actions_change_boxes_and_stay_after_reopening(store):
    first = store.boxes(0)[0]
    added = store.act(change("a" * 8, after=SHAPE, seconds=3.0))
    moved = SHAPE | {"x": 9.5}
    done = store.act(change("b" * 8, box_id=added["box_id"], version=0, after=moved))
    store.act(change("c" * 8, box_id=first["box_id"], version=0))
    store.act(change("d" * 8, state="accepted"))
    assert done["box"]["version"] == 1
    assert done["kind"] == "shape"
    store.close()
    again = Store(store.path)
    boxes = {box["box_id"]: box for box in again.boxes(0)}
    assert first["box_id"] not in boxes
    assert boxes[added["box_id"]]["x"] == 9.5
    assert boxes[added["box_id"]]["source"] == "ada"
    assert [a["kind"] for a in again.actions()] == ["add", "shape", "remove", "state"]
    assert again.actions()[0]["seconds"] == 3.0
    assert again.images()[0]["state"] == "accepted"
    assert again.box(first["box_id"])["gone"]


def test_a_box_that_was_taken_out_comes_back_whole(store):
    first = store.boxes(0)[0]
    shape = {name: first[name] for name in SHAPE}
    store.act(change("a" * 8, box_id=first["box_id"], version=0))
    back = store.act(change("b" * 8, box_id=first["box_id"], version=1, after=shape, undo=True))["box"]
    kept = {n: v for n, v in back.items() if n not in ("version", "source")}
    assert kept == {n: v for n, v in first.items() if n not in ("version", "source")}


def test_the_same_action_twice_is_one(store):
    asked = change("a" * 8, after=SHAPE)
    assert store.act(asked)["box_id"] == store.act(asked)["box_id"]
    assert len(store.actions()) == 1


def test_what_somebody_else_changed_is_not_overwritten(store):
    box = store.boxes(0)[0]
    other = Store(store.path)
    shape = {name: box[name] for name in SHAPE}
    other.act(change("a" * 8, person="bob", box_id=box["box_id"], version=0, after=shape | {"x": 1.0}))
    with pytest.raises(ChangedMeanwhileError) as told:
        store.act(change("b" * 8, box_id=box["box_id"], version=0, after=shape | {"x": 2.0}))
    assert told.value.box["x"] == 1.0
    assert store.box(box["box_id"])["x"] == 1.0
    assert len(store.actions()) == 1


def test_two_at_once_lose_nothing(store):
    other = Store(store.path)

    def work(own: Store, name: str) -> None:
        for n in range(40):
            own.act(change(f"{name}-{n:06}", person=name, after=SHAPE | {"x": float(n)}))

    threads = [threading.Thread(target=work, args=pair) for pair in ((store, "ada"), (other, "bob"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.actions()) == 80
    assert {a["person"] for a in store.actions()} == {"ada", "bob"}


def test_a_killed_process_loses_no_answered_action(tmp_path):
    Store(tmp_path / "review.sqlite", small_tables(tmp_path)).close()
    code = (
        "import itertools, sys\nfrom pathlib import Path\n"
        "from boxwright.labeling.store import Change, Store\n"
        "store = Store(Path(sys.argv[1]))\n"
        f"shape = {SHAPE!r}\n"
        "for n in itertools.count():\n"
        "    print(store.act(Change(f'key-{n:06}', 'ada', 0, after=shape))['action_id'], flush=True)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "review.sqlite")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        answered = [process.stdout.readline() for _ in range(20)]
        process.kill()
        answered += process.stdout.readlines()
    last = int([line for line in answered if line.endswith("\n")][-1])
    store = Store(tmp_path / "review.sqlite")
    assert last >= 20
    assert store.last_action() >= last
    assert len(store.boxes(0)) == len(small_tables(tmp_path).boxes.filter(image_id=0)) + store.last_action()


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ({"after": SHAPE | {"w": 0.0}}, "sides above 0"),
        ({"after": SHAPE | {"x": math.nan}}, "expected a number"),
        ({"after": SHAPE | {"x": 1e9}}, "expected a number"),
        ({"after": SHAPE | {"category_id": 99}}, "category 99"),
        ({"after": SHAPE, "box_id": 9999}, "no box 9999"),
        ({"after": SHAPE, "image_id": 999}, "no image 999"),
        ({"state": "lost"}, "state lost"),
        ({}, "needs numbers"),
    ],
)
def test_what_no_box_can_be_is_refused(store, what, told):
    with pytest.raises(ConfigError, match=told):
        store.act(change("a" * 8, **what))
    assert store.last_action() == 0


def test_an_angle_is_never_dropped_nor_made_up(store, tmp_path):
    with pytest.raises(ConfigError, match=r"an angle of 0\.5, expected a box without one"):
        store.act(change("a" * 8, after=SHAPE | {"angle": 0.5}))
    scenes = make_scenes(tmp_path / "scenes", 1, size=(160, 128))
    upright = pl.when(pl.int_range(pl.len()) == 0).then(None).otherwise("angle")
    mixed = Store(tmp_path / "mixed.sqlite", scenes.with_boxes(scenes.boxes.with_columns(angle=upright)))
    first, second = mixed.boxes(0)[:2]
    moved = mixed.act(change("a" * 8, box_id=first["box_id"], after=SHAPE))["box"]
    assert moved["angle"] is None
    with pytest.raises(ConfigError, match="angle is None"):
        mixed.act(change("b" * 8, box_id=second["box_id"], after=SHAPE))


def test_a_file_that_was_never_filled_is_filled(tmp_path):
    (tmp_path / "review.sqlite").touch()
    store = Store(tmp_path / "review.sqlite", small_tables(tmp_path))
    assert len(store.images()) == 3


def test_other_files_and_labels_are_refused(tmp_path, store):
    labels = small_tables(tmp_path)
    with pytest.raises(ConfigError, match="other labels"):
        Store(store.path, labels.with_boxes(labels.boxes.head(1)))
    with pytest.raises(ConfigError, match="no such file"):
        Store(tmp_path / "none.sqlite")
    (tmp_path / "text.sqlite").write_text("not a database, but long enough to be looked at" * 20)
    with pytest.raises(DataError, match="not the store"):
        Store(tmp_path / "text.sqlite")
