"""Our trackers beside those of `trackers` (Roboflow, Apache-2.0), on the same detections.

    python -m benchmarks.tracking [--seeds 5]

Detections are the truth of synthetic traffic and of every sequence with tracks in the shared data (`mot*`),
shifted and scaled by noise, with some lost (alone and for a while), some weak, and some that are none.
Theirs take upright boxes alone, so in traffic they and ours get hulls; ours get the oriented boxes beside
that. Numbers are ours (`evaluation.tracks`, equal to TrackEval's), against the truth of the same kind.
"""

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import supervision
import trackers
from rich.console import Console
from rich.table import Table

from boxwright.data import formats
from boxwright.data.builder import pack, unpack
from boxwright.data.tables import BOX_SCHEMA, CATEGORY_SCHEMA, Tables, frame
from boxwright.data.traffic import make_traffic
from boxwright.evaluation.tracks import tracks
from boxwright.tracking.options import TrackOptions
from boxwright.tracking.track import track

SHOWN = ("HOTA", "DetA", "AssA", "MOTA", "IDF1", "ID switches")
NOISE, LOST, HIDDEN, STRAY = 0.06, 0.08, 0.01, 0.05  # of sizes; of boxes; of boxes, for a while; of boxes
WHILE = (3, 15)  # frames that an object is hidden


def degraded(truth: Tables, seed: int) -> Tables:
    """What a detector may have found of the truth, without its tracks."""
    rng = np.random.default_rng(seed)
    boxes = truth.boxes.filter(~(pl.col("ignore") | pl.col("crowd")))
    ids = [str(unpack(text)["track_id"]) for text in boxes["attributes"]]
    image, count = boxes["image_id"].to_numpy(), len(boxes)
    lost = rng.random(count) < LOST
    until: dict[str, int] = {}
    for n in np.lexsort((image,)):
        if rng.random() < HIDDEN:
            until[ids[n]] = int(image[n] + rng.integers(*WHILE))
        lost[n] |= until.get(ids[n], -1) > image[n]
    rotated = truth.with_boxes(boxes).rotated()
    size = np.sqrt(rotated[:, 2] * rotated[:, 3])[:, None]
    rotated[:, :2] += rng.normal(0, NOISE / 2, (count, 2)) * size
    rotated[:, 2:4] *= np.exp(rng.normal(0, NOISE, (count, 2)))
    rotated[:, 4] += rng.normal(0, NOISE, count)
    rotated[:, 4] += np.pi * (rng.random(count) < 0.05)  # headings the wrong way round
    score = np.clip(rng.beta(8, 2, count) - 0.45 * (rng.random(count) < 0.15), 0.05, 0.99)
    stray = np.flatnonzero(rng.random(count) < STRAY)
    shifted = rotated[stray] + np.append(
        rng.uniform(-60, 60, (len(stray), 2)), np.zeros((len(stray), 3)), axis=1
    )
    kept = np.concatenate([rotated[~lost], shifted])
    columns = {
        "image_id": np.concatenate([image[~lost], image[stray]]),
        "category_id": np.zeros(len(kept), np.int32),
        "score": np.concatenate([score[~lost], rng.uniform(0.1, 0.75, len(stray))]),
        "x": kept[:, 0] - kept[:, 2] / 2,
        "y": kept[:, 1] - kept[:, 3] / 2,
        "w": kept[:, 2],
        "h": kept[:, 3],
        "area": kept[:, 2] * kept[:, 3],
        "source": ["degraded"] * len(kept),
    }
    if boxes["angle"].is_not_null().any():
        columns["angle"] = kept[:, 4]
    found = frame(BOX_SCHEMA, columns).sort("image_id", maintain_order=True)
    return truth.with_boxes(found)


def of_one_class(truth: Tables) -> Tables:
    """The same boxes, all of one class: theirs know none."""
    one = frame(CATEGORY_SCHEMA, {"category_id": [0], "name": ["object"]})
    boxes = truth.boxes.with_columns(category_id=pl.lit(0, dtype=pl.Int32))
    return Tables(truth.images, boxes, one)


def theirs(found: Tables, make: Callable) -> Tables:
    """The boxes on their tracks."""
    tracker, hulls = make(), found.upright()
    scores = found.boxes["score"].to_numpy()
    numbers = np.full(len(found.boxes), -1)
    for rows in found.rows_by_image():
        corners = np.concatenate([hulls[rows, :2], hulls[rows, :2] + hulls[rows, 2:]], axis=1)
        given = supervision.Detections(
            xyxy=corners, confidence=scores[rows], class_id=np.zeros(len(rows), int), data={"row": rows}
        )
        seen = tracker.update(given)
        numbers[seen.data["row"].astype(int)] = seen.tracker_id
    kept = numbers >= 0
    attributes = [pack({"track_id": int(n)}) for n in numbers[kept]]
    boxes = found.boxes.filter(kept).with_columns(attributes=pl.Series(attributes, dtype=pl.String))
    return found.with_boxes(boxes)


def tracked_by_hulls(found: Tables, options: TrackOptions) -> Tables:
    """Oriented boxes on the tracks that their upright hulls are on."""
    rows = pl.Series([pack({"row": n}) for n in range(len(found.boxes))], dtype=pl.String)
    tracked = track(
        found.without_angles().with_boxes(found.without_angles().boxes.with_columns(attributes=rows)), options
    )
    own = [unpack(text)["row"] for text in tracked.boxes["attributes"]]
    return found.with_boxes(found.boxes[own].with_columns(attributes=tracked.boxes["attributes"]))


def parked(truth: Tables) -> Tables:
    """The parked vehicles alone."""
    kept = ["parked" in unpack(text) for text in truth.boxes["attributes"]]
    return truth.with_boxes(truth.boxes.filter(kept))


def measure(truth: Tables, seed: int) -> dict[str, dict[str, float]]:
    """Numbers and frames a second of every tracker."""
    found = degraded(truth, seed)
    hulls, flat = found.without_angles(), truth.without_angles()
    ways: dict[str, tuple[Callable[[], Tables], Tables]] = {
        "ByteTrack, theirs": (lambda: theirs(hulls, trackers.ByteTrackTracker), flat),
        "ByteTrack, ours": (lambda: track(hulls, TrackOptions("byte")), flat),
        "OC-SORT, theirs": (lambda: theirs(hulls, trackers.OCSORTTracker), flat),
        "OC-SORT, ours": (lambda: track(hulls, TrackOptions("ocsort")), flat),
    }
    if truth.boxes["angle"].is_not_null().any():
        for method, name in (("byte", "ByteTrack"), ("ocsort", "OC-SORT")):
            options = TrackOptions(method)
            ways[f"{name}, by hulls, oriented truth"] = (partial(tracked_by_hulls, found, options), truth)
            ways[f"{name}, oriented"] = (partial(track, found, options), truth)
    result = {}
    for name, (run, judge) in ways.items():
        run()  # kernels are loaded
        start = time.perf_counter()
        tracked = run()
        seconds = time.perf_counter() - start
        numbers = tracks(judge, tracked).overall
        result[name] = {k: float(numbers[k] or 0) for k in SHOWN} | {"frames/s": len(truth.images) / seconds}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-tracking"))
    given = parser.parse_args()
    shared = Path(os.environ.get("BOXWRIGHT_SHARED", "../shared"))
    sequences = sorted(p.parent for p in shared.glob("data/mot*/*/seqinfo.ini"))
    sets: dict[str, list[Tables]] = {p.name: [formats.read(p)] * given.seeds for p in sequences}
    sets["traffic"] = [
        make_traffic(given.out / str(s), given.frames, (640, 480), s) for s in range(given.seeds)
    ]
    sets["car parks"] = [parked(truth) for truth in sets["traffic"]]
    console = Console()
    for name, truths in sets.items():
        runs = [measure(of_one_class(truth), seed) for seed, truth in enumerate(truths)]
        table = Table(title=f"{name}, mean of {len(runs)}", box=None)
        for column in ("tracker", *SHOWN, "frames/s"):
            table.add_column(column, justify="left" if column == "tracker" else "right")
        for way in runs[0]:
            cells = [np.mean([run[way][k] for run in runs]) for k in (*SHOWN, "frames/s")]
            shown = [f"{100 * v:.1f}" for v in cells[:5]] + [f"{v:.0f}" for v in cells[5:]]
            table.add_row(way, *shown)
        console.print(table)


if __name__ == "__main__":
    main()
