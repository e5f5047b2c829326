"""Rows from a reader become checked tables: one behaviour for every format.

A reader tells the builder what it reads and where it read it. What is wrong with boxes as boxes (NaN,
negative or zero size, outside the image, exact duplicates ...) is found here, once, vectorised.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import orjson
import polars as pl

from boxwright.data.oriented import fit_rectangles, read_spelled
from boxwright.data.tables import BOX_SCHEMA, CATEGORY_SCHEMA, IMAGE_SCHEMA, Tables, frame, upright_hulls
from boxwright.errors import Fault

Corners = tuple[float, float, float, float]
Shape = tuple[float, ...]  # x, y, w, h; or cx, cy, w, h, angle as the source spells it; or four corners
Place = tuple[str, int]  # "annotations/0042.xml, object", 3

MAX_SIDE = 1_000_000  # px; beyond it a declared image side is damage, not an image
MAX_COORDINATE = 1e9  # px; beyond it arithmetic on areas loses pixels
OUTSIDE_TOLERANCE = 0.01  # px; formats that store text or relative numbers round


def as_number(value: Any) -> float | None:
    """A finite or infinite float out of a JSON or text value; None where it isn't a number."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def as_numbers(values: Any) -> Corners | None:
    """Four floats out of a list of JSON or text values; None where it isn't one of four numbers."""
    shape = as_shape(values, 4)
    if shape is None:
        return None
    a, b, c, d = shape
    return a, b, c, d


def as_shape(values: Any, *lengths: int) -> Shape | None:
    """Floats out of a list of JSON or text values; None where it isn't one of as many numbers as wanted."""
    numbers = [as_number(v) for v in values] if isinstance(values, list | tuple) else []
    if len(numbers) not in lengths or None in numbers:
        return None
    return tuple(float(n) for n in numbers if n is not None)


def as_integer(value: Any) -> int | None:
    """An integer of 64 bits out of a JSON or text value; None where it isn't one."""
    number = as_number(value)
    if number is None or not math.isfinite(number) or number != int(number):
        return None
    return int(number) if abs(number) < 2**53 else None


def as_flag(value: Any) -> bool | None:
    """A bool out of 0, 1, false, true or their text; None where it is something else."""
    if isinstance(value, bool):
        return value
    number = as_number(value)
    if number in (0.0, 1.0):
        return bool(number)
    text = value.strip().lower() if isinstance(value, str) else ""
    return {"true": True, "false": False, "yes": True, "no": False}.get(text)


def pack(attributes: dict[str, Any] | None) -> str | None:
    """Attributes as JSON text; None for none."""
    if not attributes:
        return None
    return orjson.dumps(attributes, option=orjson.OPT_NON_STR_KEYS, default=str).decode()


def unpack(attributes: str | None) -> dict[str, Any]:
    """The inverse of `pack`."""
    return orjson.loads(attributes) if attributes else {}


class TableBuilder:
    """Collects images, categories, boxes and faults; `build` checks them and makes the tables.

    Args:
        source: name of the data set, annotator or model.
        angles: convention of oriented boxes; None: guessed, and told.
        headings: angles of oriented boxes tell front from back.
    """

    def __init__(self, source: str, angles: str | None = None, headings: bool = False):
        self.source, self.angles, self.headings = source, angles, headings
        self.faults: list[Fault] = []
        self.images: list[tuple] = []
        self.categories: list[tuple] = []
        self._category_of_name: dict[str, int] = {}
        self._boxes: list[tuple] = []
        self._oriented: list[tuple[int, Shape]] = []  # rows of boxes that have an angle, and their numbers
        self._bulk: tuple[str, dict[str, Any]] | None = None

    def error(self, code: str, place: str, message: str, dropped: bool = False) -> None:
        self.faults.append(Fault(code, "error", place, message, dropped))

    def warning(self, code: str, place: str, message: str) -> None:
        self.faults.append(Fault(code, "warning", place, message))

    def image(
        self,
        file_name: str | None,
        path: str | None = None,
        width: int | None = None,
        height: int | None = None,
        source_id: int | None = None,
        attributes: dict[str, Any] | None = None,
    ) -> int:
        """Add an image and give its id. A size that can't be one is taken as unknown, and reported."""
        file_name = self._readable(file_name)
        for side, value in (("width", width), ("height", height)):
            if value is not None and not 0 < value <= MAX_SIDE:
                self.error("image-size", str(file_name), f"{side} {value}, expected 1 to {MAX_SIDE}.")
                width = None
        if width is None or height is None:
            width = height = None
        row = (file_name, path, width, height, source_id, pack(attributes))
        self.images.append(row)
        return len(self.images) - 1

    def category(
        self, name: str, source_id: int | None = None, attributes: dict[str, Any] | None = None
    ) -> int:
        """Add a category, unless one of that name is there, and give its id."""
        name = self._readable(name) or ""
        if name not in self._category_of_name:
            self._category_of_name[name] = len(self.categories)
            self.categories.append((name, source_id, pack(attributes)))
        return self._category_of_name[name]

    def take_over(self, truth: Tables) -> None:
        """Add a truth's images and categories, whose rows become their ids."""
        for row in truth.images.iter_rows(named=True):
            self.image(row["file_name"], row["path"], row["width"], row["height"], row["source_id"])
        for row in truth.categories.iter_rows(named=True):
            self.category(row["name"], row["source_id"])

    def has_category(self, name: str) -> bool:
        return name in self._category_of_name

    def _readable(self, text: str | None) -> str | None:
        """Text that UTF-8 can hold; half a character, which YAML and JSON can escape, is replaced."""
        if text is None:
            return None
        try:
            text.encode()
        except UnicodeEncodeError:
            text = text.encode(errors="replace").decode()
            self.error("encoding", text, "a name with half a character.")
        return text

    def box(
        self,
        place: Place,
        image_id: int,
        category_id: int,
        shape: Shape,
        *,
        score: float | None = None,
        crowd: bool = False,
        ignore: bool = False,
        difficult: bool = False,
        area: float | None = None,
        landmarks: list[float] | None = None,
        attributes: dict[str, Any] | None = None,
    ) -> None:
        """Add a box; `place` says where it was read. A shape of five or eight numbers is an oriented box."""
        if landmarks is not None and not np.isfinite(landmarks).all():
            found = ", ".join(f"{v:g}" for v in landmarks)
            self.error("landmarks", f"{place[0]} {place[1]}", f"landmarks {found}, expected numbers.")
            landmarks = None
        if len(shape) != 4:
            self._oriented.append((len(self._boxes), shape))
            shape = (0.0, 0.0, 0.0, 0.0)
        numbers = (*shape, None, score, crowd, ignore, difficult, area, landmarks)
        self._boxes.append((image_id, category_id, *numbers, pack(attributes), place))

    def boxes(self, where: str, columns: dict[str, Any]) -> None:
        """All boxes at once, as columns of BOX_SCHEMA without `source`; the n-th was read at `where` n.

        For readers of millions: x, y, w, h, area and score are float64 arrays.
        """
        self._bulk = where, columns

    def build(self) -> Tables:
        """Check the boxes, leave out (and name) those that are none, and make the tables."""
        images = _columns(self.images, list(IMAGE_SCHEMA)[1:])
        images["image_id"] = np.arange(len(self.images))
        categories = _columns(self.categories, list(CATEGORY_SCHEMA)[1:])
        categories["category_id"] = np.arange(len(self.categories))
        image_table = frame(IMAGE_SCHEMA, images)

        boxes, place = self._box_columns()
        xywh = np.array([boxes[c] for c in "xywh"], dtype=np.float64).reshape(4, -1).T
        count = len(xywh)
        score, scored = _numbers(boxes.get("score"), count)
        keep = self._check_boxes(xywh, score, scored, place)

        area, given = _numbers(boxes.get("area"), count)
        usable = np.isfinite(area) & (area >= 0)
        for i in np.flatnonzero(given & ~np.isnan(area) & ~usable & keep):
            self.error("area", place(i), f"area {area[i]}, expected >= 0; w * h is used.")
        boxes["area"] = np.where(usable, area, xywh[:, 2] * xywh[:, 3])
        boxes["source"] = pl.repeat(self.source, count, dtype=pl.String, eager=True)
        box_table = frame(BOX_SCHEMA, boxes)
        if not keep.all():
            box_table = box_table.filter(keep)
        rows = np.flatnonzero(keep)
        self._check_against_images(box_table, image_table, lambda i: place(rows[i]))
        category_table = frame(CATEGORY_SCHEMA, categories)
        self._check_empty(box_table, image_table, category_table)
        return Tables(image_table, box_table, category_table, tuple(self.faults))

    def _box_columns(self) -> tuple[dict[str, Any], Callable[[Any], str]]:
        """The boxes by column, and where each was read."""
        if self._bulk is not None:
            where, columns = self._bulk
            return dict(columns), lambda i: f"{where} {i}"
        names = [n for n in BOX_SCHEMA if n not in ("source", "attributes")]
        columns = _columns(self._boxes, [*names, "attributes", "place"])
        places: list[Place] = columns.pop("place")

        def place(i: int) -> str:
            return f"{places[i][0]} {places[i][1]}"

        self._turn(columns, place)
        return columns, place

    def _turn(self, columns: dict[str, Any], place: Callable[[Any], str]) -> None:
        """Put the oriented boxes into the columns, in our spelling."""
        spelled = partial(read_spelled, convention=self.angles, headings=self.headings)
        for count, read in ((5, spelled), (8, fit_rectangles)):
            rows = [(n, shape) for n, shape in self._oriented if len(shape) == count]
            if not rows:
                continue
            shapes = np.array([shape for _, shape in rows])
            boxes, faults = read(shapes, [place(n) for n, _ in rows])
            self.faults += faults
            for (n, _), (cx, cy, w, h, angle) in zip(rows, boxes.tolist()):
                numbers = (cx - w / 2, cy - h / 2, w, h, angle)
                for name, value in zip(("x", "y", "w", "h", "angle"), numbers):
                    columns[name][n] = value

    def _check_boxes(self, xywh, score, scored, place) -> np.ndarray:
        """Numbers that no box can have; gives which boxes stay, (N,) bool."""
        with np.errstate(invalid="ignore"):
            finite = np.isfinite(xywh).all(axis=1) & (np.abs(xywh) <= MAX_COORDINATE).all(axis=1)
            negative = finite & (xywh[:, 2:] < 0).any(axis=1)
            zero = finite & ~negative & (xywh[:, 2:] == 0).any(axis=1)
        bad_score = scored & ~np.isfinite(score)
        odd_score = scored & ~bad_score & ((score < 0) | (score > 1))
        for i in np.flatnonzero(~finite):
            found = ", ".join(f"{v:g}" for v in xywh[i])
            self.error("not-finite", place(i), f"box {found}, expected numbers.", True)
        for i in np.flatnonzero(negative):
            x, y, w, h = xywh[i]
            self.error(
                "negative-size",
                place(i),
                f"corners {x:g}, {y:g} and {x + w:g}, {y + h:g} (width {w:g}, height {h:g}), "
                "expected the second right of and below the first.",
                True,
            )
        for i in np.flatnonzero(zero):
            x, y, w, h = xywh[i]
            self.error("zero-size", place(i), f"a box of {w:g} x {h:g} at {x:g}, {y:g} has no area.")
        for i in np.flatnonzero(bad_score):
            self.error("score", place(i), f"score {score[i]}, expected 0 to 1.", True)
        for i in np.flatnonzero(odd_score):
            self.warning("score", place(i), f"score {score[i]:g}, expected 0 to 1.")
        return finite & ~negative & ~bad_score

    def _check_against_images(self, boxes, images, place) -> None:
        """Boxes that leave their image, and exact duplicates."""
        of_box = boxes["image_id"].to_numpy()
        width = images["width"].cast(pl.Float64).fill_null(np.inf).to_numpy()[of_box]
        height = images["height"].cast(pl.Float64).fill_null(np.inf).to_numpy()[of_box]
        x, y, w, h = upright_hulls(boxes).T
        outside = (x >= width) | (y >= height) | (x + w <= 0) | (y + h <= 0)
        least = np.minimum.reduce([x, y, width - x - w, height - y - h])
        leaves = ~outside & (least < -OUTSIDE_TOLERANCE)
        for code, rows, report in (
            ("outside-image", outside, self.error),
            ("leaves-image", leaves, self.warning),
        ):
            for i in np.flatnonzero(rows):
                report(
                    code,
                    place(i),
                    f"box {x[i]:g}, {y[i]:g} to {x[i] + w[i]:g}, {y[i] + h[i]:g} "
                    f"in an image of {width[i]:g} x {height[i]:g}.",
                )
        key = ["image_id", "category_id", "x", "y", "w", "h", "angle", "score"]
        if boxes.select(key).hash_rows().n_unique() == len(boxes):
            return
        first = boxes.select(pl.struct(key).is_first_distinct()).to_series()
        for i in np.flatnonzero(~first.to_numpy()):
            self.warning("duplicate", place(i), "a duplicate of an earlier box.")

    def _check_empty(self, boxes, images, categories) -> None:
        used = np.bincount(boxes["category_id"].to_numpy(), minlength=len(categories))
        for i in np.flatnonzero(used == 0):
            self.warning("category-without-boxes", f"category '{categories['name'][int(i)]}'", "no box.")
        filled = np.bincount(boxes["image_id"].to_numpy(), minlength=len(images))
        for i in np.flatnonzero(filled == 0):
            name = images["file_name"][int(i)] or f"image {images['source_id'][int(i)]}"
            self.warning("image-without-boxes", name, "no box.")


def _columns(rows: list[tuple], names: list[str]) -> dict[str, Any]:
    """Rows as lists by column."""
    return {name: list(column) for name, column in zip(names, zip(*rows))} or {n: [] for n in names}


def _numbers(values: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(N,) float64 with NaN for None, and (N,) bool where a value was given."""
    if values is None:
        return np.full(count, np.nan), np.zeros(count, dtype=bool)
    if isinstance(values, np.ndarray):
        return values, np.ones(count, dtype=bool)
    numbers = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    return numbers, np.array([v is not None for v in values], dtype=bool)
