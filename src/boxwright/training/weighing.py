"""Which training images are drawn more often than others, and which are hard."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import polars as pl

from boxwright.config.data import SamplingConfig
from boxwright.data import formats
from boxwright.data.confident import confident
from boxwright.data.dataset import DetectionDataset
from boxwright.data.formats.files import read_frame
from boxwright.data.naming import join_names
from boxwright.data.sampling import repeat_factors
from boxwright.data.tables import Tables
from boxwright.errors import ConfigError, DataError
from boxwright.evaluation.matching import image_places, match
from boxwright.evaluation.pairing import align
from boxwright.evaluation.slices import slices_of

PLACED = [f"{prefix}{name}" for prefix in ("", "new_") for name in "xywh"]  # before and after
CORRECTED = {"kind": pl.String(), "file_name": pl.String(), "iou": pl.Float64()}
CORRECTED |= dict.fromkeys(PLACED, pl.Float64())
IOU = 0.5  # from which a detection is one of an object


def weigh_images(tables: Tables, sampling: SamplingConfig) -> tuple[np.ndarray | None, np.ndarray | None]:
    """How often each training image is drawn, in the mean of an epoch, and how hard it is.

    Args:
        tables: of training.
        sampling: how.

    Returns:
        (images,) factors, None where all are drawn alike, and (images,) hardness in [0, 1], None where
        nothing tells it.

    Raises:
        ConfigError: a slice that no box has, or background where no image is without objects.
        DataError: predictions or corrections that can't be read or aren't of these images.
    """
    objects = tables.boxes.filter(~pl.col("crowd") & ~pl.col("ignore"))
    image = objects["image_id"].to_numpy()
    often = np.ones(len(tables.images))
    hardness = None if sampling.hard is None else errors_of_images(tables, sampling.hard)
    if hardness is not None:
        often *= 1 + sampling.gain * hardness
    if sampling.corrected is not None:
        often *= 1 + sampling.gain * corrections_of_images(tables, sampling.corrected)
    if sampling.balance is not None:
        alone = replace(tables, boxes=objects)
        for by in sampling.by:
            of_class = by == "class"
            group = objects["category_id"].to_numpy() if of_class else slices_of(alone, alone, by)[1]
            often *= repeat_factors(image, group, len(often), sampling.balance)
    if sampling.background is not None:
        empty = np.bincount(image, minlength=len(often)) == 0
        if not empty.any():
            raise ConfigError(
                f"data.sampling.background is {sampling.background:g}, but each of the {len(often):,} "
                "training images has an object. A source of role: background adds some without."
            )
        rest = often[~empty].sum()
        often[empty] *= sampling.background / (1 - sampling.background) * rest / often[empty].sum()
    return (None if (often == 1).all() else often), hardness


def groups_of_images(
    images: DetectionDataset, sources: Sequence[int], alike: Literal["shape", "source"] | None
) -> np.ndarray | None:
    """(images,) int64, those that may share a step: of one `shape`, width over height to the nearest root of
    two, or of one `source`; None: any.

    Args:
        images: of training.
        sources: images of each source.
        alike: see `SamplingConfig`.
    """
    if alike is None:
        return None
    if alike == "source":
        return np.repeat(np.arange(len(sources)), sources)
    width, height = np.array([images.size(n) for n in range(len(images))]).T
    return np.rint(2 * np.log2(width / height)).astype(np.int64)


def errors_of_images(truth: Tables, predictions: Tables | str | os.PathLike) -> np.ndarray:
    """(images,) how wrong each image's predictions are: misses, false alarms and displaced boxes together.

    It is LRP of each image's boxes of all classes, at the score thresholds that travel with the predictions:
    0 where all was found and nothing else, 1 where nothing was. Images that the predictions don't have are
    taken for the mean of the others.

    Source: Oksuz et al., Localization Recall Precision (LRP), ECCV 2018, eq. 1.

    Raises:
        DataError: a file can't be read, or none of its images is one of the truth.
    """
    found = predictions if isinstance(predictions, Tables) else formats.read(predictions)
    rows = np.array(join_names(truth.images["file_name"].to_list(), found.images["file_name"].to_list()), int)
    if not (rows >= 0).any():
        raise DataError(f"{predictions}: none of its {len(rows):,} images is one of training.")
    known = rows[found.boxes["image_id"].to_numpy()] >= 0
    # Of other images, those of validation say, nothing is asked.
    boxes = found.boxes.filter(pl.Series(confident(found) & known))
    matching = match(truth, align(truth, replace(found, boxes=boxes)), np.array([IOU]))
    (hit, false), images = matching.outcomes(), len(truth.images)

    def count(image: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(image, weights, minlength=images)[image_places(truth)]

    n_hit, n_false = count(matching.det_image[hit]), count(matching.det_image[false])
    objects = count(matching.gt_image[~matching.gt_ignored[0]])
    away = count(matching.det_image[hit], 1 - matching.iou_of_found()[hit]) / (1 - IOU)
    error = (away + n_false + objects - n_hit) / np.maximum(objects + n_false, 1)
    seen = np.isin(np.arange(images), rows)
    return np.where(seen, error, error[seen].mean())


def corrections_of_images(truth: Tables, table: str | os.PathLike) -> np.ndarray:
    """(images,) the share of each image's boxes that people had to correct, in [0, 1].

    A box that was moved counts by what its IoU with the one before lacks of 1, one that was missing, spurious
    or of another class or heading as a whole. Images that the table doesn't have were right.

    Args:
        truth: of training, with the corrected boxes.
        table: of `boxwright label report`.

    Raises:
        DataError: the file can't be read, is another table, or none of its images is one of training.
    """
    rows, of_row = _corrections(truth, table)
    moved = pl.col("kind").is_in(["location", "angle"])
    weight = rows.select(pl.when(moved).then(1 - pl.col("iou")).otherwise(1.0).alias("w"))["w"].to_numpy()
    own, count = of_row >= 0, len(truth.images)
    wrong = np.bincount(of_row[own], weight[own], minlength=count)
    gone = np.bincount(of_row[own & (rows["kind"] == "spurious").to_numpy()], minlength=count)
    boxes = np.bincount(truth.boxes["image_id"].to_numpy(), minlength=count)
    return wrong / np.maximum(boxes + gone, 1)


def places_of_corrections(truth: Tables, table: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """(M,) images and (M, 2) pixels, the centres of boxes that people corrected; of one that was taken out,
    where it was.

    Args:
        truth, table: see `corrections_of_images`.

    Raises:
        DataError: as `corrections_of_images`.
    """
    rows, of_row = _corrections(truth, table)
    x, y, w, h = (rows[f"new_{name}"].fill_null(rows[name]).to_numpy() for name in "xywh")
    own = of_row >= 0
    return of_row[own], np.column_stack([x + w / 2, y + h / 2])[own]


def _corrections(truth: Tables, table: str | os.PathLike) -> tuple[pl.DataFrame, np.ndarray]:
    """A table of corrections, and of each the training image, -1 for another."""
    rows = read_frame(table, CORRECTED, "the corrections of `boxwright label report`")
    names = rows["file_name"].unique(maintain_order=True).to_list()
    image = np.array(join_names(truth.images["file_name"].to_list(), names), int)
    if names and not (image >= 0).any():
        raise DataError(f"{table}: none of its {len(names):,} images is one of training.")
    place = dict(zip(names, image.tolist()))
    return rows, np.array([place[name] for name in rows["file_name"]], int)
