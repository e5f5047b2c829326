"""From an experiment's `data` section to one set of tables."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from boxwright.config.data import DataConfig, SourceConfig
from boxwright.data import formats
from boxwright.data.builder import TableBuilder
from boxwright.data.confident import thresholds_by_name
from boxwright.data.formats.options import ReadOptions
from boxwright.data.images import find_images
from boxwright.data.tables import CATEGORY_SCHEMA, Tables, concat, frame
from boxwright.errors import ConfigError, DataError, nearest


def load_sources(source: SourceConfig | list[SourceConfig]) -> list[Tables]:
    """Read one or several sources.

    Raises:
        DataError: a source can't be read.
        ConfigError: a format or option is wrong, or there is no source.
    """
    sources = source if isinstance(source, list) else [source]
    if not sources:
        raise ConfigError("a list of data sources is empty.")
    return [_read(s) for s in sources]


def load_parts(data: DataConfig) -> tuple[list[Tables], Tables]:
    """What to learn from, source by source, and what to judge by.

    Raises:
        DataError: a source can't be read, or a share of the images to judge by is none or all of them.
        ConfigError: a format or option is wrong.
    """
    learnt = load_sources(data.train)
    if not isinstance(data.val, int | float):
        return learnt, concat(load_sources(data.val))
    judged = [_chosen(tables, data.val) for tables in learnt]
    kept = [tables.select_images(~own) for tables, own in zip(learnt, judged)]
    val = concat([tables.select_images(own) for tables, own in zip(learnt, judged)])
    if not len(val.images) or not any(len(tables.images) for tables in kept):
        count = sum(len(tables.images) for tables in learnt)
        raise DataError(f"data.val: {data.val:g} of {count:,} images leaves none to judge by, or to learn.")
    return kept, val


def _chosen(tables: Tables, share: float) -> np.ndarray:
    """(I,) bool: about a share of the images, by their names alone, whatever else is there."""
    names = (name or str(n) for n, name in enumerate(tables.images["file_name"]))
    digests = (hashlib.sha256(name.encode()).digest() for name in names)
    return np.array([int.from_bytes(d[:4], "big") < share * 2**32 for d in digests], dtype=bool)


def select_classes(
    tables: Tables, names: list[str], ignored: Sequence[str] = ()
) -> tuple[Tables, dict[str, int]]:
    """The tables with exactly the categories `names`, in their order.

    Boxes of the categories `ignored` become ignore regions, one for each of `names`: they are neither objects
    nor background, whatever is found there.

    Returns:
        The tables, and how many boxes of which other category were left out.

    Raises:
        ConfigError: none of `names` is a category of the tables, or one stands there twice or is `ignored`.
    """
    tables = _ignore_classes(tables, ignored, names)
    if len(set(names)) < len(names):
        raise ConfigError(f"classes holds a name twice: {names}.")
    own = tables.categories["name"].to_list()
    if not set(names) & set(own):
        raise ConfigError(f"none of the classes {names} is in the data. {nearest(names[0], own)}")
    row_of = {name: n for n, name in enumerate(names)}
    new_id = np.array([row_of.get(n, -1) for n in own], dtype=np.int32)[
        tables.boxes["category_id"].to_numpy()
    ]
    counts = tables.boxes.filter(new_id < 0)["category_id"].value_counts()
    left_out = {own[row["category_id"]]: row["count"] for row in counts.iter_rows(named=True)}
    boxes = tables.boxes.with_columns(category_id=pl.Series(new_id, dtype=pl.Int32)).filter(new_id >= 0)
    ids = {row["name"]: row["source_id"] for row in tables.categories.iter_rows(named=True)}
    columns = {
        "category_id": np.arange(len(names)),
        "name": names,
        "source_id": [ids.get(n) for n in names],
    }
    return Tables(tables.images, boxes, frame(CATEGORY_SCHEMA, columns), tables.faults), left_out


def _read(source: SourceConfig) -> Tables:
    told = (source.format, source.list, source.images, source.boxes, source.layout, source.angles)
    without_boxes = source.role in ("background", "unlabelled")
    if without_boxes and not any(told) and Path(source.root).is_dir():
        return images_of(Path(source.root))
    options = ReadOptions(
        list_name=source.list,
        images=Path(source.images) if source.images else None,
        boxes=source.boxes,
        layout=source.layout,
        angles=source.angles,
    )
    tables = formats.read(source.root, source.format, options)
    if without_boxes:
        return replace(tables, boxes=tables.boxes.clear(), categories=tables.categories.clear())
    if source.role == "pseudo":
        tables = _as_labels(tables, source)
    return scale_boxes(rename_classes(tables, source.class_map, source.root), source.tightness)


def _as_labels(tables: Tables, source: SourceConfig) -> Tables:
    """Predictions as labels: certain ones are objects, doubtful ones are ignored, the others are left out.

    Raises:
        DataError: a box has no score.
        ConfigError: a class has no threshold, or there is no such class.
    """
    names, score = tables.categories["name"].to_list(), tables.boxes["score"]
    if score.null_count():
        raise DataError(
            f"{source.root}: {score.null_count():,} of {len(score):,} boxes have no score; role: pseudo is"
            " for what a detector found (boxwright pseudo-label)."
        )
    if isinstance(source.scores, dict):
        limits = thresholds_by_name(tables.categories) | source.scores
    elif source.scores is not None:
        limits = dict.fromkeys(names, source.scores)
    else:
        limits = thresholds_by_name(tables.categories)
    unknown = [name for name in limits if name not in names]
    missing = [name for name in names if name not in limits]
    if unknown:
        raise ConfigError(f"scores of {source.root}: no class '{unknown[0]}'. {nearest(unknown[0], names)}")
    if missing:
        raise ConfigError(
            f"{source.root}: no threshold for '{missing[0]}'; expected scores: 0.5, or {{{missing[0]}: 0.5}}."
        )
    limit = np.array([limits[name] for name in names])[tables.boxes["category_id"].to_numpy()]
    certain = pl.Series(score.to_numpy() >= limit, dtype=pl.Boolean)
    boxes = tables.boxes.with_columns(ignore=pl.col("ignore") | ~certain)
    return tables.with_boxes(boxes.filter(certain | (score >= source.doubt)))


def images_of(folder: Path) -> Tables:
    """The images of a folder, without boxes."""
    builder = TableBuilder(folder.name)
    for path in find_images(folder):
        builder.image(str(path.relative_to(folder)), str(path))
    return builder.build()


def rename_classes(tables: Tables, names: dict[str, str] | None, place: str) -> Tables:
    """Tables whose categories have other names; those of one name become one.

    Raises:
        ConfigError: a name isn't a category of the tables, which are of `place`.
    """
    if not names:
        return tables
    own = tables.categories["name"].to_list()
    for name in names:
        if name not in own:
            raise ConfigError(f"class_map of {place}: no class '{name}'. {nearest(name, own)}")
    new = [names.get(name, name) for name in own]
    row_of = {name: n for n, name in enumerate(dict.fromkeys(new))}
    new_id = np.array([row_of[name] for name in new], dtype=np.int32)
    category_id = pl.Series(new_id[tables.boxes["category_id"].to_numpy()], dtype=pl.Int32)
    categories = frame(CATEGORY_SCHEMA, {"category_id": np.arange(len(row_of)), "name": list(row_of)})
    return replace(tables, boxes=tables.boxes.with_columns(category_id=category_id), categories=categories)


def scale_boxes(tables: Tables, factors: tuple[float, float]) -> Tables:
    """Boxes with widths and heights times `factors`, about their centres."""
    if factors == (1.0, 1.0):
        return tables
    columns = {}
    for start, side, factor in (("x", "w", factors[0]), ("y", "h", factors[1])):
        columns[start] = pl.col(start) + pl.col(side) * (1 - factor) / 2
        columns[side] = pl.col(side) * factor
    area = pl.col("area") * factors[0] * factors[1]
    return tables.with_boxes(tables.boxes.with_columns(area=area, **columns))


def mark_ignored(tables: Tables, names: Sequence[str]) -> Tables:
    """The tables whose boxes of some categories are ignored regions, in their places and of their category.

    Raises:
        ConfigError: a name is no category.
    """
    own = tables.categories["name"].to_list()
    for name in names:
        if name not in own:
            raise ConfigError(f"no class '{name}' to ignore. {nearest(name, own)}")
    marked = pl.col("category_id").is_in([own.index(name) for name in names])
    return tables.with_boxes(tables.boxes.with_columns(ignore=pl.col("ignore") | marked))


def _ignore_classes(tables: Tables, ignored: Sequence[str], names: list[str]) -> Tables:
    both = sorted(set(ignored) & set(names))
    if both:
        raise ConfigError(f"'{both[0]}' is both a class and ignored.")
    own = tables.categories["name"].to_list()
    targets = [own.index(name) for name in names if name in own]
    marked = tables.boxes["category_id"].is_in([own.index(n) for n in ignored if n in own])
    regions = tables.boxes.filter(marked).with_columns(ignore=pl.lit(True))
    copies = [regions.with_columns(category_id=pl.lit(k, dtype=pl.Int32)) for k in targets]
    boxes = pl.concat([tables.boxes.filter(~marked), *copies])
    return tables.with_boxes(boxes.sort("image_id", maintain_order=True) if len(regions) else tables.boxes)
