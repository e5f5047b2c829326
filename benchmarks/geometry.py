"""The geometry table of README: rotated IoU, NMS and fusion beside the usual packages, in one process.

python -m benchmarks.geometry                 # needs the extra: uv sync --extra bench
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import shapely
import supervision
import torch
from ensemble_boxes import weighted_boxes_fusion
from rich.console import Console
from rich.table import Table
from torchvision import ops

from boxwright.geometry.conventions import corners, to_convention
from boxwright.geometry.fusion import weighted_box_fusion
from boxwright.geometry.iou import aligned_iou, pairwise_iou
from boxwright.geometry.nms import nms


def boxes_of(rng, count: int, extent: float, oriented: bool) -> np.ndarray:
    """Boxes of 10 to 60 pixels in a square; xywh, or cxcywh and angle."""
    boxes = np.concatenate([rng.uniform(0, extent, (count, 2)), rng.uniform(10, 60, (count, 2))], axis=1)
    return np.column_stack([boxes, rng.uniform(-np.pi / 2, np.pi / 2, count)]) if oriented else boxes


def detections_of(rng, count: int, extent: float, oriented: bool) -> tuple[np.ndarray, np.ndarray]:
    """As a detector gives them before NMS: about ten jittered boxes an object; all scores different."""
    objects = boxes_of(rng, count // 10, extent, oriented)
    boxes = objects[rng.integers(0, len(objects), count)]
    boxes[:, :4] += rng.normal(0, 3, (count, 4))
    boxes[:, 2:4] = np.maximum(boxes[:, 2:4], 2)
    return boxes, rng.permutation(count) / count


def xyxy(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def best_time(function: Callable, repeats: int) -> tuple[float, float]:
    """Seconds of the first call and of the best later one."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return times[0], min(times[1:])


def measure(repeats: int) -> list[tuple[str, str, float, float, float]]:
    """Rows: what, peer, seconds of the peer, ours, and of our first call."""
    rng = np.random.default_rng(0)
    rows = []

    def race(what: str, peer: str, theirs: Callable, ours: Callable, runs: int = repeats) -> None:
        first, warm = best_time(ours, repeats)
        rows.append((what, peer, best_time(theirs, runs)[1], warm, first))

    a = boxes_of(rng, 200_000, 1000, True)
    b = a + np.column_stack(
        [rng.normal(0, 6, (len(a), 2)), np.zeros((len(a), 2)), rng.normal(0, 0.2, len(a))]
    )
    p, q = shapely.polygons(corners(a)), shapely.polygons(corners(b))
    race(
        "rotated IoU, 200,000 aligned pairs",
        "shapely",
        lambda: shapely.area(shapely.intersection(p, q)),
        lambda: aligned_iou(a, b),
        1,
    )
    for name, extent in (("sparse", 4000.0), ("dense", 100.0)):
        a, b = boxes_of(rng, 1000, extent, True), boxes_of(rng, 1000, extent, True)
        pair = [torch.from_numpy(to_convention(x, "torchvision")).float() for x in (a, b)]
        race(
            f"rotated IoU, 1000 x 1000, {name}",
            "torchvision",
            lambda pair=pair: ops.box_iou(*pair, fmt="cxcywhr"),
            lambda a=a, b=b: pairwise_iou(a, b),
            2,
        )
    boxes, scores = detections_of(rng, 10_000, 2000, False)
    tensors = torch.from_numpy(xyxy(boxes)), torch.from_numpy(scores)
    assert ops.nms(*tensors, 0.5).tolist() == nms(boxes, scores, 0.5).tolist()
    race("NMS of 10,000", "torchvision", lambda: ops.nms(*tensors, 0.5), lambda: nms(boxes, scores, 0.5))
    oriented, scores = detections_of(rng, 10_000, 2000, True)
    polygons = corners(oriented).astype(np.float32)
    rotated = np.column_stack([polygons.reshape(-1, 8), scores])
    race(
        "rotated NMS of 10,000",
        "supervision",
        lambda: supervision_nms(rotated, oriented, scores),
        lambda: nms(oriented, scores, 0.5),
        1,
    )
    models = [detections_of(rng, 1500, 600, False) for _ in range(3)]
    shares = [np.clip(xyxy(m[0]) / 700, 0, 1) for m in models]
    labels = [rng.integers(0, 5, 1500) for _ in models]
    race(
        "fusion of 3 x 1,500 boxes",
        "ensemble-boxes",
        lambda: weighted_boxes_fusion(shares, [m[1] for m in models], labels, iou_thr=0.55),
        lambda: weighted_box_fusion([m[0] for m in models], [m[1] for m in models], labels),
        1,
    )
    return rows


def supervision_nms(rotated: np.ndarray, oriented: np.ndarray, scores: np.ndarray):
    """supervision's NMS of oriented boxes."""
    polygons = corners(oriented)
    found = supervision.Detections(
        xyxy=np.concatenate([polygons.min(axis=1), polygons.max(axis=1)], axis=1),
        confidence=scores,
        class_id=np.zeros(len(scores), dtype=int),
        data={"xyxyxyxy": polygons},
    )
    return found.with_nms(threshold=0.5, class_agnostic=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    table = Table("problem", "peer", box=None)
    for column in ("peer, ms", "ours, ms", "ratio", "first call, ms"):
        table.add_column(column, justify="right")
    for what, peer, theirs, ours, first in measure(parser.parse_args().repeats):
        times = (
            f"{1000 * theirs:,.1f}",
            f"{1000 * ours:,.1f}",
            f"{ours / theirs:.4f}",
            f"{1000 * first:,.0f}",
        )
        table.add_row(what, peer, *times)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
