"""Crops of boxes arranged by what they look like: a map, odd ones first, and groups of like ones."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from boxwright.auditing.rarity import Arrangement

ODD, OF_GROUP = 60, 12  # pictures
MARKED = 0.02  # share of crops that the map marks as odd
STRANGE = 0.7  # share of neighbours of another class from which a box looks like that class
OUTLINE = "#D55E00"


@dataclass(frozen=True)
class Crops:
    """N boxes of labels, cut out and arranged.

    Attributes:
        labels: whose boxes they are.
        rows: (N,) of them.
        pixels: (N, SIDE, SIDE, 3) uint8.
        found: where they lie, and how odd they are.
    """

    labels: Tables
    rows: np.ndarray
    pixels: np.ndarray
    found: "Arrangement"

    def told(self) -> list[str]:
        """Class and size, image, and oddness of each, a line each."""
        names, files = self.labels.categories["name"].to_list(), self.labels.images["file_name"].to_list()
        boxes = self.labels.boxes[self.rows.tolist()].select("image_id", "category_id", "w", "h")
        return [
            f"{names[k]}, {w:.0f} x {h:.0f} px\n{files[image] or f'image {image}'}\noddness {odd:.2f}"
            for (image, k, w, h), odd in zip(boxes.iter_rows(), self.found.oddness)
        ]

    def pictures(self, places: np.ndarray) -> list[Picture]:
        """Some of them with their boxes, by their places."""
        told = self.told()
        return [self._picture(n, told[n]) for n in places.tolist()]

    def _picture(self, n: int, told: str) -> Picture:
        sides = np.array(self.labels.boxes.select("w", "h").row(int(self.rows[n])))
        half = sides / (MARGIN * max(*sides, 1.0)) * SIDE
        picture = Image.fromarray(self.pixels[n]).resize((2 * SIDE, 2 * SIDE), Image.Resampling.BICUBIC)
        ImageDraw.Draw(picture).rectangle([*(SIDE - half), *(SIDE + half)], outline=OUTLINE, width=2)
        title, *detail = told.split("\n")
        keys = {
            "oddness": round(float(self.found.oddness[n]), 3),
            "neighbours of another class": float(self.found.strangers[n]),
        }
        return Picture(to_data_uri(picture), title, ", ".join(detail), keys)


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
    rows = choose(labels, count, seed)
    with progress_bar("cut crops", len(rows)) as tell:
        rows, pixels = cut_crops(labels, rows, tell)
    if len(rows) < rarity.FEW:
        note = (
            f"{len(rows):,} boxes can be cut out of their images; fewer than {rarity.FEW} can't be arranged."
        )
        return [Section("Crops", notes=[note])]
    if checkpoint is None:
        vectors = embed_crops(pixels, labels.boxes.select("w", "h").to_numpy()[rows])
    else:
        vectors = import_extra("boxwright.prediction.embedding", "train").embed_crops_by(checkpoint, pixels)
    category = labels.boxes["category_id"].to_numpy()[rows]
    crops = Crops(labels, rows, pixels, rarity.arrange(vectors, category, seed=seed))
    return [_map(crops, kinds), _odd_ones(crops), _groups(crops, kinds)]


def choose(labels: Tables, count: int, seed: int) -> np.ndarray:
    """Rows of at most `count` boxes, as many of each class as can be."""
    category = labels.boxes["category_id"].to_numpy()
    order = np.random.default_rng(seed).permutation(len(category))
    # The first of every class, then the second of every class, and so on.
    by_class = order[np.argsort(category[order], kind="stable")]
    counts = np.bincount(category)
    rank = np.arange(len(category)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(by_class[np.argsort(rank, kind="stable")][:count])


def _map(crops: Crops, kinds: Kinds) -> Section:
    odd = np.zeros(len(crops.rows), dtype=bool)
    odd[np.argsort(-crops.found.oddness, kind="stable")[: max(1, round(MARKED * len(odd)))]] = True
    group = kinds.group[crops.rows]
    plot = crops_plot(crops.found.places, group, kinds.names, crops.told(), odd, crops.pixels)
    notes = [
        f"{len(odd):,} of {len(crops.labels.boxes):,} boxes, like ones near each other; ringed: the oddest of"
        " their class. Point at one to see it; a class's name hides it."
    ]
    if crops.labels.has_angles():
        notes.append("Oriented boxes are rotated so that their headings point right.")
    return Section("Crops", figures={"Boxes by what they look like": plot}, notes=notes)


def _odd_ones(crops: Crops) -> Section:
    oddness, strangers = crops.found.oddness, crops.found.strangers
    strange = np.argsort(-strangers, kind="stable")[: min(ODD, int((strangers >= STRANGE).sum()))]
    galleries = {
        "Least like others of their class, oddest first": crops.pictures(
            np.argsort(-oddness, kind="stable")[:ODD]
        ),
        "Like boxes of another class": crops.pictures(strange),
    }
    return Section("Odd ones", galleries=galleries)


def _groups(crops: Crops, kinds: Kinds) -> Section:
    """Groups of like crops, the smallest first."""
    found, table, galleries = crops.found, [], {}
    sides = np.sqrt(crops.labels.boxes["area"].to_numpy()[crops.rows])
    for g in np.unique(found.clusters).tolist():
        mine = np.flatnonzero(found.clusters == g)
        counts = np.bincount(kinds.group[crops.rows[mine]], minlength=len(kinds.names))
        row = {"group": g + 1, "boxes": len(mine), "median side, px": float(np.median(sides[mine]))}
        table.append(row | dict(zip(kinds.names, counts.tolist())))
        most = f"{counts.max() / len(mine):.0%} {kinds.names[counts.argmax()]}"
        typical = mine[np.argsort(found.oddness[mine], kind="stable")][:OF_GROUP]
        galleries[f"Group {g + 1}: {len(mine):,} boxes, {most}"] = crops.pictures(typical)
    return Section("Groups of like ones, rare first", rows=table, galleries=galleries, folded=True)
