"""What labels of other images say of the same places: of frames of a flight, or of a camera that looks on."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from boxwright.auditing.evidence import Evidence, differences, judged_labels
from boxwright.auditing.fingerprints import fingerprint
from boxwright.auditing.overlaps import find_pairs
from boxwright.auditing.pairs import Pairs, best, greatest, joined, overlapping
from boxwright.data.tables import Tables
from boxwright.geometry.conventions import respell_like

MOST = 15  # images that each is compared with
HELD = 1_000_000  # labels of other images that are compared at a time
TOGETHER = 2000  # images, neighbours by name as frames are, among which these are looked for
LEAST_IOU, LABELLED = 0.05, 0.3  # with a label of another image: what tells anything, and what is the object
ELSEWHERE_NUMBERS = (
    "shown",  # in how many other images all of it can be seen; where in none, all else is NaN
    "same",  # greatest IoU with a label of its class there
    "other",  # of another class
    "labelled",  # in which share of these images a label lies there, of any class
    "far",  # beside the label that it overlaps most: as in `LABEL_NUMBERS`
    "grown",
    "angle",
    "heading",
)
Boxes = tuple[np.ndarray, np.ndarray, np.ndarray]  # (N, 5), and two numbers of each


class Elsewhere:
    """Images of a set that show the same places, and what their labels say of a box.

    A car that stands there is labelled in each of them, a window in none. What moves is at its place in one
    alone, so that little is told of it.

    Args:
        tables: whose images have files; those that can't be read show nothing.
        tell: called after each image.
    """

    def __init__(self, tables: Tables, tell: Callable[[int], None] = lambda count: None):
        paths, order = tables.images["path"].to_list(), tables.images["file_name"].arg_sort().to_list()
        moves: dict[tuple[int, int], np.ndarray] = {}
        self._sizes = np.ones((len(paths), 2))
        for start in range(0, len(order), TOGETHER):
            block = order[start : start + TOGETHER]
            points = fingerprint([paths[n] for n in block], [None] * len(block), tell, points=True).points
            self._sizes[block] = [image.size for image in points]
            for first, second, fit in find_pairs(points, MOST):
                there, here = block[first], block[second]
                moves[there, here] = fit.moved
                moves.setdefault((here, there), cv2.invertAffineTransform(fit.moved))
        self._from, self._to = np.array(list(moves), dtype=int).reshape(-1, 2).T
        self._moves = np.array(list(moves.values())).reshape(-1, 2, 3)

    def beside(self, evidence: Evidence, tables: Tables, labels: Tables) -> Evidence:
        """Evidence of some boxes with `ELSEWHERE_NUMBERS` behind its numbers.

        Args:
            evidence: about boxes of `tables`.
            tables, labels: over the images of this set; `labels` are those of the other images.
        """
        boxes, image, category = _boxes(tables, evidence.rows)
        known = _boxes(labels, np.flatnonzero(judged_labels(labels)))
        turns = "whole" if labels.has_headings() else "half" if labels.has_angles() else "none"
        numbers = np.full((len(boxes), len(ELSEWHERE_NUMBERS)), np.nan)
        numbers[:, 0] = 0
        labels_of = np.bincount(known[1], minlength=len(self._sizes))
        part = np.cumsum(np.bincount(self._to, labels_of[self._from], len(self._sizes))) // HELD
        for n in np.unique(part[self._to]):
            own, moves = np.flatnonzero(part[image] == n), np.flatnonzero(part[self._to] == n)
            some = _Moves(self._from[moves], self._to[moves], self._moves[moves], self._sizes)
            numbers[own] = some.numbers((boxes[own], image[own], category[own]), known, turns)
        return replace(evidence, numbers=np.hstack([evidence.numbers, numbers]))


@dataclass(frozen=True)
class _Moves:
    """From images to others (K,), how points move (K, 2, 3), and the sizes of all images (I, 2)."""

    source: np.ndarray
    target: np.ndarray
    moves: np.ndarray
    sizes: np.ndarray

    def numbers(self, own: Boxes, known: Boxes, turns: str) -> np.ndarray:
        """`ELSEWHERE_NUMBERS` of some boxes, by labels of all images.

        Args:
            own, known: boxes, their images and categories.
            turns: that tell boxes apart: "whole" ones with headings, "half" ones, or "none" of upright boxes.
        """
        boxes, image, category = own
        moved, of_move, category_there = self._moved(known, turns == "none")
        count = len(boxes)
        box, move = self._shown(boxes, image)
        pairs = overlapping(boxes, image, moved, self.target[of_move], LEAST_IOU)
        width = len(self.moves)
        pairs = pairs.where(np.isin(pairs.first * width + of_move[pairs.second], box * width + move))
        same = category[pairs.first] == category_there[pairs.second]
        shown = np.bincount(box, minlength=count)
        close = pairs.where(pairs.iou >= LABELLED)
        images = np.unique(close.first * width + of_move[close.second]) // width
        columns = {
            "shown": shown.astype(float),
            "same": greatest(pairs.iou[same], pairs.first[same], count),
            "other": greatest(pairs.iou[~same], pairs.first[~same], count),
            "labelled": np.bincount(images, minlength=count) / np.maximum(shown, 1),
        }
        columns |= _beside_the_nearest(boxes, moved, pairs, turns != "whole")
        numbers = np.column_stack([columns[name] for name in ELSEWHERE_NUMBERS])
        numbers[shown == 0, 1:] = np.nan
        return numbers

    def _shown(self, boxes: np.ndarray, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(P,) boxes, and moves from images that show them: a circle around each lies within its image."""
        box, move = joined(image, self.target)
        back, scale = _inverse(self.moves)
        center = _moved_points(back[move], boxes[box, :2])
        reach = np.hypot(boxes[box, 2], boxes[box, 3])[:, None] * scale[move, None] / 2
        whole = ((center >= reach) & (center <= self.sizes[self.source[move]] - reach)).all(axis=1)
        return box[whole], move[whole]

    def _moved(self, known: Boxes, upright: bool) -> Boxes:
        """Labels (M, 5) as they lie in images that show their places, the move of each, and their classes."""
        boxes, image, category = known
        move, row = joined(self.source, image)
        moves, moved = self.moves[move], boxes[row].copy()
        moved[:, :2] = _moved_points(moves, moved[:, :2])
        moved[:, 2:4] *= np.hypot(moves[:, 0, 0], moves[:, 1, 0])[:, None]
        moved[:, 4] += np.arctan2(moves[:, 1, 0], moves[:, 0, 0])
        if upright:
            moved = respell_like(moved, np.zeros_like(moved))
            moved[:, 4] = 0  # as an annotator would have drawn it, more or less
        return moved, move, category[row]


def shown_elsewhere(evidence: Evidence, start: int) -> np.ndarray:
    """(N, 2) in how many other images each box can be seen, and in how many of them a label lies there.

    Args:
        evidence: with `ELSEWHERE_NUMBERS` from column `start` on.
    """
    shown, labelled = (evidence.numbers[:, start + ELSEWHERE_NUMBERS.index(n)] for n in ("shown", "labelled"))
    return np.rint(np.column_stack([shown, np.nan_to_num(labelled) * shown])).astype(int)


def _boxes(tables: Tables, rows: np.ndarray) -> Boxes:
    """(N, 5), their images and categories."""
    image, category = (tables.boxes[name].to_numpy()[rows] for name in ("image_id", "category_id"))
    return tables.rotated()[rows], image, category


def _beside_the_nearest(
    boxes: np.ndarray, moved: np.ndarray, pairs: Pairs, respelled: bool
) -> dict[str, np.ndarray]:
    """How the label of another image that each box (N, 5) overlaps most lies beside it; NaN for none."""
    nearest = np.append(pairs.second, -1)[best(pairs.iou, pairs.first, len(boxes))]
    there = np.vstack([moved, np.full(5, np.nan)])[nearest]
    if respelled:
        there = respell_like(there, boxes)
    return differences(boxes, there)


def _moved_points(moves: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (N, 2) by moves (N, 2, 3)."""
    return np.einsum("nij,nj->ni", moves[:, :, :2], points) + moves[:, :, 2]


def _inverse(moves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2, 3) moves back, and (N,) how many times as large they make what they move."""
    turn, shift = moves[:, :, :2], moves[:, :, 2]
    square = (turn[:, :, 0] ** 2).sum(axis=1)
    back = turn.swapaxes(1, 2) / square[:, None, None]
    shift = -np.einsum("nij,nj->ni", back, shift)
    return np.concatenate([back, shift[:, :, None]], axis=2), 1 / np.sqrt(square)
