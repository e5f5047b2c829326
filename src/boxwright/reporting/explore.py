"""`boxwright data explore`: a page to look through a data set, and what a detector finds hard in it."""

import os
from pathlib import Path

import numpy as np

from boxwright.data import formats
from boxwright.data.tables import Tables
from boxwright.errors import ConfigError, DataError, import_extra
from boxwright.evaluation.matching import match
from boxwright.evaluation.pairing import read_pair
from boxwright.reporting import explore_sections as parts
from boxwright.reporting.examples import CANDIDATES, box_rows, pictures_of
from boxwright.reporting.explore_crops import crop_sections
from boxwright.reporting.page import Section, write_page

EXAMPLES = 40  # pictures of each kind


def explore(
    labels: Tables | str | os.PathLike,
    output: str | os.PathLike = "explore.html",
    predictions: Tables | str | os.PathLike | None = None,
    checkpoint: str | os.PathLike | None = None,
    crops: int = 2000,
    iou: float = 0.5,
    score: float = 0.5,
    seed: int = 0,
    title: str | None = None,
) -> Path:
    """Write a page of a data set: sizes, places, density, headings, sources, when and where it was taken;
    boxes arranged by what they look like, odd ones first; and what a detector finds hard.

    Args:
        labels: tables or a path in any known format.
        output: the page.
        predictions: of the same images; or a finished run's folder, whose own images to judge by are shown.
        checkpoint: a run folder or .safetensors file whose backbone tells what crops are like; None: their
            edges, colours and sizes do.
        crops: boxes that are arranged, as many of each class as can be; 0: none.
        iou: from which a prediction has found an object.
        score: from which a wrong prediction is a confident mistake.
        seed: chooses the crops.
        title: of the page.

    Returns:
        The page.

    Raises:
        ConfigError: `output` is no .html, or a number is out of its range.
        DataError: a file can't be read, or there is nothing to show.
        MissingExtraError: scikit-learn isn't there, and crops are wanted; or torch, for a checkpoint.

    Example:
        >>> boxwright.explore("labels.json", "explore.html")
    """
    target = Path(output)
    if target.suffix != ".html":
        raise ConfigError(f"{target}: expected a .html to write.")
    if not 0 < iou <= 1 or not 0 <= score <= 1:
        raise ConfigError(f"iou {iou:g}, score {score:g}: expected numbers from 0 to 1.")
    if crops:
        import_extra("boxwright.auditing.rarity", "audit")  # told before any work
    tables = labels if isinstance(labels, Tables) else formats.read(labels)
    if not len(tables.images):
        raise DataError("there is no image to show.")
    hard = [hard_examples(*_judged(tables, predictions), iou, score)] if predictions is not None else []
    kinds = parts.kinds_of(tables)
    sections = [parts.contents(tables)]
    if len(tables.boxes):
        sections += [
            parts.sizes(tables, kinds),
            parts.places(tables, kinds),
            parts.density(tables),
            parts.headings(tables, kinds),
        ]
    sections += [parts.groups(tables, kinds), parts.when_and_where(tables)]
    if crops and len(tables.boxes):
        sections += crop_sections(tables, kinds, crops, checkpoint, seed)
    counts = (len(tables.images), len(tables.boxes), len(tables.categories))
    lead = "{:,} images with {:,} boxes of {:,} classes.".format(*counts)
    write_page(target, title or "Data", lead, [s for s in [*sections, *hard] if s is not None])
    return target


def _judged(labels: Tables, predictions: Tables | str | os.PathLike) -> tuple[Tables, Tables]:
    """Truth and predictions: of a run its own, else those of the labels."""
    if not isinstance(predictions, Tables) and (Path(predictions) / "predictions.parquet").is_file():
        run = Path(predictions)
        return read_pair(run / "truth.parquet", run / "predictions.parquet")
    return read_pair(labels, predictions, whole=True)


def hard_examples(truth: Tables, predictions: Tables, iou: float = 0.5, score: float = 0.5) -> Section:
    """What a detector finds hard.

    Args:
        truth, predictions: aligned tables.
        iou: from which a prediction has found an object.
        score: from which a wrong prediction is a confident mistake, and an object that only lesser
            predictions find counts as hardly found.

    Returns:
        Galleries of objects found with the least IoU, of confident mistakes, and of objects that nothing or
        hardly anything found.
    """
    found = match(truth, predictions, np.array([iou]))
    hit, wrong = map(np.flatnonzero, found.outcomes())
    overlap = found.iou_of_found()
    loose = hit[found.det_score[hit] >= score]
    loose = loose[np.argsort(overlap[loose], kind="stable")]
    mistakes = wrong[found.det_score[wrong] >= score]
    mistakes = mistakes[np.argsort(-found.det_score[mistakes], kind="stable")]
    best = np.full(len(found.gt_row), -1.0)
    np.maximum.at(best, found.found()[hit], found.det_score[hit])
    area = truth.boxes["area"].to_numpy()[found.gt_row]
    hardly = np.flatnonzero(~found.gt_ignored[0] & (best < score))
    hardly = hardly[np.lexsort((-area[hardly], best[hardly]))]
    counts = {
        f"found with a score of {score:g} or more": len(loose),
        "mistakes of such a score": len(mistakes),
        "never found": int((best[hardly] < 0).sum()),
        "found with less": int((best[hardly] >= 0).sum()),
    }
    chosen = {
        "Found, least IoU first": (predictions, found.det_row[loose]),
        "Mistakes, most confident first": (predictions, found.det_row[mistakes]),
        "Objects that nothing found, then those of least score": (truth, found.gt_row[hardly]),
    }
    galleries = {
        title: pictures_of(truth, predictions, box_rows(tables, rows[:CANDIDATES]), EXAMPLES)
        for title, (tables, rows) in chosen.items()
    }
    notes = [
        f"At IoU {iou:g}. Orange: the box in question; green: truth; blue: detections above their threshold."
    ]
    return Section("Hard examples", counts, galleries=galleries, notes=notes)
