"""Apply what an audit proposes, count it, and take it back."""

from collections.abc import Sequence
from dataclasses import dataclass

import orjson
import polars as pl

from boxwright.auditing.schema import BOX
from boxwright.data.tables import BOX_SCHEMA, Tables
from boxwright.errors import ConfigError, DataError, nearest

RECORD_SCHEMA: dict[str, pl.DataType] = {
    "kind": pl.String(),
    "image_id": pl.Int64(),
    "new_row": pl.Int64(),  # of the repaired box; null: it was taken out
    "was": pl.String(),  # the box before, as a JSON object; null: it was added
    "became": pl.String(),  # and after; null: it was taken out
}


@dataclass(frozen=True)
class Repaired:
    """Labels after repairs.

    Attributes:
        tables: the labels.
        record: a row a repair, `RECORD_SCHEMA`, from which `undo` takes them back.
    """

    tables: Tables
    record: pl.DataFrame

    @property
    def counts(self) -> dict[str, int]:
        """Repairs of each kind."""
        return dict(self.record["kind"].value_counts(sort=True).iter_rows())


def repair(
    labels: Tables, suspicions: pl.DataFrame, above: float = 0.9, kinds: Sequence[str] | None = None
) -> Repaired:
    """Repair labels whose fault is likely, each once: the likeliest of its faults.

    Args:
        labels: those that were audited, box for box.
        suspicions: of `suspect`.
        above: the least probability.
        kinds: of faults; None: all.

    Raises:
        DataError: the suspicions are of other labels.
        ConfigError: an unknown kind.
    """
    known = suspicions["kind"].unique().to_list()
    for kind in kinds or ():
        if kind not in known:
            raise ConfigError(f"no suspicion of kind '{kind}'. {nearest(kind, known)}")
    chosen = suspicions.filter(pl.col("probability") >= above)
    if kinds:
        chosen = chosen.filter(pl.col("kind").is_in(kinds))
    chosen = chosen.sort("probability", descending=True, maintain_order=True)
    old = chosen.filter(pl.col("row").is_not_null()).unique("row", keep="first", maintain_order=True)
    _check(labels, old)
    return _changed(labels, [*old.to_dicts(), *chosen.filter(pl.col("row").is_null()).to_dicts()])


def _check(labels: Tables, suspicions: pl.DataFrame) -> None:
    """Suspicions name rows, so that they must be of these labels.

    Raises:
        DataError: a box isn't the one that was audited.
    """
    boxes = labels.boxes
    for row in suspicions.iter_rows(named=True):
        found = boxes.row(row["row"], named=True) if row["row"] < len(boxes) else {}
        if any(found.get(name) != row[name] for name in (*BOX, "image_id")):
            shown = ", ".join(f"{row[name]:g}" for name in "xywh")
            raise DataError(
                f"label {row['row']} of the audit is {shown} in {row['file_name']}, and another here: these"
                " labels have changed since, or are others. Audit them again."
            )


def _changed(labels: Tables, repairs: list[dict]) -> Repaired:
    place = {name: n for n, name in enumerate(labels.categories["name"])}
    boxes = labels.boxes.to_dicts()
    changed: list[tuple[dict, dict | None, dict | None]] = []
    for repair in repairs:
        was = boxes[repair["row"]] if repair["row"] is not None else None
        became = None
        if repair["new_category"] is not None:
            became = dict(was or _blank(repair)) | {name: repair[f"new_{name}"] for name in BOX}
            became["category_id"] = place[repair["new_category"]]
            before = was["w"] * was["h"] if was else 0
            share = was["area"] / before if was and before else 1
            became["area"] = became["w"] * became["h"] * share
        changed.append((repair, was, became))
        if repair["row"] is not None:
            boxes[repair["row"]] = {"_repair": len(changed) - 1} | (became or {"image_id": None})
    kept = [box for box in boxes if box["image_id"] is not None]
    kept += [{"_repair": n} | new for n, (_, was, new) in enumerate(changed) if was is None and new]
    kept.sort(key=lambda box: box["image_id"])
    new_row = {box["_repair"]: n for n, box in enumerate(kept) if "_repair" in box}
    record = [
        {
            "kind": repair["kind"],
            "image_id": repair["image_id"],
            "new_row": new_row.get(n),
            "was": _packed(was),
            "became": _packed(became),
        }
        for n, (repair, was, became) in enumerate(changed)
    ]
    return Repaired(labels.with_boxes(_table(kept)), pl.DataFrame(record, schema=RECORD_SCHEMA))


def undo(labels: Tables, record: pl.DataFrame) -> Tables:
    """Labels as they were before the repairs of a record; boxes of an image may stand in another order.

    Raises:
        DataError: the record is of other labels.
    """
    boxes = labels.boxes.to_dicts()
    for row in record.iter_rows(named=True):
        if row["new_row"] is not None:
            found = _packed(boxes[row["new_row"]]) if row["new_row"] < len(boxes) else None
            if found != row["became"]:
                raise DataError(f"box {row['new_row']} isn't the one that was repaired: other labels.")
    for new_row, was in record.select("new_row", "was").iter_rows():
        before = orjson.loads(was) if was else {"image_id": None}
        if new_row is not None:
            boxes[new_row] = before
        else:
            boxes.append(before)
    kept = [box for box in boxes if box["image_id"] is not None]
    return labels.with_boxes(_table(sorted(kept, key=lambda box: box["image_id"])))


def _blank(repair: dict) -> dict:
    """A box that an audit adds."""
    flags = dict.fromkeys(("crowd", "ignore", "difficult"), False)
    return dict.fromkeys(BOX_SCHEMA) | flags | {"image_id": repair["image_id"], "source": "audit"}


def _packed(box: dict | None) -> str | None:
    return None if box is None else orjson.dumps({name: box[name] for name in BOX_SCHEMA}).decode()


def _table(boxes: list[dict]) -> pl.DataFrame:
    return pl.DataFrame([{name: box[name] for name in BOX_SCHEMA} for box in boxes], schema=BOX_SCHEMA)
