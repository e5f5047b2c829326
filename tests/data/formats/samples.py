"""A small input of each format, made here: what readers are tested and damaged with."""

import json
from pathlib import Path

import numpy as np
import orjson
from PIL import Image

from boxwright.data import formats
from boxwright.data.formats import text
from boxwright.data.formats.options import ReadOptions
from boxwright.data.tables import Tables
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

CVAT_VIDEO = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<meta><task><original_size><width>96</width><height>64</height></original_size></task></meta>
<track id="0" label="cat" source="manual">
<box frame="0" outside="0" occluded="0" keyframe="1" xtl="10" ytl="12" xbr="30" ybr="28" z_order="0"></box>
<box frame="1" outside="0" occluded="1" keyframe="0" xtl="12" ytl="12" xbr="32" ybr="28" rotation="30"/>
<box frame="2" outside="1" occluded="0" keyframe="1" xtl="12" ytl="12" xbr="32" ybr="28"></box></track>
<track id="1" label="dog" source="manual">
<box frame="1" outside="0" occluded="0" keyframe="1" xtl="40" ytl="8" xbr="52" ybr="38" z_order="0">
<attribute name="breed">pug</attribute></box></track>
</annotations>
"""
KITTI = {
    "000": "Car 0.00 0 -1.57 10.00 12.00 30.00 28.00 1.5 1.6 3.7 1.0 1.7 20.1 -1.56\n"
    "DontCare -1 -1 -10 40.50 8.25 53.00 38.25 -1 -1 -1 -1000 -1000 -1000 -10\n",
    "001": "Pedestrian 0.00 2 0.21 5.00 5.00 55.00 45.00 1.9 0.5 1.0 1.8 1.5 8.4 0.01\n",
}
VISDRONE = {
    "000": "10,12,20,16,1,4,0,0\n40,8,12,30,0,0,0,0\n",
    "001": "5,5,50,40,1,1,0,1\n30,20,8,8,1,11,1,2,\n",
}
TENSORFLOW = """filename,width,height,class,xmin,ymin,xmax,ymax
000.png,96,64,cat,10,12,30,28
000.png,96,64,dog,40.5,8.25,53,38.25
001.png,96,64,cat,5,5,55,45
"""


def by_hand(format: str, tables: Tables, folder: Path) -> Path:
    """A sample of a format that is only read, from the boxes of `tables`, images in `folder`/images."""
    images, names = tables.images["file_name"].to_list(), tables.categories["name"].to_list()
    rows = [tables.boxes.filter(tables.boxes["image_id"] == n).to_dicts() for n in range(len(images))]
    boxes = [[(names[b["category_id"]], *(b[c] for c in "xywh")) for b in mine] for mine in rows]
    if format == "createml":
        records = [
            {
                "image": image,
                "annotations": [
                    {"label": label, "coordinates": {"x": x + w / 2, "y": y + h / 2, "width": w, "height": h}}
                    for label, x, y, w, h in mine
                ],
            }
            for image, mine in zip(images, boxes)
        ]
        return _written(folder / "sample.json", json.dumps(records))
    if format == "bdd100k":
        frames = [
            {
                "name": image,
                "attributes": {"weather": "clear"},
                "labels": [
                    {"id": str(n), "category": label, "attributes": {"occluded": False}}
                    | {"box2d": {"x1": x, "y1": y, "x2": x + w, "y2": y + h}}
                    for n, (label, x, y, w, h) in enumerate(mine)
                ],
            }
            for image, mine in zip(images, boxes)
        ]
        return _written(folder / "sample.json", json.dumps(frames))
    if format == "imagefolder":
        lines = [
            {
                "file_name": image,
                "objects": {"bbox": [b[1:] for b in mine], "categories": [b[0] for b in mine]},
            }
            for image, mine in zip(images, boxes)
        ]
        _written(folder / "metadata.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
        return folder
    if format == "supervisely":
        classes = [{"title": name, "shape": "rectangle", "color": "#ff0000"} for name in names]
        _written(folder / "meta.json", json.dumps({"classes": classes, "tags": [], "projectType": "images"}))
        (folder / "set").mkdir()
        (folder / "images").rename(folder / "set" / "img")
        for image, mine in zip(images, boxes):
            objects = [
                {"classTitle": label, "geometryType": "rectangle", "tags": []}
                | {"points": {"exterior": [[x, y], [x + w, y + h]], "interior": []}}
                for label, x, y, w, h in mine
            ]
            record = {"description": "", "tags": [], "size": {"height": 64, "width": 96}, "objects": objects}
            _written(folder / "set" / "ann" / f"{image}.json", json.dumps(record))
        return folder
    if format == "csv":
        return _written(folder / "sample.csv", TENSORFLOW)
    texts, place = (KITTI, "label_2") if format == "kitti" else (VISDRONE, "annotations")
    if format == "kitti":
        (folder / "images").rename(folder / "image_2")
    for stem, content in texts.items():
        _written(folder / place / f"{stem}.txt", content)
    return folder


def _written(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def make_sample(format: str, folder: Path) -> tuple[Path, list[Path], ReadOptions]:
    """Write a sample; gives what to read, the files that may be damaged, and the options."""
    scores = [0.9, 0.8, 0.7, 0.6] if format == "coco-results" else None
    tables = small_tables(folder, scores)
    if format in ("coco-angle", "dota", "dota-results", "markers", "cvat", "labelstudio"):
        tables = oriented_tables(folder / "images", scores=format == "dota-results")
    options = ReadOptions()
    if format == "odgt":
        source = folder / "sample.odgt"
        source.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in ODGT))
    elif format == "eurocity":
        source = folder / "000.json"
        source.write_text(json.dumps(EUROCITY))
    elif format in ("createml", "bdd100k", "imagefolder", "supervisely", "csv", "kitti", "visdrone"):
        source = by_hand(format, tables, folder)
    elif format in ("labelme", "fiftyone", "mot"):
        source = folder / "labels"
        formats.write(tables, source, format, "copy")
    elif format == "parts":
        source = folder / "found"
        source.mkdir()
        formats.write(tables, source / "part-000000.parquet")
        tables.images.write_parquet(source / "images.parquet")
        (source / "plan.json").write_text(json.dumps({"images": len(tables.images), "part_size": 256}))
    elif format in ("voc", "yolo", "dota", "dota-results"):
        source = folder
        formats.write(tables, source, format)
    elif format == "text":
        source = folder / "labels"
        text.write(tables, source, "xyxy")
    else:
        names = {"parquet": "sample.parquet", "cvat": "sample.xml", "wider": "wider.txt"}
        source = folder / names.get(format, "sample.json")
        formats.write(tables, source, format)
        options = ReadOptions(truth=tables) if format == "coco-results" else options
    suffixes = {".xml", ".txt", ".yaml", ".json", ".jsonl", ".odgt", ".parquet"}
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
