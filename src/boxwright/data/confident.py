"""Score thresholds that travel with tables of predictions, as attributes of their categories."""

import numpy as np
import polars as pl

from boxwright.data.builder import pack, unpack
from boxwright.data.tables import Tables

KEY = "operating_threshold"
UNKNOWN = 0.3  # the threshold of predictions that don't tell theirs


def thresholds_by_name(categories: pl.DataFrame) -> dict[str, float]:
    """Score thresholds of the classes that have one."""
    held = zip(categories["name"], map(unpack, categories["attributes"]))
    return {name: float(values[KEY]) for name, values in held if isinstance(values.get(KEY), int | float)}


def with_thresholds(categories: pl.DataFrame, thresholds: dict[str, float]) -> pl.DataFrame:
    """The category table with score thresholds by class name."""
    if not thresholds:
        return categories
    attributes = [
        pack(unpack(own) | ({KEY: thresholds[name]} if name in thresholds else {}))
        for name, own in categories.select("name", "attributes").iter_rows()
    ]
    return categories.with_columns(attributes=pl.Series(attributes, dtype=pl.String))


def confident(tables: Tables, least: float | None = None) -> np.ndarray:
    """(N,) bool: predictions at or above their class's threshold (or all of `least`), and all of truth."""
    known = thresholds_by_name(tables.categories)
    limits = np.array([known.get(n, UNKNOWN) if least is None else least for n in tables.categories["name"]])
    score = tables.boxes["score"].fill_null(np.inf).to_numpy()
    return score >= np.append(limits, np.inf)[tables.boxes["category_id"].to_numpy()]
