"""Which experiment suits a data set: the text that `boxwright init` writes, with a word on each choice."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from boxwright.data.tables import Tables

CLEAR, VISIBLE = 24.0, 12.0  # px of the input: shorter side of the usual object, and of the smallest tenth
LEAST_SIDE, GREATEST_SIDE = 320, 1280  # px, of the longer side of the input
CROP = 640  # px, of what is trained on where an image at a usable scale is larger than GREATEST_SIDE
HALVED = 512  # px, from which half an image is trained on where objects are small beside it
ROOM = 3  # sides of all but the largest tenth of objects, that a half must hold
SEEN = 13_000  # images in all epochs, twice as many crops: twice of it learns BCCD by heart
EPOCHS, SMALL_SET = (10, 200), 100
NO_CLASS = re.compile(r"(dont ?care|ignored?( ?(region|area)s?)?)")  # regions, told by their category's name


def suggest(tables: Tables, path: Path) -> dict[str, Any]:
    """The experiment that `init` would write for tables that are in a Parquet file, as plain values."""
    source = {"root": str(path.resolve()), "format": "parquet"}
    return yaml.safe_load(
        write_experiment(source, source, tables, tables.categories["name"].to_list(), ["Suggested."])
    )


def suggest_size(tables: Tables) -> tuple[tuple[int, int], tuple[int, int] | None]:
    """Width and height that images are fitted into, and of crops to train on, where these teach more.

    The smallest size at which the usual object is `CLEAR` px and the smallest tenth `VISIBLE`; no larger than
    the images, in multiples of 32. Crops where an image is too large for a network, or its objects small.
    """
    shapes = tables.images.select("width", "height").drop_nulls().to_numpy()
    if len(shapes) == 0:
        return (640, 640), None
    width, height = (float(v) for v in np.median(shapes, axis=0))
    sides = shorter_sides(tables)
    scale = 1.0
    if len(sides):
        low, middle = np.percentile(sides, [10, 50])
        scale = min(1.0, max(VISIBLE / max(low, 1.0), CLEAR / max(middle, 1.0)))
    longest = max(width, height)
    wanted = min(max(longest * scale, min(LEAST_SIDE, longest)), longest)
    size = [max(32, round(side * wanted / longest / 32) * 32) for side in (width, height)]
    if max(size) > GREATEST_SIDE:
        return (size[0], size[1]), (CROP, CROP)
    half = [max(32, round(side / 64) * 32) for side in size]
    great = float(np.percentile(_sides(tables).max(axis=1), 90)) * wanted / longest if len(sides) else 0.0
    small = len(sides) and max(size) >= HALVED and min(half) >= ROOM * great
    return (size[0], size[1]), (half[0], half[1]) if small else None


def shorter_sides(tables: Tables) -> np.ndarray:
    """(N,) px, of the boxes that count."""
    return _sides(tables).min(axis=1)


def _sides(tables: Tables) -> np.ndarray:
    """(N, 2) px, width and height of the boxes that count."""
    counted = (~tables.boxes["crowd"] & ~tables.boxes["ignore"]).to_numpy()
    return tables.boxes.select("w", "h").to_numpy().astype(float)[counted]


def write_experiment(
    train: Mapping[str, Any],
    val: Mapping[str, Any],
    tables: Tables,
    names: Sequence[str],
    found: Sequence[str],
) -> str:
    """The experiment as YAML, every choice explained by a comment.

    Args:
        train, val: sources as a config has them.
        tables: of the training source.
        names: of the categories to learn.
        found: sentences on the data, for the head.
    """
    size, crop = suggest_size(tables)
    lines = ["# Written by boxwright init. " + found[0], *(f"# {sentence}" for sentence in found[1:])]
    lines += ["data:", f"  train: {_flow(train)}", f"  val: {_flow(val)}", *_classes(names)]
    lines += ["model:", *_model(tables, size)]
    lines += [f"image_size: [{size[0]}, {size[1]}]  # width, height that images are fitted into, px"]
    lines += [
        "augment:",
        *_augment(tables, size, crop),
        "train:",
        *_train(len(tables.images), crop is not None),
    ]
    return "\n".join(lines) + "\n"


def _classes(names: Sequence[str]) -> list[str]:
    regions = [n for n in names if NO_CLASS.fullmatch(re.sub(r"[^a-z]+", " ", n.lower().replace("'", "")))]
    regions = regions if len(regions) < len(names) else []
    classes = [n for n in names if n not in regions]
    lines = [f"  classes: {_flow(classes)}  # what is learnt; leave one out and its boxes are background"]
    if regions:
        lines += [f"  ignore: {_flow(regions)}  # no objects: regions where nothing counts"]
    return lines


def _model(tables: Tables, size: tuple[int, int]) -> list[str]:
    if not tables.has_angles():
        return ["  name: compact  # small and fast; also yolox, atss, fcos, retinanet, gfl, vfnet, ..."]
    sides, widths = shorter_sides(tables), tables.images["width"].drop_nulls()
    width = float(np.median(widths.to_numpy())) if len(widths) else 1.0
    small = len(sides) and float(np.median(sides)) * size[0] / width < CLEAR
    return [
        "  name: compact_obb  # small, fast, of oriented boxes; also fcos_obb, atss_obb, retinanet_obb",
        f"  heading: {str(tables.has_headings()).lower()}  # tell front from back",
        f"  finest: {4 if small else 8}  # stride of the finest map, px; 4 for objects of a dozen pixels",
    ]


def _augment(tables: Tables, size: tuple[int, int], crop: tuple[int, int] | None) -> list[str]:
    lines = ["  flip_horizontal: 0.5  # probability; 0 where left and right differ, as in writing"]
    if tables.has_angles():
        lines += ["  flip_vertical: 0.5  # seen from above there is no up", "  quarter_turn: 0.5"]
    else:
        lines += ["  flip_vertical: 0.0  # 0.5 where there is no up, as in microscopy or from the air"]
    if crop:
        why = "predict with --tiles" if max(size) > GREATEST_SIDE else "most of an image is empty"
        lines += [f"  crop: [{crop[0]}, {crop[1]}]  # px of the input to train on; {why}"]
        lines += ["  focus: 0.7  # share of the crops that lie around an object"]
    return lines


def _train(images: int, crops: bool) -> list[str]:
    epochs = int(np.clip(round(SEEN * (2 if crops else 1) / max(images, 1)), *EPOCHS))
    batch, rate = (4, 0.007) if images < SMALL_SET else (8, 0.01)
    return [
        f"  epochs: {epochs}  # over {images:,} images; or minutes: 30",
        f"  batch_size: {batch}",
        f"  optimizer: {{name: muon, lr: {rate}, weight_decay: 0.1}}  # or adamw at half the rate",
    ]


def _flow(value: object) -> str:
    """A value in one line of YAML."""
    return yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=1_000_000
    ).strip()
