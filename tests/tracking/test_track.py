"""Tracks of boxes: on synthetic traffic whose tracks are known, and beside plain formulas."""

import numpy as np
import polars as pl
import pytest

from boxwright.data.builder import pack, unpack
from boxwright.data.tables import BOX_SCHEMA, CATEGORY_SCHEMA, IMAGE_SCHEMA, Tables, frame
from boxwright.data.traffic import make_traffic
from boxwright.errors import ConfigError, DataError
from boxwright.evaluation.tracks import tracks
from boxwright.tracking import motion
from boxwright.tracking.gaps import fill_gaps
from boxwright.tracking.options import METHODS, TrackOptions
from boxwright.tracking.track import track


def video_of(rows: list[tuple], frames: int, classes: tuple[str, ...] = ("car",)) -> Tables:
    """Boxes (frame from 0, category, cx, cy, w, h, angle or None, score) of one video."""
    image, category, cx, cy, w, h, angle, score = (list(c) for c in zip(*rows))
    columns = {
        "image_id": image,
        "category_id": category,
        "x": [x - s / 2 for x, s in zip(cx, w)],
        "y": [y - s / 2 for y, s in zip(cy, h)],
        "w": w,
        "h": h,
        "angle": angle,
        "score": score,
        "area": [a * b for a, b in zip(w, h)],
    }
    images = {"image_id": range(frames), "file_name": [f"clip/{n:03d}.jpg" for n in range(frames)]}
    named = {"category_id": range(len(classes)), "name": classes}
    return Tables(frame(IMAGE_SCHEMA, images), frame(BOX_SCHEMA, columns), frame(CATEGORY_SCHEMA, named))


def ids_of(tables: Tables) -> list[int]:
    return [unpack(text)["track_id"] for text in tables.boxes["attributes"]]


@pytest.fixture(scope="module")
def traffic(tmp_path_factory) -> tuple[Tables, Tables]:
    """Truth, and what a detector with noise may have found: a tenth lost, a twentieth invented."""
    truth = make_traffic(tmp_path_factory.mktemp("traffic"), 60, (320, 240), seed=5)
    rng = np.random.default_rng(0)
    seen = truth.boxes.filter(~truth.boxes["ignore"])
    seen = seen.filter(rng.random(len(seen)) > 0.1)
    size = np.sqrt(seen["w"] * seen["h"]).to_numpy()
    moved = {c: seen[c].to_numpy() + rng.normal(0, 0.02, len(seen)) * size for c in "xywh"}
    stray = seen.sample(fraction=0.05, seed=1).with_columns(x=pl.col("y"), y=pl.col("x"), score=pl.lit(0.55))
    seen = seen.with_columns(
        score=pl.Series(rng.uniform(0.3, 1, len(seen))), attributes=pl.lit(None, dtype=pl.String), **moved
    )
    stray = stray.with_columns(attributes=pl.lit(None, dtype=pl.String))
    return truth, truth.with_boxes(pl.concat([seen, stray]).sort("image_id"))


@pytest.mark.parametrize("upright", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_traffic_is_followed(traffic, method, upright):
    truth, found = (t.without_angles() for t in traffic) if upright else traffic
    numbers = tracks(truth, track(found, TrackOptions(method), fill=5)).overall
    assert numbers["IDF1"] > 0.85
    assert numbers["AssA"] > 0.75
    assert numbers["MOTA"] > 0.75


def test_a_filter_is_kalmans(traffic):
    """Beside the textbook's matrices, of one number of one box."""
    boxes = np.array([[10.0, 20.0, 30.0, 12.0, 0.2]])
    state = motion.start(boxes)
    size = np.sqrt(360.0)
    mean = np.array([10.0, 0.0])
    covariance = np.diag([(2 * size / 20) ** 2, (10 * size / 160) ** 2])
    step = np.array([[1.0, 1.0], [0.0, 1.0]])
    for seen in (12.0, 15.5, 17.0):
        size = np.sqrt(state[0, 0, 2] * state[0, 0, 3])
        noise = np.diag([(size / 20) ** 2, (size / 160) ** 2])
        mean, covariance = step @ mean, step @ covariance @ step.T + noise
        state = motion.predict(state)
        size = np.sqrt(state[0, 0, 2] * state[0, 0, 3])
        gain = covariance[:, 0] / (covariance[0, 0] + (size / 20) ** 2)
        mean, covariance = mean + gain * (seen - mean[0]), covariance - np.outer(gain, covariance[0])
        state = motion.update(state, np.array([[seen, 20.0, 30.0, 12.0, 0.2]]))
        assert state[0, :2, 0] == pytest.approx(mean)
        assert [state[0, 2, 0], state[0, 3, 0], state[0, 4, 0]] == pytest.approx(
            covariance[[0, 0, 1], [0, 1, 1]]
        )


def test_half_and_quarter_turns_are_undone():
    boxes = np.array([[0, 0, 10, 4, 0.1 + np.pi], [0, 0, 4, 10, 0.1 + np.pi / 2], [0, 0, 10, 4, 0.3]])
    expected = np.tile([0, 0, 10, 4, 0.1], (3, 1))
    expected[2, 4] = 0.3
    assert motion.spelled_as(boxes, np.tile([0, 0, 10, 4, 0.12], (3, 1))) == pytest.approx(expected)


@pytest.mark.parametrize("method", METHODS)
def test_an_object_that_turns_around_and_hides_keeps_its_number(method):
    rows = []
    for n in range(40):
        angle = 0.08 * n + (np.pi if n % 3 == 0 else 0)  # front and back are confused
        if not 20 <= n < 26:
            rows.append((n, 0, 100 + 4.0 * n, 80.0, 40.0, 16.0, (angle + np.pi) % (2 * np.pi) - np.pi, 0.9))
    assert set(ids_of(track(video_of(rows, 40), TrackOptions(method)))) == {1}


@pytest.mark.parametrize("method", METHODS)
def test_weak_boxes_go_on_a_track_and_begin_none(method):
    rows = [(n, 0, 50.0 + n, 50.0, 20.0, 20.0, None, 0.3 if n in (5, 6) else 0.9) for n in range(12)]
    rows += [(n, 0, 200.0, 50.0, 20.0, 20.0, None, 0.3) for n in range(12)]
    tracked = track(video_of(sorted(rows), 12), TrackOptions(method))
    assert ids_of(tracked) == [1] * 12
    assert tracked.boxes["x"].max() < 100


def test_classes_are_followed_apart_or_together():
    rows = [(n, n % 4 == 3, 50.0 + n, 50.0, 20.0, 20.0, None, 0.9) for n in range(12)]
    found = video_of(rows, 12, ("car", "bus"))
    assert (
        track(found, TrackOptions()).boxes["category_id"].to_list() == [0] * 9
    )  # no bus is seen twice on end
    together = track(found, TrackOptions(across_classes=True))
    assert set(ids_of(together)) == {1}
    assert together.boxes["category_id"].to_list() == [0] * 12


def test_gaps_are_filled_along_a_line_through_half_a_turn():
    rows = [(n, 0, 50.0 + n, 60.0 - n, 30.0, 10.0, angle, 0.9 - 0.01 * n)
            for n, angle in ((0, 0.0), (4, np.pi / 2 - 0.1), (10, 0.5))]  # fmt: skip
    found = video_of(rows, 11)
    found = found.with_boxes(found.boxes.with_columns(attributes=pl.lit(pack({"track_id": 7}))))
    filled = fill_gaps(found, 3)
    assert filled.boxes["image_id"].to_list() == [0, 1, 2, 3, 4, 10]
    assert (filled.boxes["x"] + filled.boxes["w"] / 2).to_list()[:5] == pytest.approx([50, 51, 52, 53, 54])
    new = [unpack(text).get("interpolated", False) for text in filled.boxes["attributes"]]
    assert new == [False, True, True, True, False, False]
    # Nearest is a quarter of a turn back, with the sides exchanged.
    assert filled.boxes["angle"][1] == pytest.approx(-0.1 / 4)
    assert filled.boxes["score"][1] == pytest.approx(0.86)


def test_what_has_no_tracks_is_told():
    alone = video_of([(0, 0, 5.0, 5.0, 4.0, 4.0, None, 0.9)], 1)
    with pytest.raises(DataError, match="only image of video 'clip'"):
        track(alone)
    with pytest.raises(DataError, match="no box has an attribute 'track_id'"):
        fill_gaps(alone, 3)
    with pytest.raises(ConfigError, match=r"method 'sort', expected one of byte, ocsort"):
        TrackOptions("sort")
    with pytest.raises(ConfigError, match="expected scores and an overlap of 0 to 1"):
        TrackOptions(high=1.5)


def test_an_empty_video_has_no_tracks():
    found = video_of([(0, 0, 5.0, 5.0, 4.0, 4.0, None, 0.9)], 3)
    assert len(track(found.with_boxes(found.boxes.clear())).boxes) == 0
