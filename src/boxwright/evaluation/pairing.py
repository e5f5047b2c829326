"""Two tables that belong together: the same images, the same categories."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from boxwright.data import formats
from boxwright.data.confident import thresholds_by_name, with_thresholds
from boxwright.data.formats.coco_results import COUNTED
from boxwright.data.formats.guessing import guess_or_none
from boxwright.data.formats.options import ReadOptions
from boxwright.data.naming import join_names
from boxwright.data.tables import Tables
from boxwright.errors import DataError, Fault
from boxwright.evaluation.calibration import load_calibration

TABLE = {"image": "images", "category": "categories"}
UNSEEN = "unseen-images"  # the code of a fault
TOLD = (UNSEEN, COUNTED)  # faults of predictions that everybody should know who sees a number of them


def read_pair(
    truth: Tables | str | os.PathLike,
    predictions: Tables | str | os.PathLike,
    calibration: str | os.PathLike | None = None,
    whole: bool = False,
) -> tuple[Tables, Tables]:
    """Truth and predictions, read where they are paths, over the truth's images and categories.

    `calibration` is a file of `calibrate`, applied to the predictions.

    Raises:
        DataError: a file can't be read, the two don't belong together, or the predictions are of a part of
            the truth's images where the `whole` is wanted.
    """
    truth = truth if isinstance(truth, Tables) else formats.read(truth)
    if not isinstance(predictions, Tables):
        known = truth if guess_or_none(Path(predictions)) in formats.OF_TRUTH else None
        predictions = formats.read(predictions, options=ReadOptions(truth=known))
    predictions = align(truth, predictions)
    unseen = next((fault for fault in predictions.faults if fault.code == UNSEEN), None)
    if whole and unseen is not None:
        raise DataError(f"{unseen.message} Expected predictions of every image.")
    if calibration is not None:
        predictions = load_calibration(calibration).apply(predictions)
    return truth, predictions


def align(truth: Tables, predictions: Tables, scored: bool = True) -> Tables:
    """The predictions over the truth's images and categories.

    Images are joined by file name where both have names (`train/a.jpg` and `a.jpg` are one where no other
    image ends so) or are one file, else by the id of their source; categories by name, else by that id.
    Images of the truth that the predictions don't have become a fault, see `tell_unseen`.

    Raises:
        DataError: a prediction is for an image or a category that the truth doesn't have, or, where all are
            to be `scored`, has no score, or none could be read.
    """
    if scored and predictions.boxes["score"].null_count():
        count = predictions.boxes["score"].null_count()
        raise DataError(f"{count:,} of the predicted boxes have no score; is this truth?")
    lost = next((fault for fault in predictions.faults if fault.dropped), None)
    if scored and lost is not None and not len(predictions.boxes):
        raise DataError(f"none of the predictions can be read, first: {lost.place}: {lost.message}")
    named = predictions.categories["name"].equals(truth.categories["name"])
    if predictions.images is truth.images and named:
        return predictions
    image_of = _join(truth.images, predictions.images, "file_name", "image")
    category_of = _join(truth.categories, predictions.categories, "name", "category")
    boxes = predictions.boxes
    image_id, category_id = (
        image_of[boxes["image_id"].to_numpy()],
        category_of[boxes["category_id"].to_numpy()],
    )
    for what, ids, table, key in (
        ("image", image_id, predictions.images, "file_name"),
        ("category", category_id, predictions.categories, "name"),
    ):
        if (ids < 0).any():
            row = int(np.flatnonzero(ids < 0)[0])
            own = table.row(int(boxes[f"{what}_id"][row]), named=True)
            name = own[key] if own[key] is not None else own["source_id"]
            by_id = own[key] is None and getattr(truth, TABLE[what])["source_id"].null_count()
            raise DataError(
                f"{int((ids < 0).sum()):,} predictions are for an {what} that the truth doesn't have, "
                f"first '{name}' (of {predictions.boxes['source'][row]})."
                + (" The truth has no ids: --truth-images FILE takes them from a COCO file." if by_id else "")
            )
    columns = {
        "image_id": pl.Series(image_id, dtype=pl.Int64),
        "category_id": pl.Series(category_id, dtype=pl.Int32),
    }
    categories = with_thresholds(truth.categories, thresholds_by_name(predictions.categories))
    seen = np.isin(np.arange(len(truth.images)), image_of)
    faults = (*predictions.faults, *tell_unseen(truth.images, seen, scored))
    return Tables(truth.images, boxes.with_columns(**columns), categories, faults)


def tell_unseen(images: pl.DataFrame, seen: np.ndarray, scored: bool = True) -> list[Fault]:
    """A fault where predictions, or a second table of labels, are not of all `images`; `seen`: (I,)."""
    if seen.all():
        return []
    count, row = f"{(~seen).sum():,} of {len(seen):,} images", int(np.argmin(seen))
    name = images["file_name"][row]
    first = images["source_id"][row] if name is None else name
    message = (
        f"{count} of the truth aren't among those of the predictions, first '{first}': all that they show"
        " counts as missed."
        if scored
        else f"{count} of A aren't in B, first '{first}': their boxes count as A's alone."
    )
    return [Fault(UNSEEN, "warning", "predictions" if scored else "B", message)]


def notes_on(faults: Sequence[Fault]) -> list[str]:
    """What stands in `TOLD` of the faults of aligned predictions, a sentence each."""
    return [fault.message for fault in faults if fault.code in TOLD]


def rows_of_images(truth: Tables, predictions: Tables, row_of: dict[str, int]) -> np.ndarray:
    """(images of `predictions`,) row of each in the truth, or -1; `row_of` has those of the truth's names."""
    rows = np.array([row_of.get(name, -1) for name in predictions.images["file_name"]], dtype=np.int64)
    return _join(truth.images, predictions.images, "file_name", "image") if (rows < 0).any() else rows


def _join(truth: pl.DataFrame, predictions: pl.DataFrame, key: str, what: str) -> np.ndarray:
    """(rows of `predictions`,) row of `truth` or -1."""
    named = truth[key].null_count() == 0 and predictions[key].null_count() == 0
    # Results alone hold ids where names would be; then the ids speak.
    if (
        named
        and what == "category"
        and predictions["name"].to_list() == [str(i) for i in predictions["source_id"]]
    ):
        named = truth["name"].to_list() == predictions["name"].to_list()
    column = key if named else "source_id"
    if truth[column].null_count() == 0 and truth[column].n_unique() < len(truth):
        repeated = truth.filter(truth[column].is_duplicated())[column][0]
        raise DataError(
            f"two {what} rows of the truth are both '{repeated}'; predictions can't be told apart."
        )
    row_of = {value: n for n, value in enumerate(truth[column]) if value is not None}
    rows = [row_of.get(v, -1) for v in predictions[column]]
    if column == "file_name" and -1 in rows:
        rows = join_names(truth[column].to_list(), predictions[column].to_list())
        rows = _join_files(truth["path"].to_list(), predictions["path"].to_list(), rows)
    return np.array(rows, dtype=np.int64)


def _join_files(places: list[str | None], wanted: list[str | None], rows: list[int]) -> list[int]:
    """The rows, and for those that have none that of the same file: parts may have images of one name."""
    if -1 not in rows:
        return rows
    row_of = {os.path.realpath(place): n for n, place in enumerate(places) if place is not None}
    found = [-1 if place is None else row_of.get(os.path.realpath(place), -1) for place in wanted]
    taken = set(rows)
    return [other if row < 0 and other not in taken else row for row, other in zip(rows, found)]
