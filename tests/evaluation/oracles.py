"""Cases that several tests of metrics share."""

import gzip
import json
from pathlib import Path

import numpy as np

from boxwright.data import formats
from boxwright.data.builder import TableBuilder
from boxwright.data.formats.options import ReadOptions
from boxwright.data.tables import Tables
from boxwright.evaluation.pairing import align


def eval_case(expected: Path) -> tuple[Tables, Tables, dict]:
    """Truth, aligned predictions and expected numbers beside a shared case's `expected.json`."""
    truth = formats.read(expected.parent / "truth.json.gz")
    found = formats.read(expected.parent / "results.json.gz", options=ReadOptions(truth=truth))
    return truth, align(truth, found), json.loads(expected.read_text())


def obb_case(path: Path) -> tuple[Tables, Tables, dict]:
    """Truth, predictions and expected numbers of `obb_map.json.gz`."""
    case = json.loads(gzip.decompress(path.read_bytes()))
    tables = []
    for rows in (case["gt"], case["det"]):
        builder = TableBuilder("case", "radians", headings=True)
        image_of = {name: builder.image(name) for name in case["images"]}
        category_of = {name: builder.category(name) for name in case["classes"]}
        for n, row in enumerate(rows):
            builder.box(
                ("row", n),
                image_of[row["image"]],
                category_of[row["class"]],
                tuple(row["box"]),
                score=row.get("score"),
                difficult=bool(row.get("difficult")),
            )
        tables.append(builder.build())
    return tables[0], tables[1], case["expected"]


def random_case(seed: int, images: int = 12, classes: int = 3, crowd: bool = True) -> tuple[Tables, Tables]:
    """Truth and jittered, duplicated, mislabelled and invented detections of it; scores all different."""
    rng = np.random.default_rng(seed)
    truth, found = TableBuilder("truth"), TableBuilder("found")
    for builder in (truth, found):
        for n in range(images):
            builder.image(f"{n:03d}.jpg", width=200, height=200, source_id=n + 1)
        for k in range(classes):
            builder.category(f"class {k}", k + 1)
    detections = []
    for image in range(images):
        for _ in range(rng.integers(0, 7)):
            xywh = np.concatenate([rng.uniform(0, 150, 2), rng.uniform(8, 50, 2)])
            k = int(rng.integers(classes))
            flags = {"crowd": bool(crowd and rng.random() < 0.1)}
            truth.box(("t", len(detections)), image, k, tuple(xywh), **flags)
            for _ in range(rng.integers(0, 3)):
                noisy = xywh + rng.normal(0, 0.08, 4) * xywh[[2, 3, 2, 3]]
                label = k if rng.random() < 0.8 else int(rng.integers(classes))
                detections.append((image, label, tuple(np.maximum(noisy, [0, 0, 1, 1]))))
        for _ in range(rng.integers(0, 3)):
            xywh = np.concatenate([rng.uniform(0, 150, 2), rng.uniform(8, 50, 2)])
            detections.append((image, int(rng.integers(classes)), tuple(xywh)))
    scores = rng.permutation(len(detections)) / max(len(detections), 1)
    for n, (image, label, xywh) in enumerate(detections):
        found.box(("d", n), image, label, xywh, score=float(scores[n]))
    return truth.build(), found.build()
