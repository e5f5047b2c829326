"""COCO results JSON: a list of {image_id, category_id, bbox, score}.

The ids are those of a truth file, which the reader takes as `truth`. Without it the tables hold the ids
alone, and `evaluation` joins them to the truth by these.
"""

from collections.abc import Iterable
from pathlib import Path

import orjson

from boxwright.data.builder import TableBuilder, as_integer, as_number
from boxwright.data.formats import coco_plain
from boxwright.data.formats.coco import read_row, source_ids
from boxwright.data.formats.files import parse_json, read_content, write_atomic
from boxwright.data.formats.options import ReadOptions
from boxwright.data.tables import Tables
from boxwright.errors import DataError


def read(path: Path, options: ReadOptions) -> Tables:
    """Read results.

    Raises:
        DataError: the file isn't a JSON list.
    """
    options.only("coco-results", "truth")
    raw = read_content(path)
    builder = _read_plain(path, raw, options.truth)
    if builder is not None:
        del raw
        return builder.build()
    records = parse_json(path, raw)
    if not isinstance(records, list):
        raise DataError(f"{path}: a JSON {type(records).__name__}, expected a list of results.")
    builder = TableBuilder(path.stem)
    ids = (
        (as_integer(r.get("image_id")), as_integer(r.get("category_id")))
        for r in records
        if isinstance(r, dict)
    )
    image_of, category_of = _known_ids(builder, options.truth, ids)
    where = f"{path}, result"
    for n, record in enumerate(records):
        if not isinstance(record, dict):
            builder.error("result", f"{where} {n}", f"{record!r:.60}, expected an object.", True)
            continue
        row = read_row(builder, f"{where} {n}", record, image_of, category_of)
        score = as_number(record.get("score"))
        if row is not None and score is None:
            found = f"score is {record.get('score')!r:.60}"
            builder.error("score", f"{where} {n}", f"{found}, expected a number.", True)
        elif row is not None:
            builder.box((where, n), *row, score=score)
    return builder.build()


def _read_plain(path: Path, raw: bytes, truth: Tables | None) -> TableBuilder | None:
    """A builder that has all of a plain file, or None."""
    plain = coco_plain.decode_results(raw)
    if plain is None:
        return None
    builder = TableBuilder(path.stem)
    known = _known_ids(builder, truth, ((r.image_id, r.category_id) for r in plain))
    return builder if coco_plain.add_results(builder, f"{path}, result", plain, *known) else None


def write(tables: Tables, path: Path) -> None:
    """Write the boxes that have a score; of oriented ones their upright hulls.

    Raises:
        DataError: a box has none.
    """
    if tables.boxes["score"].null_count():
        missing = tables.boxes["score"].null_count()
        raise DataError(f"{path}: {missing:,} boxes have no score; truth is written as format 'coco'.")
    image_ids, category_ids = source_ids(tables.images), source_ids(tables.categories)
    records = [
        {"image_id": image_ids[row["image_id"]], "category_id": category_ids[row["category_id"]]}
        | {"bbox": box, "score": row["score"]}
        for row, box in zip(tables.boxes.iter_rows(named=True), tables.upright().tolist())
    ]
    write_atomic(path, orjson.dumps(records))


def _known_ids(builder: TableBuilder, truth: Tables | None, named: Iterable) -> tuple[dict, dict]:
    """Ids to rows: of the truth where there is one, else of whatever ids the results name."""
    if truth is not None:
        for row in truth.images.iter_rows(named=True):
            builder.image(row["file_name"], row["path"], row["width"], row["height"], row["source_id"])
        for row in truth.categories.iter_rows(named=True):
            builder.category(row["name"], row["source_id"])
        return (
            {source: n for n, source in enumerate(source_ids(truth.images))},
            {source: n for n, source in enumerate(source_ids(truth.categories))},
        )
    pairs = list(named)
    images, categories = (sorted({p[k] for p in pairs if p[k] is not None}) for k in (0, 1))
    return (
        {i: builder.image(None, source_id=i) for i in images},
        {i: builder.category(str(i), i) for i in categories},
    )
