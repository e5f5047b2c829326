"""The page of an audit: suspicions by kind, likeliest first, each label before and after."""

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image, ImageDraw

from boxwright.auditing.schema import BOX
from boxwright.data.tables import Tables
from boxwright.errors import DataError
from boxwright.progress import progress_bar
from boxwright.reporting.examples import TRUTH
from boxwright.reporting.gallery import corners_of, draw_box, open_tile, to_data_uri
from boxwright.reporting.page import Picture, Section, write_page

BEFORE, AFTER = "#D55E00", "#0072B2"
SIDE = 1600  # px, longest side of an image before it is cut to the surroundings of a box
REACH = 1.5  # of a crop from its box's centre, in the box's longer side
LEAST_REACH, TILE = 60.0, 240  # px of the image, px of a picture
LIKELY = 0.5


def write_audit(
    labels: Tables,
    suspicions: pl.DataFrame,
    sources: list[dict],
    offsets: list[dict],
    path: Path,
    count: int = 60,
) -> None:
    """Write the page.

    Args:
        labels: that were audited.
        suspicions: of `suspect`.
        sources: of `systematic`.
        offsets: of `frame_offsets`.
        path: of the page.
        count: pictures a kind.
    """
    kinds = suspicions["kind"].unique(maintain_order=True).to_list()
    total = sum(min(count, len(suspicions.filter(pl.col("kind") == kind))) for kind in kinds)
    sections = [Section("Suspicions", rows=summarize(suspicions))]
    mixed = mixed_up(suspicions, labels)
    if mixed:
        sections.append(Section("Classes that are mixed up", rows=mixed))
    if sources:
        notes = [f"{row['source']}: {row['told']}" for row in sources if row["told"]]
        sections.append(Section("Sources", rows=sources, notes=notes))
    if offsets:
        sections.append(Section("Videos with labels of other frames", rows=offsets))
    with progress_bar("draw suspicions", total) as tell:
        for kind in kinds:
            rows = suspicions.filter(pl.col("kind") == kind)
            pictures = []
            for row in rows.head(count).iter_rows(named=True):
                pictures.append(_picture(labels, row))
                tell(1)
            notes = [f"the {count} likeliest of {len(rows):,}"] if len(rows) > count else []
            sections.append(Section(kind, galleries={f"{kind}, likeliest first": pictures}, notes=notes))
    lead = (
        f"{len(labels.boxes):,} labels in {len(labels.images):,} images. Orange: the label as it is; blue: as"
        " it would be after a repair; green: the others. Arrow keys step from one to the next."
    )
    write_page(path, "Audit", lead, sections)


def summarize(suspicions: pl.DataFrame) -> list[dict]:
    """A row a kind: how many faults are expected, how many are likely, and what repairing them would gain."""
    expected = (
        pl.col("probability").sum().alias("expected"),
        (pl.col("probability") >= LIKELY).sum().alias("likely"),
        (pl.col("probability") >= 0.9).sum().alias("0.9 and more"),
        pl.col("gain").sum().alias("AP gained"),
    )
    table = suspicions.group_by("kind").agg(pl.len().alias("suspicions"), *expected)
    return table.sort("expected", descending=True).to_dicts()


def mixed_up(suspicions: pl.DataFrame, labels: Tables) -> list[dict]:
    """A row a pair of classes: how many labels of the first are expected to be of the second."""
    pairs = suspicions.filter(pl.col("kind") == "class").group_by("category", "new_category")
    expected = (
        pl.col("probability").sum().alias("expected"),
        (pl.col("probability") >= LIKELY).sum().alias("likely"),
    )
    names = labels.categories["name"].to_list()
    counts = Counter(names[k] for k in labels.boxes["category_id"].to_list())
    return [
        {"labelled": row["category"], "rather": row["new_category"], "labels": counts[row["category"]]}
        | {name: row[name] for name in ("expected", "likely")}
        for row in pairs.agg(*expected).sort("expected", descending=True).to_dicts()
    ]


def _picture(labels: Tables, row: dict) -> Picture:
    title = f"{row['kind']}, {row['probability']:.0%}: {row['category']}"
    told = [
        row["detail"],
        f"score {row['score']:.2g}" if row["score"] is not None else None,
        row["others"],
        row["file_name"],
    ]
    keys = {name: float(row[name]) for name in ("probability", "gain")}
    try:
        source = to_data_uri(_draw(labels, row))
    except DataError:
        source = None  # the image has moved since; the text says more than an empty frame
    return Picture(source, title, ", ".join(t for t in told if t), keys)


def _draw(labels: Tables, row: dict) -> Image.Image:
    """The surroundings of a suspicion."""
    picture, factor = open_tile(labels, row["image_id"], SIDE)
    before = {name: row[name] for name in BOX} if row["x"] is not None else None
    after = {name: row[f"new_{name}"] for name in BOX} if row["new_x"] is not None else None
    corners = corners_of(before or after or {}) * factor
    low, high = corners.min(axis=0), corners.max(axis=0)
    reach = max(LEAST_REACH, float((high - low).max()) * REACH)
    corner = (low + high) / 2 - reach
    scale = TILE / (2 * reach)
    box = tuple(np.concatenate([corner, corner + 2 * reach]).tolist())
    tile = picture.transform((TILE, TILE), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(tile)
    here = (pl.col("image_id") == row["image_id"]) & (pl.int_range(pl.len()) != (row["row"] or -1))

    def place(other: dict) -> np.ndarray:
        return (corners_of(other) * factor - corner) * scale

    for other in labels.boxes.filter(here).iter_rows(named=True):
        dashed = other["crowd"] or other["ignore"]
        draw_box(draw, place(other), TRUTH, 1, dashed, ahead=other["angle"] is not None)
    if before is not None:
        draw_box(draw, place(before), BEFORE, 3, ahead=before["angle"] is not None)
    if after is not None and after != before:
        draw_box(draw, place(after), AFTER, 2, ahead=after["angle"] is not None)
    return tile
