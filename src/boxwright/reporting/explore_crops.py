"""Crops of boxes arranged by what they look like: a map, odd ones first, and groups of like ones."""

import os

import numpy as np
from PIL import Image, ImageDraw

from boxwright.auditing.embedding import embed_crops
from boxwright.data.crops import MARGIN, SIDE, cut_crops
from boxwright.data.tables import Tables
from boxwright.errors import import_extra
from boxwright.progress import progress_bar
from boxwright.reporting.explore_sections import Kinds
from boxwright.reporting.gallery import to_data_uri
from boxwright.reporting.page import Picture, Section
from boxwright.reporting.scatter import crops_plot

ODD, OF_GROUP = 60, 12  # pictures
MARKED = 0.02  # share of crops that the map marks as odd
STRANGE = 0.7  # share of neighbours of another class from which a box looks like that class
OUTLINE = "#D55E00"


def crop_sections(
    labels: Tables, kinds: Kinds, count: int, checkpoint: str | os.PathLike | None, seed: int
) -> list[Section]:
    """The map, the odd ones, and the groups; a note alone where there are too few boxes.

    Args:
        labels: with boxes.
        kinds: their classes.
        count: boxes that are looked at.
        checkpoint: see `explore`.
        seed: chooses them.
    """
    rarity = import_extra("boxwright.auditing.rarity", "audit")
    embedding = import_extra("boxwright.prediction.embedding", "train") if checkpoint is not None else None
    rows = choose(labels, count, seed)
    with progress_bar("cut crops", len(rows)) as tell:
        rows, crops = cut_crops(labels, rows, tell)
    if len(rows) < rarity.FEW:
        note = (
            f"{len(rows):,} boxes can be cut out of their images; fewer than {rarity.FEW} can't be arranged."
        )
        return [Section("Crops", notes=[note])]
    if embedding is None:
        vectors = embed_crops(crops, labels.boxes.select("w", "h").to_numpy()[rows])
    else:
        vectors = embedding.embed_crops_by(checkpoint, crops)
    category = labels.boxes["category_id"].to_numpy()[rows]
    found = rarity.arrange(vectors, category, seed=seed)
    told = _told(labels, rows, found)
    order = np.argsort(-found.oddness, kind="stable")
    odd = np.zeros(len(rows), dtype=bool)
    odd[order[: max(1, round(MARKED * len(rows)))]] = True
    plot = crops_plot(found.places, kinds.group[rows], kinds.names, told, odd, crops)
    notes = [
        f"{len(rows):,} of {len(labels.boxes):,} boxes, like ones near each other; ringed: the oddest of"
        " their class. Point at one to see it; a class's name hides it.",
        "Oriented boxes are rotated so that their headings point right." if _oriented(labels) else "",
    ]
    drawn = {n: _picture(labels, int(rows[n]), crops[n], told[n], found, n) for n in order[:ODD].tolist()}
    strange = np.flatnonzero(found.strangers >= STRANGE)
    strange = strange[np.argsort(-found.strangers[strange], kind="stable")][:ODD].tolist()
    unlike = [_picture(labels, int(rows[n]), crops[n], told[n], found, n) for n in strange]
    galleries = {"Least like others of their class, oddest first": list(drawn.values())}
    galleries["Like boxes of another class"] = unlike
    return [
        Section("Crops", figures={"Boxes by what they look like": plot}, notes=[n for n in notes if n]),
        Section("Odd ones", galleries=galleries),
        _groups(labels, kinds, rows, crops, told, found),
    ]


def choose(labels: Tables, count: int, seed: int) -> np.ndarray:
    """Rows of at most `count` boxes, as many of each class as can be."""
    category = labels.boxes["category_id"].to_numpy()
    order = np.random.default_rng(seed).permutation(len(category))
    # The first of every class, then the second of every class, and so on.
    by_class = order[np.argsort(category[order], kind="stable")]
    counts = np.bincount(category)
    rank = np.arange(len(category)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(by_class[np.argsort(rank, kind="stable")][:count])


def _groups(
    labels: Tables, kinds: Kinds, rows: np.ndarray, crops: np.ndarray, told: list[str], found
) -> Section:
    """Groups of like crops, the smallest first."""
    table, galleries = [], {}
    for g in np.unique(found.clusters).tolist():
        mine = np.flatnonzero(found.clusters == g)
        counts = np.bincount(kinds.group[rows[mine]], minlength=len(kinds.names))
        most = f"{counts.max() / len(mine):.0%} {kinds.names[counts.argmax()]}"
        name = f"Group {g + 1}: {len(mine):,} boxes, {most}"
        sizes = np.sqrt(labels.boxes["area"].to_numpy()[rows[mine]])
        row = {"group": g + 1, "boxes": len(mine), "median side, px": float(np.median(sizes))}
        table.append(row | dict(zip(kinds.names, counts.tolist())))
        typical = mine[np.argsort(found.oddness[mine], kind="stable")][:OF_GROUP].tolist()
        galleries[name] = [_picture(labels, int(rows[n]), crops[n], told[n], found, n) for n in typical]
    return Section("Groups of like ones, rare first", rows=table, galleries=galleries, folded=True)


def _told(labels: Tables, rows: np.ndarray, found) -> list[str]:
    names, files = labels.categories["name"].to_list(), labels.images["file_name"].to_list()
    texts = []
    for n, row in enumerate(
        labels.boxes[rows.tolist()].select("image_id", "category_id", "w", "h").iter_rows()
    ):
        image, category, w, h = row
        lines = f"{names[category]}, {w:.0f} x {h:.0f} px", files[image] or f"image {image}"
        texts.append("\n".join((*lines, f"oddness {found.oddness[n]:.2f}")))
    return texts


def _picture(labels: Tables, row: int, crop: np.ndarray, told: str, found, n: int) -> Picture:
    """The crop with its box."""
    w, h = labels.boxes.row(row, named=True)["w"], labels.boxes.row(row, named=True)["h"]
    picture = Image.fromarray(crop).resize((2 * SIDE, 2 * SIDE), Image.Resampling.BICUBIC)
    half = np.array([w, h]) / (MARGIN * max(w, h, 1.0)) * SIDE
    ImageDraw.Draw(picture).rectangle([*(SIDE - half), *(SIDE + half)], outline=OUTLINE, width=2)
    title, *detail = told.split("\n")
    keys = {
        "oddness": round(float(found.oddness[n]), 3),
        "neighbours of another class": float(found.strangers[n]),
    }
    return Picture(to_data_uri(picture), title, ", ".join(detail), keys)


def _oriented(labels: Tables) -> bool:
    return bool(labels.boxes["angle"].is_not_null().any())
