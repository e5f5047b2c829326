"""Boxes drawn on pixels with OpenCV, fast enough for videos."""

from collections import deque
from collections.abc import Sequence

import cv2
import numpy as np
import polars as pl

from boxwright.data.builder import unpack
from boxwright.data.confident import confident
from boxwright.data.tables import Tables
from boxwright.geometry.conventions import corners

# Colours that stay apart for most kinds of colour blindness (Okabe and Ito, 2008).
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
RGB = tuple(tuple(bytes.fromhex(color[1:])) for color in PALETTE)
SHIFT = 4  # fractional bits of OpenCV's coordinates
TRAIL = 40  # frames that the way of a track is shown


class Annotator:
    """Draws the boxes of images, or of the frames of a video with their tracks' ways.

    Args:
        min_score: boxes below it aren't drawn; None: below their class's operating threshold, else 0.3.
    """

    def __init__(self, min_score: float | None = None):
        self.min_score = min_score
        self._ways: dict[int, deque[np.ndarray]] = {}

    def draw(self, pixels: np.ndarray, tables: Tables) -> np.ndarray:
        """A copy of an image (H, W, 3) uint8 RGB with all boxes of `tables`, which are its own."""
        tables = tables.with_boxes(tables.boxes.filter(confident(tables, self.min_score)))
        boxes, names = tables.boxes, tables.categories["name"].to_list()
        tracks = [unpack(text).get("track_id") for text in boxes["attributes"]]
        canvas, rotated = pixels.copy(), tables.rotated()
        width = max(1, round(max(canvas.shape[:2]) / 640))
        self._draw_ways(canvas, rotated, tracks, width)
        outlines = np.roll(corners(rotated), -1, axis=1)  # front first
        ahead = boxes["angle"].is_not_null().to_list()
        rows = zip(boxes["category_id"], boxes["score"], tracks, boxes["landmarks"], strict=True)
        labels = []
        for n, (category, score, track, landmarks) in enumerate(rows):
            color = RGB[(category if track is None else track) % len(RGB)]
            outline(canvas, outlines[n], color, width, ahead[n])
            for k, point in enumerate(_points(landmarks)):
                cv2.circle(canvas, _fixed(point), (width + 1) << SHIFT, RGB[k], -1, cv2.LINE_AA, SHIFT)
            score = "" if score is None else f" {score:.2f}"
            labels.append((outlines[n].min(axis=0), f"{names[category]}{score}{_number(track)}", color))
        for place, text, color in labels:  # above every box
            label(canvas, place, text, color, width)
        return canvas

    def _draw_ways(self, canvas: np.ndarray, rotated: np.ndarray, tracks: list, width: int) -> None:
        for track, box in zip(tracks, rotated):
            if track is not None:
                self._ways.setdefault(track, deque(maxlen=TRAIL)).append(box[:2].copy())
        for track in [t for t in self._ways if t not in tracks]:  # fades while unseen
            self._ways[track].popleft()
            if not self._ways[track]:
                del self._ways[track]
        for track, way in self._ways.items():
            points = np.rint(np.array(way) * (1 << SHIFT)).astype(np.int32)
            cv2.polylines(canvas, [points], False, RGB[track % len(RGB)], width, cv2.LINE_AA, SHIFT)


def outline(canvas: np.ndarray, points: np.ndarray, color: Sequence[int], width: int, ahead: bool) -> None:
    """The outline of a box by its corners (4, 2), front first; `ahead`: with a tick through its front."""
    fixed = np.rint(points * (1 << SHIFT)).astype(np.int32)
    cv2.polylines(canvas, [fixed], True, color, width, cv2.LINE_AA, SHIFT)
    if ahead:
        middle, front = points.mean(axis=0), points[:2].mean(axis=0)
        step = front - middle
        tip = front + step * min(1.0, 3 * width / max(float(np.linalg.norm(step)), 1e-9))
        cv2.line(canvas, _fixed(middle), _fixed(tip), color, width, cv2.LINE_AA, SHIFT)


def label(canvas: np.ndarray, place: np.ndarray, text: str, color: Sequence[int], width: int) -> None:
    """A name above a place; letters that OpenCV's font lacks are question marks."""
    text = text.encode("ascii", "replace").decode()
    scale = 0.35 * max(1.0, width * 0.8)
    (wide, high), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, max(1, width // 2))
    x = int(np.clip(place[0], 0, max(0, canvas.shape[1] - wide - 4)))
    y = int(np.clip(place[1] - 2, high + below + 2, canvas.shape[0]))
    cv2.rectangle(canvas, (x, y - high - below - 2), (x + wide + 4, y), color, -1)
    dark = sum(color) < 420
    shade = (255, 255, 255) if dark else (0, 0, 0)
    where = (x + 2, y - below)
    cv2.putText(canvas, text, where, cv2.FONT_HERSHEY_SIMPLEX, scale, shade, max(1, width // 2), cv2.LINE_AA)


def of_image(tables: Tables, image_id: int) -> Tables:
    """The tables with the boxes of one image alone."""
    return tables.with_boxes(tables.boxes.filter(pl.col("image_id") == image_id))


def _points(landmarks: list[float] | None) -> np.ndarray:
    return np.array(landmarks or [], dtype=np.float64).reshape(-1, 2)


def _number(track: int | None) -> str:
    return "" if track is None else f" #{track}"


def _fixed(point: np.ndarray) -> tuple[int, int]:
    x, y = np.rint(np.asarray(point) * (1 << SHIFT)).astype(int).tolist()
    return x, y
