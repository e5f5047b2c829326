"""What a data set holds, drawn: sizes, places, density, headings, and when and where it was taken."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
from markupsafe import Markup

from boxwright.data.builder import as_number, unpack
from boxwright.data.exif import Taken, parse_time, read_taken
from boxwright.data.statistics import stats
from boxwright.data.tables import Tables
from boxwright.errors import DataError
from boxwright.evaluation.reading import Curves
from boxwright.progress import track
from boxwright.reporting import plots
from boxwright.reporting.distributions import heat_map, rose
from boxwright.reporting.gallery import draw_image, to_data_uri
from boxwright.reporting.page import Picture, Section

BINS = 24
CLASSES = 7  # that have plots of their own, the most frequent ones
FULLEST = 12  # images shown
VALUES = 2, 40  # of an attribute that is shown: at least, at most
PERIODS = ("%Y-%m-%d %H:00", "%Y-%m-%d", "%Y-%m", "%Y")  # of a timeline, finest first
MOST_BARS = 20
TIMES = ("time", "timestamp", "datetime", "date_captured", "date")  # attributes that may tell when
PLACES = ("longitude", "lon", "lng"), ("latitude", "lat")
CELL = 0.01  # degrees, within which pictures lie at one place of the map


@dataclass(frozen=True)
class Kinds:
    """The most frequent classes, the others together.

    Attributes:
        names: of the classes, most frequent first, then "other" where there are more.
        group: (N,) of each box, index into `names`.
    """

    names: list[str]
    group: np.ndarray


def kinds_of(labels: Tables) -> Kinds:
    """Classes by how many boxes they have."""
    category = labels.boxes["category_id"].to_numpy()
    counts = np.bincount(category, minlength=len(labels.categories))
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] > 0]
    names = [labels.categories["name"][k] for k in order[:CLASSES].tolist()]
    place = np.full(len(counts), len(names))
    place[order[:CLASSES]] = np.arange(len(names))
    return Kinds(names + ["other"] * (len(order) > CLASSES), place[category])


def contents(labels: Tables) -> Section:
    """Counts, and a row a class."""
    found = stats(labels)
    sources = labels.boxes["source"].n_unique() if len(labels.boxes) else 0
    numbers = {
        "images": found["images"],
        "boxes": found["boxes"],
        "classes": len(found["classes"]),
        "oriented boxes": int(labels.boxes["angle"].is_not_null().sum()),
        "images without boxes": found["empty_images"],
        "boxes an image": found["boxes_per_image"],
        "sources": sources,
    }
    wanted = ("name", "count", "images", "median_width", "median_height", "small", "medium", "large")
    rows = [{key.replace("_", " "): row.get(key) for key in wanted} for row in found["classes"]]
    counts = {row["name"]: row["count"] for row in found["classes"]}
    sizes = {row["size"]: row["count"] for row in found["image_sizes"]}
    figures = {
        "Boxes by class": Markup(plots.count_plot(counts, "boxes")),
        "Images by size, px": Markup(plots.count_plot(sizes, "images")),
    }
    return Section("Contents", numbers, rows, figures)


def sizes(labels: Tables, kinds: Kinds) -> Section:
    """Size and aspect ratio of boxes, by class; and width against height."""
    width, height = (labels.boxes[c].to_numpy() for c in "wh")
    whole = (width > 0) & (height > 0)
    size = np.sqrt(np.where(whole, width * height, 1))
    ratio = np.where(whole, width, 1) / np.where(whole, height, 1)
    figures = {
        "Width and height": Markup(plots.size_plot(width, height, kinds.group, kinds.names)),
        "Size, the side of a square of the same area": _shares(size, whole, kinds, "side, px"),
        "Width over height": _shares(ratio, whole, kinds, "width / height"),
    }
    notes = [] if whole.all() else [f"{int((~whole).sum()):,} boxes without area are left out of the curves."]
    return Section("Sizes and shapes", figures=figures, notes=notes)


def _shares(values: np.ndarray, known: np.ndarray, kinds: Kinds, label: str) -> Markup:
    """Which share of each class's boxes lies in each of `BINS` bins of equal ratio."""
    if not known.any():
        return Markup(plots.line_plot({}, label, "share"))
    low, high = values[known].min(), values[known].max()
    edges = np.geomspace(low, max(high, low * 1.01), BINS + 1)
    middles = np.sqrt(edges[:-1] * edges[1:])
    series = {}
    for n, name in enumerate(kinds.names):
        mine = values[known & (kinds.group == n)]
        if len(mine):
            counts = np.histogram(np.clip(mine, edges[0], edges[-1]), edges)[0]
            series[name] = (middles, counts / len(mine))
    return Markup(plots.line_plot(series, label, "share of the class", log_x=True))


def places(labels: Tables, kinds: Kinds) -> Section | None:
    """Where the centres of boxes lie, all and by class; None where no size of an image is known."""
    of_box = labels.images[labels.boxes["image_id"]]
    shape = of_box.select("width", "height").to_numpy().astype(np.float64)
    known = np.all(np.isfinite(shape), axis=1)
    if not known.any():
        return None
    hulls = labels.upright()
    share = (hulls[:, :2] + hulls[:, 2:] / 2) / np.where(known[:, None], shape, 1)
    aspect = float(np.median(shape[known, 0] / shape[known, 1]))
    figures = {"All classes": heat_map(share[known], aspect)}
    if len(kinds.names) > 1:
        for n, name in enumerate(kinds.names):
            mine = known & (kinds.group == n)
            if mine.any():
                figures[name] = heat_map(share[mine], aspect)
    ends = hulls[:, :2] + hulls[:, 2:]
    cut = np.any((hulls[:, :2] <= 1) | (ends >= shape - 1), axis=1)
    rows = [
        {"class": name, "boxes": int(mine.sum()), "at the border": float(cut[mine].mean())}
        for n, name in enumerate(kinds.names)
        if (mine := known & (kinds.group == n)).any()
    ]
    notes = ["Centres of boxes in their image. At the border: the share of boxes that touch it."]
    return Section("Places", rows=rows, figures=figures, notes=notes)


def density(labels: Tables) -> Section:
    """How many boxes images have; the fullest ones."""
    counts = np.bincount(labels.boxes["image_id"].to_numpy(), minlength=len(labels.images))
    width = max(1, -(-int(counts.max() + 1) // BINS)) if len(counts) else 1
    edges = np.arange(0, (counts.max() if len(counts) else 0) + width + 1, width)
    held = np.histogram(counts, edges)[0]
    middles = (edges[:-1] + (width - 1) / 2).tolist()
    bars = Curves("boxes in the image", "images", {"images": (middles, held.tolist())}, bars=True)
    pictures = []
    for image_id in np.argsort(-counts, kind="stable")[:FULLEST].tolist():
        name = labels.images["file_name"][image_id] or f"image {image_id}"
        try:
            source = to_data_uri(draw_image(labels, image_id))
        except DataError:
            source = None
        pictures.append(Picture(source, f"{counts[image_id]:,} boxes", name))
    figures = {"Boxes an image": Markup(plots.reading_plot(bars))}
    return Section("Density", figures=figures, galleries={"The fullest images": pictures}, folded=True)


def headings(labels: Tables, kinds: Kinds) -> Section | None:
    """Where oriented boxes point to; None where there are none."""
    oriented = labels.boxes["angle"].is_not_null().to_numpy()
    if not oriented.any():
        return None
    angle, told = labels.boxes["angle"].to_numpy(), labels.has_headings()
    figures = {"All classes": rose(angle[oriented], told)}
    for n, name in enumerate(kinds.names if len(kinds.names) > 1 else []):
        mine = oriented & (kinds.group == n)
        if mine.any():
            figures[name] = rose(angle[mine], told)
    notes = ["As on the screen: 0° to the right, clockwise. The area of a sector is its count."]
    if not told:
        notes.append("No angle tells front from back: each box counts for both of its ends.")
    return Section("Headings", figures=figures, notes=notes)


def groups(labels: Tables, kinds: Kinds) -> Section | None:
    """Boxes and images by source and by each attribute of images that takes a few values, such as a country
    or the weather; None where there is none.
    """
    boxes = np.bincount(labels.boxes["image_id"].to_numpy(), minlength=len(labels.images))
    per_class = np.zeros((len(labels.images), len(kinds.names)), dtype=np.int64)
    np.add.at(per_class, (labels.boxes["image_id"].to_numpy(), kinds.group), 1)
    held = [unpack(text) for text in labels.images["attributes"]]
    first = labels.boxes.group_by("image_id").agg(pl.col("source").first())
    source_of = dict(first.iter_rows())
    columns = {"source": [source_of.get(n) for n in range(len(held))]}
    for key in dict.fromkeys(key for values in held for key in values):
        columns[key] = [values.get(key) for values in held]
    rows: list[dict[str, Any]] = []
    for key, values in columns.items():
        if any(isinstance(value, dict | list) for value in values):
            continue
        names = ["–" if value is None else str(value) for value in values]
        counts = Counter(names)
        if not VALUES[0] <= len(counts) <= VALUES[1]:
            continue
        held_by = np.array(names)
        for name, count in sorted(counts.items(), key=_by_number_or_count):
            mine = held_by == name
            row: dict[str, Any] = {"by": key, "value": name, "images": count, "boxes": int(boxes[mine].sum())}
            row["boxes an image"] = float(boxes[mine].mean())
            shares = per_class[mine].sum(axis=0) / max(boxes[mine].sum(), 1)
            rows.append(row | dict(zip(kinds.names, shares.tolist())))
    notes = ["Under the names of classes: their shares of the boxes."]
    return Section("By source and attribute", rows=rows, notes=notes) if rows else None


def _by_number_or_count(item: tuple[str, int]) -> tuple[float, int]:
    try:
        return float(item[0]), 0
    except ValueError:
        return 0.0, -item[1]


def when_and_where(labels: Tables) -> Section | None:
    """A timeline and a map, of what cameras or annotations tell; None where they tell nothing."""
    taken, unread = _taken(labels)
    times = [t.time for t in taken if t.time is not None]
    spots = np.array([(t.longitude, t.latitude) for t in taken if t.longitude is not None])
    if not times and not len(spots):
        return None
    figures, notes = {}, [f"Of {len(taken):,} images {len(times):,} tell when and {len(spots):,} where."]
    if unread:
        notes.append(f"{unread:,} files can't be read; `boxwright data check` tells why.")
    if times:
        figures["Images over time"] = Markup(plots.count_plot(_timeline(times), "images", sort=False))
    if any((t.hour, t.minute, t.second) != (0, 0, 0) for t in times):  # more than days are told
        hours = Counter(t.hour for t in times)
        series = {"images": ([float(h) for h in range(24)], [float(hours[h]) for h in range(24)])}
        bars = Curves("hour of the day, of the camera's clock", "images", series, bars=True)
        figures["Images by hour"] = Markup(plots.reading_plot(bars))
    if len(spots):
        cells, counts = np.unique(np.round(spots / CELL), axis=0, return_counts=True)
        figures["Where"] = Markup(plots.place_plot(cells * CELL, counts, ("longitude, °", "latitude, °")))
        notes.append("The map is of places alone, without coasts or borders.")
    return Section("When and where", figures=figures, notes=notes)


def _taken(labels: Tables) -> tuple[list[Taken], int]:
    """Of each image what its attributes tell, else its file; and how many files can't be read."""
    result, unread = [], 0
    for text, path in track("read EXIF", labels.images.select("attributes", "path").rows()):
        told = _told(unpack(text))
        if told == Taken() and path is not None:
            try:
                told = read_taken(path)
            except DataError:
                unread += 1
        result.append(told)
    return result, unread


def _told(attributes: dict[str, Any]) -> Taken:
    lower = {str(key).lower(): value for key, value in attributes.items()}
    time = next(filter(None, (parse_time(str(lower[key])) for key in TIMES if key in lower)), None)
    longitude, latitude = (as_number(next((lower[k] for k in keys if k in lower), None)) for keys in PLACES)
    if longitude is None or latitude is None or not (abs(longitude) <= 180 and abs(latitude) <= 90):
        return Taken(time)
    return Taken(time, longitude, latitude)


def _timeline(times: Sequence[datetime]) -> dict[str, int]:
    """Images by the finest period that leaves no more bars than fit."""
    for period in PERIODS:
        counts = Counter(time.strftime(period) for time in times)
        if len(counts) <= MOST_BARS:
            break
    return {name: counts[name] for name in sorted(counts)[-MOST_BARS:]}
