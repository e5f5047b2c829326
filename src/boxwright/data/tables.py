"""The three tables that everything reads and writes: images, boxes, categories.

Ground truth, predictions, pseudo-labels and a second annotator's labels are all a box table beside an
image table and a list of categories. The schemas below are the only contract between packages.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import orjson
import polars as pl

from boxwright.errors import DataError, Fault

ROUNDING = 1e-6  # radians, of an angle that is written as text
LANDMARKS = 5  # points of a face: eyes, nose, corners of the mouth; the image's left before its right
MIRRORED = (1, 0, 2, 4, 3)  # which landmark each is in a mirror

BOX_SCHEMA: dict[str, pl.DataType] = {
    "image_id": pl.Int64(),  # row of the image table
    "category_id": pl.Int32(),  # row of the category table
    "x": pl.Float64(),  # top-left corner before rotation, pixels
    "y": pl.Float64(),
    "w": pl.Float64(),  # along the heading
    "h": pl.Float64(),
    "angle": pl.Float64(),  # radians about the centre, clockwise on screen; null: upright
    "score": pl.Float64(),  # confidence; null: truth
    "crowd": pl.Boolean(),  # COCO's iscrowd
    "ignore": pl.Boolean(),  # neither object nor background
    "difficult": pl.Boolean(),  # VOC's difficult
    "area": pl.Float64(),  # pixels; the annotation's own where it gives one, else w * h
    "landmarks": pl.List(pl.Float64()),  # x, y of each of `LANDMARKS`, pixels; null: none
    "source": pl.String(),  # data set, annotator or model
    "attributes": pl.String(),  # whatever else the format carries, as a JSON object; null: nothing
}
HEADING_CERTAINTY = "heading_certainty"  # attribute of a detection, in [0, 1]
IMAGE_SCHEMA: dict[str, pl.DataType] = {
    "image_id": pl.Int64(),  # 0, 1, 2 ...: the row
    "file_name": pl.String(),  # as the annotation names it
    "path": pl.String(),  # where the file is expected; null: unknown
    "width": pl.Int32(),  # null: unknown
    "height": pl.Int32(),
    "source_id": pl.Int64(),  # the id in the file it came from; null: it had none
    "attributes": pl.String(),
}
CATEGORY_SCHEMA: dict[str, pl.DataType] = {
    "category_id": pl.Int32(),  # 0, 1, 2 ...: the row
    "name": pl.String(),
    "source_id": pl.Int64(),
    "attributes": pl.String(),
}


@dataclass(frozen=True)
class Tables:
    """Images, boxes and categories that belong together, and the faults met while reading them.

    Attributes:
        images: one row an image, `IMAGE_SCHEMA`.
        boxes: one row a box, `BOX_SCHEMA`.
        categories: one row a category, `CATEGORY_SCHEMA`.
        faults: what was wrong with the source.

    Raises:
        DataError: a column is missing, of another type, or breaks what the schema promises.
    """

    images: pl.DataFrame
    boxes: pl.DataFrame
    categories: pl.DataFrame
    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        _check_schema("images", self.images, IMAGE_SCHEMA)
        _check_schema("boxes", self.boxes, BOX_SCHEMA)
        _check_schema("categories", self.categories, CATEGORY_SCHEMA)
        for name, frame, key in (
            ("images", self.images, "image_id"),
            ("categories", self.categories, "category_id"),
        ):
            ids = frame[key].to_numpy()
            if not np.array_equal(ids, np.arange(len(frame))):
                raise DataError(f"{name} table: {key} must be 0, 1, 2 ... in order.")
            used = self.boxes[key].to_numpy()
            if len(used) and (used.min() < 0 or used.max() >= len(frame)):
                raise DataError(
                    f"boxes table: {key} runs from {used.min()} to {used.max()}, "
                    f"but there are {len(frame)} {name}."
                )
        numbers = self.boxes.select("x", "y", "w", "h").to_numpy()
        if not np.isfinite(numbers).all() or (numbers[:, 2:] < 0).any():
            raise DataError("boxes table: x, y, w, h must be finite, and w, h not negative.")
        given = self.boxes["landmarks"].drop_nulls()
        if (given.list.len() != 2 * LANDMARKS).any() or not given.explode().is_finite().all():
            raise DataError(f"boxes table: landmarks must be {2 * LANDMARKS} finite numbers, or null.")

    def with_boxes(self, boxes: pl.DataFrame) -> "Tables":
        """The same images and categories with other boxes."""
        return replace(self, boxes=boxes)

    def upright(self) -> np.ndarray:
        """x, y, w, h of the boxes' upright hulls, (N, 4) float64 pixels; those without angle bit for bit."""
        return upright_hulls(self.boxes)

    def without_angles(self) -> "Tables":
        """The tables with the upright hulls of oriented boxes in their place."""
        if not self.has_angles():
            return self
        hulls = self.upright()
        columns = {name: pl.Series(hulls[:, n]) for n, name in enumerate("xywh")}
        oriented = pl.col("angle").is_not_null()
        area = pl.when(oriented).then(pl.Series(hulls[:, 2] * hulls[:, 3])).otherwise(pl.col("area"))
        boxes = self.boxes.with_columns(area=area, **columns)
        return self.with_boxes(boxes.with_columns(angle=pl.lit(None, dtype=pl.Float64)))

    def has_angles(self) -> bool:
        """Whether any box is oriented."""
        return self.boxes["angle"].null_count() < len(self.boxes)

    def has_headings(self) -> bool:
        """Whether some angle points backwards, so that angles tell front from back."""
        return bool((self.boxes["angle"].abs() > np.pi / 2 + ROUNDING).any())

    def rotated(self) -> np.ndarray:
        """cx, cy, w, h, angle of the boxes, (N, 5) float64; angle 0 where they have none."""
        x, y, w, h = (self.boxes[c].to_numpy() for c in "xywh")
        return np.column_stack([x + w / 2, y + h / 2, w, h, self.boxes["angle"].fill_null(0.0).to_numpy()])

    def landmarks(self) -> np.ndarray:
        """x, y of the boxes' landmarks, (N, LANDMARKS, 2) float64 pixels; NaN where they have none."""
        shape, given = (len(self.boxes), LANDMARKS, 2), self.boxes["landmarks"].is_not_null().to_numpy()
        if not given.any():
            return np.broadcast_to(np.nan, shape)  # which takes no memory
        points = np.full(shape, np.nan)
        points[given] = self.boxes["landmarks"].drop_nulls().explode().to_numpy().reshape(-1, LANDMARKS, 2)
        return points

    def rows_by_image(self, wanted: np.ndarray | None = None) -> list[np.ndarray]:
        """Rows of the boxes of each image, in their order; of those in `wanted` (N,) bool alone."""
        rows = np.arange(len(self.boxes)) if wanted is None else np.flatnonzero(wanted)
        image = self.boxes["image_id"].to_numpy()[rows]
        order = np.argsort(image, kind="stable")
        bounds = np.searchsorted(image[order], np.arange(len(self.images) + 1))
        return [rows[order[a:b]] for a, b in pairwise(bounds)]

    def videos(self) -> list[str]:
        """The video of each image: its attribute "video", else the folder of its file name."""
        named = [orjson.loads(text).get("video") if text else None for text in self.images["attributes"]]
        return [
            str(video) if video is not None else (name or "").rpartition("/")[0]
            for video, name in zip(named, self.images["file_name"])
        ]

    def frames(self) -> np.ndarray:
        """(I,) frame of each image in its video: its attribute "frame" where that is a whole number, else its
        place among the video's images, from 1."""
        count: dict[str, int] = {}
        found = np.zeros(len(self.images), dtype=np.int64)
        for n, (video, text) in enumerate(zip(self.videos(), self.images["attributes"])):
            count[video] = count.get(video, 0) + 1
            given = orjson.loads(text).get("frame") if text else None
            found[n] = given if isinstance(given, int) else count[video]
        return found

    def select_images(self, keep: Sequence[bool] | np.ndarray) -> "Tables":
        """The images where `keep` (I,) bool is true, with their boxes, numbered anew."""
        keep = np.asarray(keep, dtype=bool)
        new_id = np.cumsum(keep) - 1
        images = self.images.filter(keep).with_columns(image_id=pl.int_range(int(keep.sum()), dtype=pl.Int64))
        of_box = self.boxes["image_id"].to_numpy()
        boxes = self.boxes.filter(keep[of_box]).with_columns(
            image_id=pl.Series(new_id[of_box[keep[of_box]]], dtype=pl.Int64)
        )
        return replace(self, images=images, boxes=boxes)


def upright_hulls(boxes: pl.DataFrame) -> np.ndarray:
    """See `Tables.upright`."""
    xywh = boxes.select("x", "y", "w", "h").to_numpy().copy()
    oriented = np.flatnonzero(boxes["angle"].is_not_null())
    if len(oriented):
        x, y, w, h = xywh[oriented].T
        angle = boxes["angle"].to_numpy()[oriented]
        cos, sin = np.abs(np.cos(angle)), np.abs(np.sin(angle))
        width, height = w * cos + h * sin, w * sin + h * cos
        xywh[oriented] = np.stack([x + (w - width) / 2, y + (h - height) / 2, width, height], axis=1)
    return xywh


def frame(schema: dict[str, pl.DataType], columns: dict) -> pl.DataFrame:
    """A frame with exactly `schema`: columns that are not given are null (flags: false)."""
    length = max((len(values) for values in columns.values()), default=0)
    blank = {
        name: pl.Series(name, [False if kind == pl.Boolean() else None], dtype=kind).new_from_index(0, length)
        for name, kind in schema.items()
        if name not in columns
    }
    given = {
        name: pl.Series(name, values, dtype=schema[name], strict=True) for name, values in columns.items()
    }
    return pl.DataFrame({name: given.get(name, blank.get(name)) for name in schema})


def _check_schema(name: str, table: pl.DataFrame, schema: dict[str, pl.DataType]) -> None:
    for column, kind in schema.items():
        if column not in table.columns:
            raise DataError(f"{name} table: column '{column}' is missing.")
        if table.schema[column] != kind:
            raise DataError(f"{name} table: column '{column}' is {table.schema[column]}, expected {kind}.")


def concat(parts: Sequence[Tables]) -> Tables:
    """Tables one behind the other; categories of one name become one.

    Ids of the sources are kept only where there is one source, since several may use the same.
    """
    if len(parts) == 1:
        return parts[0]
    names = list(dict.fromkeys(n for p in parts for n in p.categories["name"]))
    row_of = {name: n for n, name in enumerate(names)}
    columns = {"category_id": np.arange(len(names)), "name": names}
    images, boxes, offset = [], [], 0
    for part in parts:
        new_id = np.array([row_of[n] for n in part.categories["name"]], dtype=np.int32)
        category_id = pl.Series(new_id[part.boxes["category_id"].to_numpy()], dtype=pl.Int32)
        image_id = pl.col("image_id") + offset
        no_id = pl.lit(None, dtype=pl.Int64)
        images.append(part.images.with_columns(image_id=image_id, source_id=no_id))
        boxes.append(part.boxes.with_columns(image_id=image_id, category_id=category_id))
        offset += len(part.images)
    faults = tuple(f for p in parts for f in p.faults)
    return Tables(pl.concat(images), pl.concat(boxes), frame(CATEGORY_SCHEMA, columns), faults)
