"""Tracks beside TrackEval, the reference implementation of HOTA, MOTA and IDF1."""

import logging

import numpy as np
import polars as pl
import pytest

from boxwright.data import formats
from boxwright.data.builder import pack
from boxwright.data.tables import BOX_SCHEMA, CATEGORY_SCHEMA, IMAGE_SCHEMA, Tables, frame
from boxwright.errors import DataError
from boxwright.evaluation.metrics import measure
from boxwright.evaluation.pairing import read_pair
from boxwright.evaluation.tracks import tracks
from boxwright.geometry.iou import pairwise_iou
from tests.shared_data import shared_cases

trackeval = pytest.importorskip("trackeval")
logging.getLogger("trackeval").setLevel(logging.ERROR)
OURS = {"HOTA": "HOTA", "DetA": "DetA", "AssA": "AssA", "DetRe": "DetRe", "DetPr": "DetPr", } | {
    "LocA": "LocA", "AssRe": "AssRe", "AssPr": "AssPr", "MOTA": "MOTA", "MOTP": "MOTP", "IDSW": "ID switches",
    "Frag": "fragments", "CLR_FP": "FP", "CLR_FN": "FN", "IDF1": "IDF1", "IDP": "IDP", "IDR": "IDR",
    "MTR": "mostly tracked", "MLR": "mostly lost",
}  # fmt: skip


def theirs(truth: Tables, found: Tables) -> dict[str, float]:
    """TrackEval's numbers of all videos of the first class."""
    metrics = [m({"PRINT_CONFIG": False}) for m in (trackeval.metrics.HOTA, trackeval.metrics.CLEAR)]
    metrics.append(trackeval.metrics.Identity({"PRINT_CONFIG": False}))
    videos, results = np.array(truth.videos()), {m.get_name(): {} for m in metrics}
    for video in sorted(set(videos)):
        data = _as_theirs(truth, found, np.flatnonzero(videos == video))
        for metric in metrics:
            results[metric.get_name()][video] = metric.eval_sequence(data)
    numbers = {}
    for metric in metrics:
        whole = metric.combine_sequences(results[metric.get_name()])
        numbers |= {k: float(np.mean(v)) for k, v in whole.items()}
    return {ours: numbers[name] for name, ours in OURS.items()}


def _as_theirs(truth: Tables, found: Tables, images: np.ndarray) -> dict:
    sides = []
    for tables in (truth, found):
        rows = [tables.rows_by_image()[i] for i in images]
        ids = [[tables.boxes["attributes"][int(r)] for r in own] for own in rows]
        numbers = {t: n for n, t in enumerate(dict.fromkeys(t for own in ids for t in own))}
        sides.append((tables.upright(), rows, [np.array([numbers[t] for t in own], int) for own in ids]))
    (gt, gt_rows, gt_ids), (det, det_rows, det_ids) = sides
    return {
        "gt_ids": gt_ids,
        "tracker_ids": det_ids,
        "similarity_scores": [pairwise_iou(gt[g], det[d]) for g, d in zip(gt_rows, det_rows)],
        "num_gt_ids": len(set(np.concatenate(gt_ids).tolist())),
        "num_tracker_ids": len(set(np.concatenate(det_ids).tolist())),
        "num_gt_dets": sum(map(len, gt_ids)),
        "num_tracker_dets": sum(map(len, det_ids)),
        "num_timesteps": len(images),
    }


def random_tracks(seed: int) -> tuple[Tables, Tables]:
    """Boxes that wander, and a tracker that loses, shifts, swaps and invents some; two videos."""
    rng = np.random.default_rng(seed)
    true, found, names = [], [], []
    for video in range(2):
        count, frames = int(rng.integers(1, 9)), int(rng.integers(5, 40))
        at, speed = rng.uniform(0, 120, (count, 2)), rng.normal(0, 3, (count, 2))
        size, ids = rng.uniform(15, 50, (count, 2)), np.arange(count)
        for n in range(frames):
            image = len(names)
            names.append((f"v{video}/{n:03d}.jpg", pack({"video": f"v{video}", "frame": n})))
            if rng.random() < 0.1:
                ids = rng.permutation(ids) + rng.integers(0, 3)
            for k in range(count):
                box = (*(at[k] + n * speed[k]), *size[k])
                if rng.random() < 0.9:
                    true.append((image, *box, k))
                if rng.random() < 0.8:
                    found.append((image, *(np.array(box) + rng.normal(0, 4, 4)), int(ids[k])))
            for extra in range(rng.integers(0, 3)):
                found.append((image, *rng.uniform(0, 120, 2), 30.0, 30.0, 100 + extra))
    images = frame(IMAGE_SCHEMA, {"image_id": np.arange(len(names)), "file_name": [n for n, _ in names]}
                   | {"attributes": [a for _, a in names]})  # fmt: skip
    categories = frame(CATEGORY_SCHEMA, {"category_id": [0], "name": ["car"]})
    tables = []
    for rows, scored in ((true, False), (found, True)):
        image, x, y, w, h, track = (np.array(c) for c in zip(*rows))
        columns = {
            "image_id": image,
            "category_id": np.zeros(len(rows), np.int32),
            "x": x,
            "y": y,
            "w": abs(w),
        }
        columns |= {"h": abs(h), "attributes": [pack({"track_id": int(t)}) for t in track]}
        columns |= {"source": ["x"] * len(rows)} | ({"score": np.ones(len(rows))} if scored else {})
        tables.append(Tables(images, frame(BOX_SCHEMA, columns), categories))
    return tables[0], tables[1]


@pytest.mark.parametrize("seed", range(12))
def test_numbers_are_those_of_trackeval(seed):
    truth, found = random_tracks(seed)
    mine, other = tracks(truth, found).overall, theirs(truth, found)
    assert {n: mine[n] for n in other} == pytest.approx(other, abs=1e-9)


@pytest.mark.parametrize("results", shared_cases("data/mot*/results/*.txt"))
def test_every_sequence_beside_trackeval(results):
    truth, found = read_pair(formats.read(results.parents[1] / results.stem), formats.read(results))
    mine, other = tracks(truth, found).overall, theirs(truth, found)
    assert {n: mine[n] for n in other} == pytest.approx(other, abs=1e-9)
    assert mine["HOTA"] > 0.3


def test_a_perfect_tracker_has_one_everywhere():
    truth, _ = random_tracks(0)
    found = truth.with_boxes(truth.boxes.with_columns(score=1.0))
    numbers = measure(truth, found, "tracks").overall
    assert [numbers[n] for n in ("HOTA", "MOTA", "IDF1", "LocA")] == pytest.approx([1.0] * 4)
    assert numbers["ID switches"] == numbers["FP"] == numbers["FN"] == 0


def test_what_is_ignored_does_not_count():
    truth, found = random_tracks(1)
    first = truth.boxes["attributes"] == truth.boxes["attributes"][0]
    ignored = truth.with_boxes(truth.boxes.with_columns(ignore=first))
    without = truth.with_boxes(truth.boxes.filter(~first))
    found = truth.with_boxes(truth.boxes.with_columns(score=1.0))
    assert tracks(ignored, found).overall["HOTA"] == pytest.approx(1.0)
    assert tracks(without, found).overall["HOTA"] < 0.999


def test_a_track_twice_in_an_image_is_told():
    truth, found = random_tracks(2)
    twice = found.with_boxes(found.boxes.with_columns(attributes=pl.lit(found.boxes["attributes"][0])))
    with pytest.raises(DataError, match=r"two boxes of track \d+, expected one"):
        tracks(truth, twice)
    with pytest.raises(DataError, match="no attribute 'track_id'"):
        tracks(truth, found.with_boxes(found.boxes.with_columns(attributes=pl.lit(None, dtype=pl.String))))
