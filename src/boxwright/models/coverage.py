"""How many anchors or points are assigned to each box of a data set, and which boxes get none."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from boxwright.data.dataset import DetectionDataset
from boxwright.data.targets import Targets
from boxwright.errors import DataError
from boxwright.models.detector import Detector, collate_for
from boxwright.models.points import count_priors
from boxwright.models.set_boxes import kind_of
from boxwright.progress import progress_bar

SIZE_EDGES = (8, 16, 32, 64, 128, 256)  # px of the network's input, roots of areas
ASPECT_EDGES = (1.5, 2.5, 4.0)  # long side over short
BATCH = 16


@dataclass(frozen=True)
class Coverage:
    """Boxes as the network sees them, and the priors assigned to them.

    Attributes:
        sizes: (N, 2) widths and heights, pixels of the input.
        priors: (N,) anchors or points assigned to each.
        images: (N,) image of each.
    """

    sizes: np.ndarray
    priors: np.ndarray
    images: np.ndarray

    @property
    def none(self) -> int:
        """Boxes without an assigned prior."""
        return int((self.priors == 0).sum())

    def rows(self) -> list[dict[str, Any]]:
        """By size: boxes, those without a prior, priors a box, and "none of all" by aspect ratio."""
        side = np.sqrt(self.sizes.prod(axis=1))
        aspect = self.sizes.max(axis=1) / np.maximum(self.sizes.min(axis=1), 1e-9)
        size_bin, aspect_bin = np.digitize(side, SIZE_EDGES), np.digitize(aspect, ASPECT_EDGES)
        size_names, aspect_names = _names(SIZE_EDGES, " px"), _names(ASPECT_EDGES, ":1")
        rows = []
        for n, name in [*enumerate(size_names), (None, "all")]:
            mine = size_bin == n if n is not None else np.ones(len(side), dtype=bool)
            if not mine.any():
                continue
            lost = mine & (self.priors == 0)
            row: dict[str, Any] = {"size": name, "boxes": int(mine.sum()), "none": int(lost.sum())}
            row |= {
                "none %": 100 * row["none"] / row["boxes"],
                "priors a box": float(self.priors[mine].mean()),
            }
            for k, aspect_name in enumerate(aspect_names):
                count = int((mine & (aspect_bin == k)).sum())
                row[aspect_name] = f"{int((lost & (aspect_bin == k)).sum())}/{count}" if count else "-"
            rows.append(row)
        return rows


def coverage(
    model: Detector, dataset: DetectionDataset, limit: int | None = None, possible: bool = False
) -> Coverage:
    """Assign a data set's boxes as training does, but for its random changes.

    The network runs once, for the places of its priors; over every image where the assigner follows what is
    predicted.

    Args:
        model: its weights matter only where `follows_predictions`.
        dataset: without augmentation.
        limit: images looked at, spread over the set; None: all.
        possible: count the priors that could be assigned to a box; reads no image.

    Raises:
        DataError: there is no image.
    """
    if not len(dataset):
        raise DataError("there is no image, so there is nothing to assign.")
    sizes, priors, images = [], [], []
    for index, targets, counts in _assigned(model, dataset, limit, possible):
        wanted = targets.mask
        boxes = targets.boxes[wanted]
        sizes.append((boxes[:, 2:] - boxes[:, :2]).numpy())
        priors.append(counts[wanted].numpy())
        images.append(torch.tensor(index)[:, None].expand_as(wanted)[wanted].numpy())
    return Coverage(np.concatenate(sizes), np.concatenate(priors), np.concatenate(images))


def priors_of(outputs: dict[str, torch.Tensor]) -> np.ndarray:
    """(P, 4) xyxy of the anchors, of the hulls of the boxes that a set predictor has for its first image, or
    the points as boxes without area; pixels of the input.
    """
    if "image_size" in outputs:
        boxes = outputs["boxes"][0, -1]
        return kind_of(boxes).hulls(boxes, outputs["image_size"]).numpy()
    if "anchors" in outputs:
        return outputs["anchors"].numpy()
    return outputs["points"].repeat(1, 2).numpy()


def _assigned(
    model: Detector, dataset: DetectionDataset, limit: int | None, possible: bool
) -> Iterator[tuple[list[int], Targets, torch.Tensor]]:
    """Images, truth and (B, G) counts of priors, batch by batch."""
    total = len(dataset)
    chosen = np.linspace(0, total - 1, min(total, limit or total)).round().astype(int).tolist()
    outputs, collate = None, collate_for(model)
    with progress_bar("assign", len(chosen)) as advance, torch.no_grad():
        for start in range(0, len(chosen), BATCH):
            part = chosen[start : start + BATCH]
            if model.follows_predictions and not possible:
                batch = collate([dataset[i] for i in part])
                targets = batch.targets
                counts = count_priors(model.assign(model(batch.images), targets).matched_gt, targets)
            else:
                outputs = outputs or model(_blank(model, dataset.image_size))
                targets = collate([dataset.truth(i) for i in part]).targets
                counts = model.candidates(outputs, targets)
            yield part, targets, counts
            advance(len(part))


def _blank(model: Detector, image_size: tuple[int, int]) -> torch.Tensor:
    """An image of the size that the largest are padded to."""
    sides = (-(-max(side, model.least_side) // model.stride) * model.stride for side in image_size[::-1])
    return torch.zeros(1, 3, *sides)


def _names(edges: tuple[float, ...], unit: str) -> list[str]:
    text = [f"{e:g}" for e in edges]
    return [f"< {text[0]}", *(f"{a}-{b}" for a, b in pairwise(text)), f">= {text[-1]}{unit}"]
