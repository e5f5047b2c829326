"""A calibration: what is done to boxes and scores that are wrong by the same factor everywhere."""

import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import orjson
import polars as pl

from boxwright.data.confident import thresholds_by_name, with_thresholds
from boxwright.data.formats.files import read_json, write_atomic
from boxwright.data.tables import Tables
from boxwright.errors import DataError
from boxwright.evaluation.bounds import moved
from boxwright.evaluation.reading import Curves

VERSION = 1
GROUPS = ("all", "class", "source")


@dataclass(frozen=True)
class Correction:
    """What is done to the boxes of one group: factors of the width (along the heading) and the height (across
    it), and radians that are added to the angle."""

    w: float = 1.0
    h: float = 1.0
    angle: float = 0.0


@dataclass(frozen=True)
class Calibration:
    """A fitted calibration; `apply` gives a table, `save` writes what `load` reads.

    Attributes:
        by: "all", "class" or "source".
        corrections: by the name of the class or source; "" for all.
        temperature: scores become sigmoid(logit(score) / temperature).
        fitted: what it brought: AP before and after, on held-out folds and on all, D-ECE before and after.
        curves: AP over each factor, by group.
    """

    by: str
    corrections: dict[str, Correction]
    temperature: float = 1.0
    fitted: dict[str, float | None] = field(default_factory=dict)
    curves: dict[str, Curves] = field(default_factory=dict)

    def apply(self, tables: Tables) -> Tables:
        """New tables with corrected boxes and scores; groups that weren't fitted stay as they are.

        Raises:
            DataError: a score outside 0 to 1, of which there is no temperature.
        """
        names = group_names(tables, self.by)
        rows = [self.corrections.get(name, Correction()) for name in names]
        w, h, angle = (np.array([getattr(r, key) for r in rows]) for key in ("w", "h", "angle"))
        result = moved(tables, width=w, height=h, turn=angle)
        score = tables.boxes["score"]
        if self.temperature != 1 and score.null_count() == 0:
            odd = int(((score < 0) | (score > 1)).sum())
            if odd:
                raise DataError(f"{odd:,} scores lie outside 0 to 1; a temperature has no meaning for them.")
            new = pl.Series("score", tempered(score.to_numpy(), self.temperature))
            known = thresholds_by_name(tables.categories)
            moved_along = {n: float(tempered(np.array([v]), self.temperature)[0]) for n, v in known.items()}
            categories = with_thresholds(tables.categories, moved_along)
            result = Tables(tables.images, result.boxes.with_columns(new), categories, tables.faults)
        return result

    def to_dict(self) -> dict[str, Any]:
        """What the JSON file holds."""
        return {
            "boxwright_calibration": VERSION,
            "by": self.by,
            "corrections": {name: asdict(c) for name, c in self.corrections.items()},
            "temperature": self.temperature,
            "fitted": self.fitted,
        }

    def save(self, path: str | os.PathLike) -> None:
        """Write the JSON file."""
        write_atomic(Path(path), orjson.dumps(self.to_dict(), option=orjson.OPT_INDENT_2))


def load_calibration(path: str | os.PathLike) -> Calibration:
    """Read what `Calibration.save` wrote.

    Raises:
        DataError: the file is missing, not JSON, or not a calibration.
    """
    content = read_json(Path(path))
    if not isinstance(content, dict) or content.get("boxwright_calibration") != VERSION:
        raise DataError(f"{path}: not a calibration of boxwright, version {VERSION}.")
    by, temperature, given = content.get("by"), content.get("temperature"), content.get("corrections")
    if by not in GROUPS:
        raise DataError(f"{path}: 'by' is {by!r}, expected one of {', '.join(GROUPS)}.")
    if not _is_number(temperature) or temperature <= 0:
        raise DataError(f"{path}: 'temperature' is {temperature!r}, expected a number above 0.")
    if not isinstance(given, dict):
        raise DataError(f"{path}: 'corrections' is {given!r:.60}, expected an object.")
    corrections = {name: _read_correction(path, name, values) for name, values in given.items()}
    fitted = content.get("fitted")
    return Calibration(by, corrections, float(temperature), fitted if isinstance(fitted, dict) else {})


def _read_correction(path: str | os.PathLike, name: str, values: Any) -> Correction:
    if isinstance(values, dict) and values.keys() == {"w", "h", "angle"}:
        numbers = list(values.values())
        if all(map(_is_number, numbers)) and values["w"] > 0 and values["h"] > 0:
            return Correction(**values)
    raise DataError(f"{path}: '{name}' is {values!r:.80}, expected w and h above 0, and an angle.")


def group_names(tables: Tables, by: str) -> list[str]:
    """The name of each box's group, one of GROUPS; "" where all are one."""
    if by == "all":
        return [""] * len(tables.boxes)
    if by == "source":
        return tables.boxes["source"].fill_null("").to_list()
    return tables.categories["name"].gather(tables.boxes["category_id"]).to_list()


def tempered(score: np.ndarray, temperature: float) -> np.ndarray:
    """sigmoid(logit(score) / temperature); 0 and 1 stay what they are."""
    with np.errstate(divide="ignore"):
        return 1 / (1 + np.exp(-(np.log(score) - np.log1p(-score)) / temperature))


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
