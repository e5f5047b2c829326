"""Run a detector over a loader and bring its boxes home to the original images."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import polars as pl
import torch
from torch import Tensor

from boxwright.config.experiment import View
from boxwright.data.tables import BOX_SCHEMA, CATEGORY_SCHEMA, HEADING_CERTAINTY, Tables, frame
from boxwright.data.targets import Batch
from boxwright.data.transforms import invert, transform_boxes, transform_landmarks, transform_oriented
from boxwright.models.detections import Detections
from boxwright.models.detector import Detector, full_precision
from boxwright.prediction.sweep import sweep_images
from boxwright.prediction.views import from_view, fuse_views, to_view

WITH_ANGLE = 8  # columns of an oriented detection; one more has how certain its heading is


@torch.no_grad()
def detect(
    model: Detector,
    batches: Iterable[Batch],
    device: torch.device,
    views: Sequence[View] = ("plain",),
    autocast: Callable[[], AbstractContextManager] = nullcontext,
    tell: Callable[[int], None] = lambda count: None,
    angles: Sequence[float] = (),
) -> list[np.ndarray]:
    """Detections in original pixels.

    Args:
        model: a detector in eval mode.
        batches: of images fitted without augmentation.
        device: where the model is.
        views: flips that each image is looked at in; the boxes of several are fused.
        autocast: makes the context of mixed precision.
        tell: called with the number of images of each batch.
        angles: of a sweep, radians, in place of views: oriented boxes from a detector of upright ones.

    Returns:
        For each image rows of image, label, score, and x1, y1, x2, y2, with landmarks x, y of each, or cx,
        cy, w, h, angle, with the certainty of headings of several views; (N, 7, 17, 8 or 9) float64.
    """
    rows = []
    for batch in batches:
        moved = batch.to(device)
        if angles:
            found = sweep_images(model, moved.images, moved.sizes, angles)
        else:
            found = detect_images(model, moved.images, moved.sizes, views, autocast)
        for detections, index, matrix in zip(found, batch.indices, batch.matrices):
            found_boxes = detections.boxes.cpu().numpy().astype(np.float64)
            move = transform_oriented if found_boxes.shape[1] == 5 else transform_boxes
            boxes = move(found_boxes, invert(matrix.numpy()))
            columns = [np.full(len(boxes), float(index)), detections.labels.cpu(), detections.scores.cpu()]
            columns.append(boxes)
            if detections.landmarks is not None:
                points = detections.landmarks.cpu().numpy().astype(np.float64)
                columns.append(transform_landmarks(points, invert(matrix.numpy())).reshape(len(points), -1))
            if detections.heading_certainty is not None:
                columns.append(detections.heading_certainty.cpu())
            rows.append(np.column_stack(columns))
        tell(len(found))
    return rows


@torch.no_grad()
def detect_images(
    model: Detector,
    images: Tensor,
    sizes: Tensor,
    views: Sequence[View] = ("plain",),
    autocast: Callable[[], AbstractContextManager] = nullcontext,
) -> list[Detections]:
    """Detections of images (B, 3, H, W) with content of `sizes` (B, 2), in their own pixels."""
    seen = [_detect_view(model, images, sizes, view, autocast) for view in views]
    limits = model.selection.iou_threshold, model.selection.max_detections
    return fuse_views(seen, *limits, headings=model.finds_headings)


def _detect_view(
    model: Detector,
    images: Tensor,
    sizes: Tensor,
    view: View,
    autocast: Callable[[], AbstractContextManager],
) -> list[Detections]:
    """Detections seen in a view, in the coordinates of the images as they were."""
    seen, seen_sizes = to_view(images, sizes, view)
    with autocast():
        outputs = model(seen)
    found = model.decode(full_precision(outputs), seen_sizes)
    return [from_view(d, size, view) for d, size in zip(found, sizes)]


def to_tables(rows: list[np.ndarray], images: pl.DataFrame, categories: list[str], source: str) -> Tables:
    """Rows of `detect` as tables over `images`, in their order; upright boxes are cut at the borders."""
    stacked = np.concatenate([r for r in rows if len(r)] or [np.zeros((0, 7))])
    stacked = stacked[np.lexsort((-stacked[:, 2], stacked[:, 0]))]
    image_id = stacked[:, 0].astype(np.int64)
    sides = [images[side].cast(pl.Float64).fill_null(np.inf).to_numpy() for side in ("width", "height")]
    columns: dict = to_columns(stacked, np.stack(sides, axis=1)[image_id])
    if "landmarks" in columns:
        columns["landmarks"] = columns["landmarks"].tolist()
    if stacked.shape[1] == WITH_ANGLE + 1:
        columns["attributes"] = [f'{{"{HEADING_CERTAINTY}":{sure:.3f}}}' for sure in stacked[:, WITH_ANGLE]]
    columns |= {"image_id": image_id, "source": [source] * len(stacked), "area": columns["w"] * columns["h"]}
    named = {"category_id": np.arange(len(categories)), "name": categories}
    return Tables(images, frame(BOX_SCHEMA, columns), frame(CATEGORY_SCHEMA, named))


def to_columns(rows: np.ndarray, sizes: np.ndarray) -> dict[str, np.ndarray]:
    """Class, score, place, and angle or landmarks of rows of `detect`, named as in box tables.

    Args:
        rows: (N, K).
        sizes: (N, 2) widths and heights of their images, whose borders upright boxes are cut at.
    """
    more = {}
    if rows.shape[1] in (WITH_ANGLE, WITH_ANGLE + 1):
        size, start = rows[:, 5:7], rows[:, 3:5] - rows[:, 5:7] / 2
        more["angle"] = rows[:, 7]
    else:
        corners = np.clip(rows[:, 3:7], 0, np.tile(sizes, 2))
        start, size = corners[:, :2], corners[:, 2:] - corners[:, :2]
    if rows.shape[1] > WITH_ANGLE + 1:
        more["landmarks"] = rows[:, 7:]
    columns = {"category_id": rows[:, 1].astype(np.int32), "score": rows[:, 2]}
    return columns | dict(zip("xywh", [*start.T, *size.T])) | more
