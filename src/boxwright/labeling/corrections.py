"""What people have corrected: a table, what it costs and saves, and how far two people agree."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any

import numpy as np
import polars as pl

from boxwright.data.tables import frame
from boxwright.errors import DataError
from boxwright.evaluation.comparison import compare
from boxwright.geometry.iou import aligned_iou
from boxwright.labeling.store import GEOMETRY, Store

KINDS = ("missing", "spurious", "location", "class", "angle", "heading")
MOVED = 1e-6  # px or radians, below which a box is where it was
DRAWS = 1000
Z = 1.959964  # of 95 %
SOURCES = {"drawn": "drawn from nothing", "model": "taken from the model"}

CORRECTION_SCHEMA: dict[str, pl.DataType] = {
    "kind": pl.String(),  # missing: was added; spurious: was taken out; location, class, angle, heading
    "image_id": pl.Int64(),
    "file_name": pl.String(),
    "box_id": pl.Int64(),  # of the store
    "person": pl.String(),  # who had the last word
    "at": pl.String(),  # when, UTC
    "seconds": pl.Float64(),  # of all actions on this box
    "actions": pl.Int64(),
    "origin": pl.String(),  # labels: it was there; drawn; model: a prediction was taken
    "iou": pl.Float64(),  # of the box before and after; null where one of both isn't there
    "category": pl.String(),  # before; null: it was added
    **{name: pl.Float64() for name in GEOMETRY},
    "new_category": pl.String(),  # after; null: it was taken out
    **{f"new_{name}": pl.Float64() for name in GEOMETRY},
}


def corrections(store: Store, since: datetime | None = None) -> pl.DataFrame:
    """A row a box that isn't what it was; what was taken back is none. `CORRECTION_SCHEMA`.

    Args:
        store: of the review.
        since: only boxes that were touched from then on; with a time zone. None: all.
    """
    of_box: dict[int, list[dict]] = {}
    for action in store.actions():
        if action["box_id"] is not None:
            of_box.setdefault(action["box_id"], []).append(action)
    names = [row["file_name"] for row in store.images()]
    rows = []
    for box in store.every_box():
        kind = _kind(box["first"], box["now"], store.headings)
        if kind is None:
            continue
        actions, category = of_box[box["box_id"]], store.categories
        own = {"kind": kind, "file_name": names[box["image_id"]], "actions": len(actions)}
        own |= {name: box[name] for name in ("image_id", "box_id", "origin")}
        own |= {name: actions[-1][name] for name in ("person", "at")}
        own["seconds"] = sum(action["seconds"] for action in actions)
        for prefix, shape in (("", box["first"]), ("new_", box["now"])):
            if shape is not None:
                own |= {f"{prefix}{name}": shape[name] for name in GEOMETRY}
                own[f"{prefix}category"] = category[shape["category_id"]]
        rows.append(own)
    table = frame(CORRECTION_SCHEMA, {n: [row.get(n) for row in rows] for n in CORRECTION_SCHEMA})
    if since is not None:  # texts of one form, in UTC: their order is that of time
        table = table.filter(pl.col("at") >= since.astimezone(UTC).isoformat(timespec="milliseconds"))
    return table.with_columns(iou=_ious(table))


def _kind(first: dict | None, now: dict | None, headings: bool) -> str | None:
    if first is None or now is None:
        return None if first is now else "missing" if first is None else "spurious"
    if first["category_id"] != now["category_id"]:
        return "class"
    if any(abs(first[name] - now[name]) > MOVED for name in "xywh"):
        return "location"
    period = 2 * math.pi if headings else math.pi
    turn = abs(math.remainder((now["angle"] or 0.0) - (first["angle"] or 0.0), period))
    if turn <= MOVED:
        return None
    return "heading" if abs(turn - math.pi) < MOVED else "angle"


def _ious(table: pl.DataFrame) -> pl.Series:
    both = table.select((pl.col("x").is_not_null() & pl.col("new_x").is_not_null()).alias("both"))["both"]
    sides = []
    for prefix in ("", "new_"):
        x, y, w, h, angle = (table.filter(both)[f"{prefix}{n}"].fill_null(0.0).to_numpy() for n in GEOMETRY)
        sides.append(np.column_stack([x + w / 2, y + h / 2, w, h, angle]))
    values = np.full(len(table), np.nan)
    values[both.to_numpy()] = aligned_iou(*sides)
    return pl.Series(values).fill_nan(None)


@dataclass(frozen=True)
class Review:
    """What a review has brought.

    Attributes:
        kinds: a row a kind and class: corrections, per hundred boxes that were looked at (of missing ones:
            that are there now), and the 95 % interval of that (Wilson).
        work: what was looked at, and how long it took.
        boxes: a row a way that a box came in: how many, and the seconds of one.
        people: a row a person: actions, images accepted, minutes.
    """

    kinds: list[dict[str, Any]]
    work: dict[str, Any]
    boxes: list[dict[str, Any]]
    people: list[dict[str, Any]]


def review(store: Store) -> Review:
    """Of images that were accepted: what was corrected, what it took, and what predictions have saved."""
    images, actions, table = store.images(), store.actions(), corrections(store)
    accepted = {row["image_id"] for row in images if row["state"] == "accepted"}
    looked = [box for box in store.every_box() if box["image_id"] in accepted and box["first"]]
    table = table.filter(pl.col("image_id").is_in(accepted))
    spent: dict[int, float] = {}
    for action in actions:
        spent[action["image_id"]] = spent.get(action["image_id"], 0.0) + action["seconds"]
    minutes = [spent.get(n, 0.0) / 60 for n in accepted]
    work = {
        "images accepted": len(accepted),
        "images": len(images),
        "boxes looked at": len(looked),
        "boxes corrected": len(table),
        "minutes": sum(spent.values()) / 60,
        "minutes an image, median": median(minutes) if minutes else None,
    }
    boxes = _sources(table)
    taken = {row["way"]: row for row in boxes}
    if len(taken) == 2:
        drawn, model = (taken[SOURCES[name]] for name in ("drawn", "model"))
        work["minutes saved by predictions"] = (
            (drawn["seconds, median"] - model["seconds, median"]) * model["boxes"] / 60
        )
    return Review(_kinds(table, looked, store.categories), work, boxes, _people(actions))


def _kinds(table: pl.DataFrame, looked: Sequence[dict], categories: Sequence[str]) -> list[dict[str, Any]]:
    of_class = Counter(box["first"]["category_id"] for box in looked)
    totals = [("all", len(looked)), *((name, of_class[k]) for k, name in enumerate(categories))]
    named = table.with_columns(of=pl.coalesce("category", "new_category"))
    rows = []
    for kind in KINDS:
        own = named.filter(pl.col("kind") == kind)
        for name, total in totals:
            hits = len(own) if name == "all" else len(own.filter(pl.col("of") == name))
            if not hits:
                continue
            # Missing boxes had no label: they are counted among the objects that there are.
            boxes = total + hits if kind == "missing" else total
            row = {"kind": kind, "class": name, "corrections": hits, "boxes": boxes}
            low, high = wilson(hits, boxes)
            rows.append(row | {"per hundred": 100 * hits / boxes, "from": 100 * low, "to": 100 * high})
    return rows


def wilson(hits: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, Probable Inference, JASA 1927)."""
    if not total:
        return 0.0, 1.0
    p, z2 = hits / total, Z * Z
    middle, half = p + z2 / (2 * total), Z * math.sqrt(p * (1 - p) / total + z2 / (4 * total**2))
    return (middle - half) / (1 + z2 / total), (middle + half) / (1 + z2 / total)


def _sources(table: pl.DataFrame) -> list[dict[str, Any]]:
    rows = []
    for origin, way in SOURCES.items():
        own = table.filter((pl.col("kind") == "missing") & (pl.col("origin") == origin))
        if len(own):
            rows.append({"way": way, "boxes": len(own), "seconds, median": own["seconds"].median()})
    return rows


def _people(actions: Sequence[dict]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for action in actions:
        blank = {"person": action["person"], "actions": 0, "images accepted": 0, "minutes": 0.0}
        row = found.setdefault(action["person"], blank)
        row["actions"] += 1
        row["minutes"] += action["seconds"] / 60
        row["images accepted"] += action["kind"] == "state" and action["after"] == "accepted"
    return list(found.values())


def agreement(a: Store, b: Store, iou: float = 0.5, seed: int = 0) -> list[dict[str, Any]]:
    """How far two reviews of the same images agree, on images that both have accepted.

    Boxes are matched by `compare`; kappa (Cohen, 1960) is of the classes of boxes that lie on each other,
    whatever their class. Intervals are of draws of the images.

    Args:
        a, b: the reviews.
        iou: from which two boxes are of one object.
        seed: of the draws.

    Raises:
        DataError: no image was accepted in both, or the classes differ.
    """
    if a.categories != b.categories:
        raise DataError(f"{a.path} and {b.path} have other classes.")
    kept = []
    names = [[row["file_name"] for row in s.images() if row["state"] == "accepted"] for s in (a, b)]
    both = set(names[0]) & set(names[1])
    if not both:
        raise DataError(f"no image was accepted in {a.path} and in {b.path}.")
    for store in (a, b):
        tables = store.tables()
        kept.append(tables.select_images(tables.images["file_name"].is_in(both).to_numpy()))
    found = compare(*kept, iou=iou)
    image = found.a.boxes["image_id"].to_numpy(), found.b.boxes["image_id"].to_numpy()
    pairs = found.pairs.filter(pl.col("outcome").is_in(["matched", "other class"]))
    a_row, b_row = pairs["a_row"].to_numpy(), pairs["b_row"].to_numpy()
    classes = found.a.boxes["category_id"].to_numpy()[a_row], found.b.boxes["category_id"].to_numpy()[b_row]
    rng, count, k = np.random.default_rng(seed), len(found.a.images), len(a.categories)
    of_pair = image[0][a_row]

    def numbers(weight: np.ndarray) -> dict[str, float]:
        own = weight[of_pair]
        table = np.zeros((k, k))
        np.add.at(table, classes, own)
        lying = own.sum()
        total = weight[image[0]].sum() + weight[image[1]].sum()
        mean = float((own * pairs["iou"].to_numpy()).sum() / lying) if lying else math.nan
        return {
            "boxes in both": 2 * lying / total if total else math.nan,
            "mean IoU": mean,
            "kappa": kappa(table),
        }

    whole = numbers(np.ones(count))
    draws = [numbers(np.bincount(rng.integers(count, size=count), minlength=count)) for _ in range(DRAWS)]
    rows = []
    for name, value in whole.items():
        drawn = np.array([d[name] for d in draws])
        ends = np.nanpercentile(drawn, (2.5, 97.5)) if np.isfinite(drawn).any() else (math.nan, math.nan)
        rows.append({"number": name, "value": value, "from": float(ends[0]), "to": float(ends[1])})
    return rows


def kappa(table: np.ndarray) -> float:
    """Cohen's kappa of a (K, K) table of counts; NaN where chance alone agrees always."""
    total = table.sum()
    if not total:
        return math.nan
    chance = float((table.sum(0) * table.sum(1)).sum() / total**2)
    return math.nan if chance == 1 else float((np.trace(table) / total - chance) / (1 - chance))
