"""The numbers of docs/why-our-numbers-differ.md: what other conventions make of the same detections.

python -m benchmarks.differences
"""

import gzip
import json

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torchvision.ops import box_iou

from boxwright.evaluation.average_precision import average_precision, oriented
from boxwright.geometry.conventions import to_convention
from boxwright.geometry.iou import aligned_iou, pairwise_iou
from tests.evaluation.oracles import obb_case
from tests.shared_data import SHARED

THRESHOLDS = np.linspace(0.5, 0.95, 10)


def main() -> None:
    console = Console(width=100)
    console.print(torchvision_errors())
    console.print(ap_by_iou_of())


def torchvision_errors() -> Table:
    """Rotated IoU against 50 digits, by the kind of case: greatest error of ours and torchvision's."""
    case = json.loads(gzip.decompress((SHARED / "obb_cases" / "rotated_iou.json.gz").read_bytes()))
    a, b, exact = (np.array(case[key]) for key in ("a", "b", "iou"))
    pair = [torch.from_numpy(to_convention(x, "torchvision")) for x in (a, b)]
    theirs = np.array([float(box_iou(p[None], q[None], fmt="cxcywhr")) for p, q in zip(*pair)])
    ours = aligned_iou(a, b)
    table = Table("kind of pair", "pairs", "ours", "torchvision", "torchvision off by > 0.01", box=None)
    kind = np.array(case["kind"])
    for k, name in enumerate(case["kinds"]):
        mine = kind == k
        error = np.abs(theirs - exact)[mine]
        cells = (f"{np.abs(ours - exact)[mine].max():.0e}", f"{error.max():.0e}", str((error > 0.01).sum()))
        table.add_row(name, str(mine.sum()), *cells)
    return table


def ap_by_iou_of() -> Table:
    """Oriented AP of one set of detections by the exact IoU, the Gaussian's, and the upright hulls'."""
    truth, found, _ = obb_case(SHARED / "obb_cases" / "obb_map.json.gz")
    table = Table("overlap", "AP50", "AP75", "AP50:95", box=None)
    exact = oriented(truth, found, "coco").overall
    table.add_row("exact", *(f"{exact[k]:.3f}" for k in ("AP50", "AP75", "AP")))
    for name, overlap in (
        ("exact, matched here", exact_iou),
        ("Gaussian (ProbIoU)", gaussian_iou),
        ("upright hulls", hull_iou),
    ):
        aps = greedy_ap(truth, found, overlap)
        table.add_row(name, *(f"{v:.3f}" for v in (aps[0], aps[5], aps.mean())))
    return table


def exact_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return pairwise_iou(a, b)


def hull_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    hulls = []
    for boxes in (a, b):
        cos, sin = np.abs(np.cos(boxes[:, 4])), np.abs(np.sin(boxes[:, 4]))
        w, h = boxes[:, 2] * cos + boxes[:, 3] * sin, boxes[:, 2] * sin + boxes[:, 3] * cos
        hulls.append(np.column_stack([boxes[:, 0] - w / 2, boxes[:, 1] - h / 2, w, h]))
    return pairwise_iou(*hulls)


def gaussian_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """1 minus the Hellinger distance of the boxes as Gaussians (Llerena et al., ProbIoU, 2021, eq. 9)."""
    mean_a, mean_b = a[:, None, :2], b[None, :, :2]
    sum_of = covariances(a)[:, None] + covariances(b)[None]
    gap = mean_a - mean_b
    mahalanobis = np.einsum("nmi,nmij,nmj->nm", gap, np.linalg.inv(sum_of), gap) / 4
    determinants = [np.linalg.det(covariances(x)) for x in (a, b)]
    volume = np.linalg.det(sum_of / 2) / np.sqrt(determinants[0][:, None] * determinants[1][None])
    distance = mahalanobis + np.log(volume) / 2
    return 1 - np.sqrt(np.clip(1 - np.exp(-distance), 0, 1))


def covariances(boxes: np.ndarray) -> np.ndarray:
    cos, sin = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    turn = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
    spread = np.zeros((len(boxes), 2, 2))
    spread[:, 0, 0], spread[:, 1, 1] = boxes[:, 2] ** 2 / 12, boxes[:, 3] ** 2 / 12
    return turn @ spread @ turn.transpose(0, 2, 1)


def greedy_ap(truth, found, overlap) -> np.ndarray:
    """AP at each threshold by COCO's greedy match with any overlap; difficult truth counts neither way."""
    result = []
    for threshold in THRESHOLDS:
        aps = []
        for k in range(len(truth.categories)):
            flags = []
            for image in range(len(truth.images)):
                gts, dets = (
                    t.boxes.filter((t.boxes["image_id"] == image) & (t.boxes["category_id"] == k))
                    for t in (truth, found)
                )
                dets = dets.sort("score", descending=True)
                iou = overlap(rows_of(dets), rows_of(gts)) if len(gts) and len(dets) else None
                flags += match_one(iou, dets["score"].to_numpy(), gts["difficult"].to_numpy(), threshold)
            flags.sort(key=lambda pair: -pair[0])
            count = truth.boxes.filter((truth.boxes["category_id"] == k) & ~truth.boxes["difficult"])
            aps.append(average_precision(np.array([f for _, f in flags if f is not None], bool), len(count)))
        result.append(np.mean(aps))
    return np.array(result)


def match_one(iou, scores, difficult, threshold) -> list:
    """Score and whether it is true of each detection; None where it doesn't count."""
    taken, flags = set(), []
    for d, score in enumerate(scores):
        row = np.array([]) if iou is None else iou[d]
        free = [g for g in np.flatnonzero(row >= threshold) if g not in taken and not difficult[g]]
        if free:
            taken.add(max(free, key=lambda g: row[g]))
            flags.append((score, True))
        else:
            flags.append((score, None if (row[difficult] >= threshold).any() else False))
    return flags


def rows_of(boxes) -> np.ndarray:
    x, y, w, h, angle = (boxes[c].to_numpy() for c in ("x", "y", "w", "h", "angle"))
    return np.column_stack([x + w / 2, y + h / 2, w, h, angle])


if __name__ == "__main__":
    main()
