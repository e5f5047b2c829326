"""`boxwright data audit` on predictions that are there: suspicions as a table and a page."""

import os
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from boxwright.auditing.offsets import frame_offsets
from boxwright.auditing.others import what_others_drew
from boxwright.auditing.systematic import systematic
from boxwright.data import formats
from boxwright.data.tables import Tables
from boxwright.errors import import_extra
from boxwright.evaluation.pairing import read_pair
from boxwright.progress import progress_bar
from boxwright.reporting.audit_page import write_audit

TABLE, PAGE = "audit.parquet", "index.html"


def audit(
    labels: Tables | str | os.PathLike,
    predictions: Tables | str | os.PathLike,
    output: str | os.PathLike | None = None,
    seed: int = 0,
    others: Mapping[str, Tables | str | os.PathLike] | None = None,
) -> pl.DataFrame:
    """Find labels that are wrong by the predictions of a model that hasn't learnt from them.

    Faults of every kind are planted into copies of the labels; how they look beside the predictions is
    learnt, and what looks so without having been planted is suspected (scikit-learn's gradient boosting,
    five folds of images). Where images can be read, what boxes and their surroundings look like tells too,
    and what is labelled in other images that show the same place.
    How many of the labels are wrong already is estimated, so that probabilities are those of faults.

    Args:
        labels: tables or a path in any known format.
        predictions: over the same images, best with scores from 0.05 on; of a model that has learnt from
            other images, as `out_of_fold` makes them.
        output: a folder for the table (`audit.parquet`) and the page (`index.html`); None: neither.
        seed: of the planted faults.
        others: other people's labels of some of these images, by name: what they drew stands beside each
            suspicion.

    Returns:
        A row a suspicion, likeliest first: `boxwright.auditing.suspicions.SUSPICION_SCHEMA`.

    Raises:
        DataError: a file can't be read, the two don't belong together, or there are too few labels.
        MissingExtraError: scikit-learn isn't there.

    Example:
        >>> boxwright.audit("labels.json", "predictions.parquet", "audit").head()
    """
    truth, found = read_pair(labels, predictions, whole=True)
    suspicions = import_extra("boxwright.auditing.suspicions", "audit")
    judging = import_extra("boxwright.auditing.judging", "audit")
    with progress_bar("audit labels", judging.steps_of(truth)) as tell:
        table = suspicions.suspect(truth, found, seed, tell)
    if others:
        drawn = {name: o if isinstance(o, Tables) else formats.read(o) for name, o in others.items()}
        table = table.with_columns(what_others_drew(table, truth, drawn))
    if output is not None:
        folder = Path(output)
        folder.mkdir(parents=True, exist_ok=True)
        table.write_parquet(folder / TABLE)
        offsets = frame_offsets(truth, found)
        write_audit(truth, table, systematic(truth, found), offsets, folder / PAGE)
    return table
