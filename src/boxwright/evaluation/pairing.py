"""Two tables that belong together: the same images, the same categories."""

import os

import numpy as np
import polars as pl

from boxwright.data import formats
from boxwright.data.formats.options import ReadOptions
from boxwright.data.tables import Tables
from boxwright.errors import DataError
from boxwright.evaluation.calibration import load_calibration
from boxwright.evaluation.confident import thresholds_by_name, with_thresholds

TABLE = {"image": "images", "category": "categories"}


def read_pair(
    truth: Tables | str | os.PathLike,
    predictions: Tables | str | os.PathLike,
    calibration: str | os.PathLike | None = None,
) -> tuple[Tables, Tables]:
    """Truth and predictions, read where they are paths, over the truth's images and categories.

    `calibration` is a file of `calibrate`, applied to the predictions.

    Raises:
        DataError: a file can't be read, or the two don't belong together.
    """
    truth = truth if isinstance(truth, Tables) else formats.read(truth)
    if not isinstance(predictions, Tables):
        results = formats.guess_format(predictions) == "coco-results"
        predictions = formats.read(predictions, options=ReadOptions(truth=truth) if results else None)
    predictions = align(truth, predictions)
    if calibration is not None:
        predictions = load_calibration(calibration).apply(predictions)
    return truth, predictions


def align(truth: Tables, predictions: Tables, scored: bool = True) -> Tables:
    """The predictions over the truth's images and categories.

    Images are joined by file name where both have names (`train/a.jpg` and `a.jpg` are one where no other
    image ends so), else by the id of their source; categories by name, else by the id of their source.

    Raises:
        DataError: a prediction is for an image or a category that the truth doesn't have, or has no score
            where all are to be `scored`.
    """
    if scored and predictions.boxes["score"].null_count():
        count = predictions.boxes["score"].null_count()
        raise DataError(f"{count:,} of the predicted boxes have no score; is this truth?")
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
    return Tables(truth.images, boxes.with_columns(**columns), categories, predictions.faults)


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
        rows = _join_ends(list(row_of), predictions[column].to_list(), rows)
    return np.array(rows, dtype=np.int64)


def _join_ends(names: list[str], wanted: list[str], rows: list[int]) -> list[int]:
    """Rows of names that end as others do, or that others end as, where no second does.

    A file that stands elsewhere calls the same images by another path.
    """
    ends: dict[str, int] = {}
    for n, name in enumerate(names):
        for end in _ends(name):
            ends[end] = -1 if end in ends else n
    whole = {_ends(name)[0]: n for n, name in enumerate(names)}
    taken: dict[int, int] = {}
    result = list(rows)
    for k, (name, row) in enumerate(zip(wanted, rows)):
        if row < 0:
            own = _ends(name)
            row = ends.get(own[0], -1)
            row = next((whole[end] for end in own[1:] if end in whole), -1) if row < 0 else row
        if row >= 0 and taken.setdefault(row, k) != k:
            raise DataError(
                f"'{name}' and '{wanted[taken[row]]}' of the predictions both are '{names[row]}'."
            )
        result[k] = row
    return result


def _ends(name: str) -> list[str]:
    """A file name without what leads up, and with less and less of its folders."""
    parts = [p for p in name.split("/") if p not in ("", ".", "..")]
    return ["/".join(parts[n:]) for n in range(len(parts))] or [name]
