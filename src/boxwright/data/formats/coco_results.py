"""COCO results JSON: a list of {image_id, category_id, bbox, score}.

The ids are those of a truth file, which the reader takes as `truth`. Without it the tables hold the ids
alone, and `evaluation` joins them to the truth by these. Ids mean nothing to truth that has none (VOC, YOLO,
odgt): there results name the image and the category themselves, by the keys `file_name` and `category` or by
text in place of an id, as YOLO trainers write it, with class numbers from 1 on, and `poly`, four corners, in
place of the `bbox` of an oriented box; or `with_ids` takes the ids from a COCO file.
"""

from collections.abc import Iterable
from itertools import count
from pathlib import Path

import orjson
import polars as pl

from boxwright.data.builder import TableBuilder, as_number
from boxwright.data.formats import coco_plain
from boxwright.data.formats.coco import as_id, read_landmarks, read_row, source_ids, to_keypoints
from boxwright.data.formats.files import parse_json, read_content, resolve_image, write_atomic
from boxwright.data.formats.options import ReadOptions
from boxwright.data.formats.placing import near
from boxwright.data.naming import join_names, join_stems
from boxwright.data.tables import Tables
from boxwright.errors import DataError

COUNTED = "counted-classes"  # the code of a fault


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
    records = [_named(r) if isinstance(r, dict) else r for r in records]
    ids = [tuple(_key(r.get(k)) for k in ("image_id", "category_id")) for r in records if isinstance(r, dict)]
    image_of, category_of = _known_ids(builder, options.truth, ids, near(path, path.parent))
    if options.truth is not None and not has_ids(options.truth):
        category_of |= _class_numbers(builder, path, ids, options.truth)
        _check_ids(path, ids, (image_of, category_of))
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
            image_id, category_id, shape = row
            builder.box(
                (where, n), image_id, category_id, shape, score=score, landmarks=read_landmarks(record)
            )
    return builder.build()


def _read_plain(path: Path, raw: bytes, truth: Tables | None) -> TableBuilder | None:
    """A builder that has all of a plain file, or None."""
    plain = coco_plain.decode_results(raw)
    if plain is None:
        return None
    if truth is not None and not has_ids(truth):
        return None
    builder = TableBuilder(path.stem)
    # Plain results name nothing but ids, which truth that is given has already.
    named = {(r.image_id, r.category_id) for r in plain} if truth is None else ()
    known = _known_ids(builder, truth, named, [])
    known = tuple({key: row for key, row in ids.items() if isinstance(key, int)} for ids in known)
    return builder if coco_plain.add_results(builder, f"{path}, result", plain, *known) else None


def write(tables: Tables, path: Path) -> None:
    """Write the boxes that have a score; of oriented ones their upright hulls.

    Images and categories without ids of their own are numbered from 1, and named beside the number.

    Raises:
        DataError: a box has none.
    """
    if tables.boxes["score"].null_count():
        missing = tables.boxes["score"].null_count()
        raise DataError(f"{path}: {missing:,} boxes have no score; truth is written as format 'coco'.")
    image_ids, category_ids = source_ids(tables.images), source_ids(tables.categories)
    names: list[dict] = [{} for _ in image_ids]
    if not has_ids(tables):
        names = [{"file_name": name} for name in tables.images["file_name"]]
    categories = tables.categories["name"].to_list()
    records = [
        {"image_id": image_ids[row["image_id"]], "category_id": category_ids[row["category_id"]]}
        | {"bbox": box, "score": row["score"]}
        | to_keypoints(row["landmarks"])
        | names[row["image_id"]]
        | ({"category": categories[row["category_id"]]} if names[row["image_id"]] else {})
        for row, box in zip(tables.boxes.iter_rows(named=True), tables.upright().tolist())
    ]
    write_atomic(path, orjson.dumps(records))


def has_ids(tables: Tables) -> bool:
    """Whether every image and category has an id of its own. YOLO's class numbers alone are no COCO ids."""
    columns = tables.images["source_id"], tables.categories["source_id"]
    return all(ids.null_count() == 0 and ids.n_unique() == len(ids) for ids in columns)


def numbers_classes(tables: Tables) -> bool:
    """Whether categories have the numbers 0, 1, 2 ... in their order, as YOLO's have."""
    return tables.categories["source_id"].to_list() == [*range(len(tables.categories))]


def with_ids(truth: Tables, given: Tables) -> Tables:
    """Truth whose images and categories have the ids that they have in other tables, by file name and name.

    Raises:
        DataError: an image or a category of the truth isn't there, or has no id there.
    """
    columns = {}
    for what, key in (("images", "file_name"), ("categories", "name")):
        own, other = getattr(truth, what), getattr(given, what)
        names, given_ids = other[key].to_list(), other["source_id"].to_list()
        rows = (
            join_names(names, own[key].to_list())
            if what == "images"
            else [names.index(name) if name in names else -1 for name in own[key]]
        )
        ids = [given_ids[row] if row >= 0 else None for row in rows]
        missing = [name for name, source_id in zip(own[key], ids) if source_id is None]
        if missing:
            raise DataError(
                f"{len(missing):,} of the truth's {len(own):,} {what} have no id in the file that is to give"
                f" their ids, first '{missing[0]}'."
            )
        columns[what] = own.with_columns(source_id=pl.Series(ids, dtype=pl.Int64))
    return Tables(columns["images"], truth.boxes, columns["categories"], truth.faults)


def _key(value: object) -> int | str | None:
    """An id or a name, as `read_row` looks it up."""
    return value if isinstance(value, str) and value else as_id(value)


def _named(record: dict) -> dict:
    """A result whose names stand in place of its ids, and its corners in place of a box that it lacks."""
    for key, name in (("image_id", "file_name"), ("category_id", "category")):
        if isinstance(record.get(name), str):
            record = record | {key: record[name]}
    return record if "bbox" in record else record | {"bbox": record.get("poly")}


def _check_ids(path: Path, ids: list[tuple], known: tuple[dict, dict]) -> None:
    """Refuse ids of a truth that has none: they would be taken for rows, perhaps shifted by one."""
    for k, what in enumerate(("image", "category")):
        found = next((pair[k] for pair in ids if isinstance(pair[k], int) and pair[k] not in known[k]), None)
        if found is not None:
            raise DataError(
                f"{path}: names each {what} by an id (first {found}), and the truth's format has no ids."
                " --truth-images FILE takes them from a COCO file with the same file names and categories; or"
                " let the results hold 'file_name' and 'category'."
            )


def _class_numbers(builder: TableBuilder, path: Path, ids: list[tuple], truth: Tables) -> dict[int, int]:
    """Rows of class numbers, where the truth numbers its classes as YOLO does and the results' numbers tell
    whether they count from 0 or, as trainers of YOLO write them, from 1; none where they don't.
    """
    classes = len(truth.categories)
    numbers = {number for _, number in ids if isinstance(number, int)}
    first = 0 if 0 in numbers else 1
    rows = {first + n: n for n in range(classes)}
    told = 0 in numbers or classes in numbers
    if not (told and numbers <= rows.keys() and numbers_classes(truth)):
        return {}
    message = (
        f"category ids {first} to {first + classes - 1} are taken for the truth's classes, in their order."
    )
    builder.warning(COUNTED, str(path), message)
    return rows


def _known_ids(
    builder: TableBuilder, truth: Tables | None, named: Iterable, folders: list[Path]
) -> tuple[dict, dict]:
    """Ids and names to rows: of the truth where there is one, else of those that the results name."""
    if truth is not None:
        builder.take_over(truth)
        names = [i for i in dict.fromkeys(i for i, _ in named) if isinstance(i, str)]
        images = join_stems(truth.images["file_name"].to_list(), names)
        categories = dict(zip(truth.categories["name"], count()))
        if has_ids(truth):
            images |= dict(zip(source_ids(truth.images), count()))
            categories |= dict(zip(source_ids(truth.categories), count()))
        return images, categories
    pairs = list(named)
    images, categories = (
        sorted({p[k] for p in pairs if p[k] is not None}, key=lambda i: (isinstance(i, str), i))
        for k in (0, 1)
    )
    return (
        {
            i: builder.image(i, resolve_image(i, folders))
            if isinstance(i, str)
            else builder.image(None, source_id=i)
            for i in images
        },
        {i: builder.category(str(i), i if isinstance(i, int) else None) for i in categories},
    )
