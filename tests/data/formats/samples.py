"""A small input of each format, made here: what readers are tested and damaged with."""

import json
from pathlib import Path

import numpy as np
import orjson
from PIL import Image

from boxwright.data import formats
from boxwright.data.formats import text
from boxwright.data.formats.options import ReadOptions
from tests.scenes import oriented_tables, small_tables

ODGT = [
    {
        "ID": "000",
        "gtboxes": [
            {"tag": "person", "fbox": [10, 12, 20, 16], "vbox": [11, 12, 9, 9], "hbox": [12, 13, 4, 4]}
            | {"extra": {"box_id": 0, "occ": 1}, "head_attr": {"ignore": 1, "occ": 0}},
            {"tag": "mask", "fbox": [40, 8, 12, 30], "vbox": [40, 8, 12, 30], "hbox": [40, 8, 12, 30]}
            | {"extra": {"ignore": 1}, "head_attr": {}},
        ],
    },
    {
        "ID": "001",
        "gtboxes": [{"tag": "person", "fbox": [5, 5, 50, 40], "vbox": [5, 5, 9, 9], "hbox": [5, 5, 4, 4]}],
    },
]
EUROCITY = {
    "imagename": "000.png",
    "imagewidth": 96,
    "imageheight": 64,
    "children": [
        {"identity": "rider", "x0": 10, "y0": 12, "x1": 30, "y1": 28, "tags": ["occluded>40"]}
        | {
            "children": [
                {"identity": "bicycle", "x0": 12, "y0": 20, "x1": 30, "y1": 30, "tags": [], "children": []}
            ]
        },
        {
            "identity": "person-group-far-away",
            "x0": 40,
            "y0": 8,
            "x1": 52,
            "y1": 38,
            "tags": [],
            "children": [],
        },
    ],
}


def make_sample(format: str, folder: Path) -> tuple[Path, list[Path], ReadOptions]:
    """Write a sample; gives what to read, the files that may be damaged, and the options."""
    scores = [0.9, 0.8, 0.7, 0.6] if format == "coco-results" else None
    tables = small_tables(folder, scores)
    if format in ("coco-angle", "dota", "dota-results", "markers"):
        tables = oriented_tables(folder / "images", scores=format == "dota-results")
    options = ReadOptions()
    if format == "odgt":
        source = folder / "sample.odgt"
        source.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in ODGT))
    elif format == "eurocity":
        source = folder / "000.json"
        source.write_text(json.dumps(EUROCITY))
    elif format in ("voc", "yolo", "dota", "dota-results"):
        source = folder
        formats.write(tables, source, format)
    elif format == "text":
        source = folder / "labels"
        text.write(tables, source, "xyxy")
    else:
        source = folder / f"sample.{'parquet' if format == 'parquet' else 'json'}"
        formats.write(tables, source, format)
        options = ReadOptions(truth=tables) if format == "coco-results" else options
    suffixes = {".xml", ".txt", ".yaml", ".json", ".odgt", ".parquet"}
    found = [source] if source.is_file() else [p for p in source.rglob("*") if p.suffix in suffixes]
    files = [p for p in found if p.name != "all.txt"]
    return source, sorted(files), options


def damage(content: bytes, rng: np.random.Generator) -> bytes:
    """A copy with some bytes changed, removed, repeated or put in, or cut off."""
    damaged = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(0, max(1, len(damaged))))
        kind = rng.integers(0, 5)
        if kind == 0 and damaged:
            damaged[min(at, len(damaged) - 1)] = int(rng.integers(0, 256))
        elif kind == 1:
            del damaged[at : at + int(rng.integers(1, 6))]
        elif kind == 2:
            damaged[at:at] = bytes(rng.integers(32, 127, int(rng.integers(1, 6)), dtype=np.uint8))
        elif kind == 3:
            damaged[at:at] = damaged[at : at + int(rng.integers(1, 6))]
        else:
            del damaged[len(damaged) - int(rng.integers(1, 12)) :]
    return bytes(damaged)


def save_image(path: Path, array: np.ndarray, **options: object) -> None:
    """Write pixels as an image file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
