"""What an audit finds of planted faults, beside cleanlab's scores on the same predictions.

python -m benchmarks.audit bccd     # blood cells: 292 images
python -m benchmarks.audit hituav   # oriented boxes from a drone: 480 images
python -m benchmarks.audit scenes   # 280 synthetic scenes: labels without other faults
python -m benchmarks.audit bccd --checked --epochs 32

Faults of every kind are planted (`boxwright data corrupt`), five folds are trained on the faulty labels, and
each image is judged by the fold that hasn't seen it. The folds are trained on the first of several plantings,
and judge all of them; cleanlab's scores are of the first. With `--checked` the folds are trained on the
validation images too, with the labels that came, and all are audited; judged are the validation images
alone, whose labels were checked by eye (`checked/`). Changing such a list needs no new folds.

Both rank the same boxes by the same predictions: cleanlab (Tkachenko et al., ObjectLab, 2023) has scores of
overlooked, badly located and swapped boxes, with upright hulls, and is given the better of its own thresholds
and 0.3, as scores of detectors are low. Real data has faults of its own, which count as mistakes here. Of
locations it is told, too, how many are found at a precision of 0.9 by how far they are off. Folds that are
there already are not trained again.
"""

import argparse
from pathlib import Path

import numpy as np
import polars as pl
from cleanlab.object_detection.rank import (
    compute_badloc_box_scores,
    compute_overlooked_box_scores,
    compute_swap_box_scores,
)
from rich.console import Console
from rich.table import Table

from benchmarks.checked import checked
from boxwright.auditing.evidence import SAME
from boxwright.auditing.pairs import overlapping
from boxwright.auditing.planting import corrupt
from boxwright.auditing.scoring import WANTED, are_planted, ranked, score_audit
from boxwright.auditing.suspicions import suspect
from boxwright.config import load_config
from boxwright.data import formats
from boxwright.data.sources import load_parts, mark_ignored
from boxwright.data.synthetic import make_scenes
from boxwright.data.tables import Tables, concat
from boxwright.geometry.iou import aligned_iou
from boxwright.training.folds import out_of_fold

SETS = {  # file, epochs of a fold, and images in a batch: of few epochs steps count
    "bccd": ("bccd.yaml", 16, 8),
    "hituav": ("hituav_obb.yaml", 120, 16),
    "scenes": ("hituav_obb.yaml", 96, 8),
}
SCENES, SIZE = 280, (320, 256)
THRESHOLDS = ({}, {"high_probability_threshold": 0.3}, {"low_probability_threshold": 0.3})
STRENGTHS = (0.5, 0.6, 0.7, 1.0)  # of a location, IoU with the right box
NUMBERS = ("planted", "precision", "recall", "recall at 0.9", "AP", "ECE")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", choices=SETS)
    parser.add_argument(
        "--checked", action="store_true", help="judge the images that were checked by eye alone"
    )
    parser.add_argument("--epochs", type=int, help="of each fold")
    parser.add_argument("--seed", type=int, default=0, help="of the planted faults")
    parser.add_argument("--plantings", type=int, default=3, help="to take the mean of, by the same folds")
    parser.add_argument("--out", type=Path, default=Path("runs/audit"))
    options = parser.parse_args()
    if options.checked and options.set == "scenes":
        parser.error("scenes have no faults but the planted ones: there is nothing to check.")
    folder = options.out / f"{options.set}{'-checked' * options.checked}-{options.seed}"
    learnt, labels, judged, config = load(options)
    found = out_of_fold(corrupt(learnt, seed=options.seed).tables, config, folder, seed=options.seed)
    planted = [corrupt(labels, seed=options.seed + n) for n in range(options.plantings)]
    own = pl.col("image_id").is_in(np.flatnonzero(judged))
    scores, located = [], []
    for each in planted:
        suspicions, answers = suspect(each.tables, found).filter(own), each.answers.filter(own)
        scores.append(score_audit(suspicions, answers))
        located.append(by_strength(each.tables, suspicions, answers))
    rows = means(scores)
    theirs = beside(planted[0].tables, found, planted[0].answers.filter(own), judged)
    table = Table("kind", *NUMBERS, "AP of cleanlab's", box=None)
    for row in rows:
        numbers = [row[n] for n in NUMBERS[1:]] + [theirs.get(row["kind"])]
        shown = ["–" if value is None else f"{value:.3f}" for value in numbers]
        table.add_row(row["kind"], str(row["planted"]), *shown)
    Console(width=100).print(table)
    counts = [f"IoU below {most}: {hit} of {there}" for most, (hit, there) in zip(STRENGTHS, sum(located))]
    Console(width=100).print(f"locations found at a precision of {WANTED}: {', '.join(counts)}")


def by_strength(tables: Tables, suspicions: pl.DataFrame, answers: pl.DataFrame) -> np.ndarray:
    """(K, 2) planted locations that are found at a precision of `WANTED` and all of them, by their IoU with
    the right box: below the first of `STRENGTHS`, from there on below the second, and so on.
    """
    suspicions, answers = (t.filter(pl.col("kind") == "location") for t in (suspicions, answers))
    hits = are_planted(suspicions, answers)
    good = np.flatnonzero(np.cumsum(hits) >= WANTED * np.arange(1, len(hits) + 1))
    hits[good[-1] + 1 if len(good) else 0 :] = False
    row = answers["row"].to_numpy()
    found = np.isin(row, suspicions["row"].to_numpy()[hits])
    place = np.digitize(aligned_iou(tables.rotated()[row], shapes(answers)), STRENGTHS[:-1])
    return np.column_stack([np.bincount(p, minlength=len(STRENGTHS)) for p in (place[found], place)])


def means(scores: list[list[dict]]) -> list[dict]:
    """A row a kind, of the rows of several plantings."""
    rows = pl.concat(
        [pl.DataFrame(rows, infer_schema_length=None) for rows in scores], how="vertical_relaxed"
    )
    order = rows.group_by("kind", maintain_order=True)
    return order.agg(pl.col("planted").first(), pl.col(NUMBERS[1:]).mean()).to_dicts()


def load(options: argparse.Namespace) -> tuple[Tables, Tables, np.ndarray, dict]:
    """Labels that folds learn, those of the same images that are audited, the images (N,) bool whose faults
    are judged, and the experiment of a fold.
    """
    file, epochs, batch = SETS[options.set]
    config = load_config(Path("configs") / file)
    content = config.model_dump(mode="json")
    content["train"] |= {"minutes": None, "epochs": options.epochs or epochs, "evaluate_every": 1_000_000}
    content["train"]["batch_size"] = batch
    if options.set != "scenes":
        (labels,), val = load_parts(config.data)
        labels, val = (mark_ignored(own, config.data.ignore) for own in (labels, val))
        if options.checked:
            own = np.arange(len(labels.images) + len(val.images)) >= len(labels.images)
            return concat([labels, val]), concat([labels, checked(val, options.set)]), own, content
        return labels, labels, np.ones(len(labels.images), dtype=bool), content
    scenes = options.out / "scenes"
    if not (scenes / "truth.parquet").is_file():
        formats.write(make_scenes(scenes, SCENES, size=SIZE), scenes / "truth.parquet")
    content |= {"image_size": list(SIZE)}
    content["model"]["heading"] = True
    content["augment"] |= {"crop": None, "focus": 0.0}
    content["data"]["ignore"] = []
    labels = formats.read(scenes / "truth.parquet")
    return labels, labels, np.ones(SCENES, dtype=bool), content


def beside(labels: Tables, found: Tables, answers: pl.DataFrame, judged: np.ndarray) -> dict[str, float]:
    """AP of cleanlab's rankings by kind, in the images that are judged."""
    hulls, boxes = labels.upright(), labels.boxes["category_id"].to_numpy()
    rows = labels.rows_by_image()
    corners = np.column_stack([hulls[:, :2], hulls[:, :2] + hulls[:, 2:]])
    given = [{"bboxes": corners[own], "labels": boxes[own]} for own in rows]
    predicted, order = _by_class(found)
    kept = [n for n in np.flatnonzero(judged) if len(rows[n]) and sum(map(len, predicted[n]))]
    own = {"labels": [given[n] for n in kept], "predictions": [predicted[n] for n in kept]}
    label_rows, prediction_rows = (np.concatenate([part[n] for n in kept]) for part in (rows, order))
    best: dict[str, float] = {}
    for kind, score in (
        ("missing", compute_overlooked_box_scores),
        ("location", compute_badloc_box_scores),
        ("class", compute_swap_box_scores),
    ):
        names = score.__kwdefaults__
        for thresholds in THRESHOLDS:
            if not set(thresholds) <= set(names):
                continue
            scores = np.concatenate(score(**own, **thresholds))
            likely = -np.nan_to_num(scores, nan=1.0)
            if kind == "missing":
                hit, total = _missing(found, prediction_rows, likely, answers)
            else:
                wrong = answers.filter(pl.col("kind") == kind)["row"].to_numpy()
                hit, total = np.isin(label_rows, wrong), len(wrong)
            best[kind] = max(best.get(kind, 0.0), float(ranked(likely + 1, hit, total)["AP"] or 0))
    return best


def _by_class(found: Tables) -> tuple[list[list[np.ndarray]], list[np.ndarray]]:
    """Predictions of each image, class by class: x1, y1, x2, y2, score; and their rows in this order."""
    hulls, score = found.upright(), found.boxes["score"].to_numpy()
    category = found.boxes["category_id"].to_numpy()
    numbers = np.column_stack([hulls[:, :2], hulls[:, :2] + hulls[:, 2:], score])
    predicted, order = [], []
    for own in found.rows_by_image():
        parts = [own[category[own] == k] for k in range(len(found.categories))]
        predicted.append([numbers[part] for part in parts])
        order.append(np.concatenate(parts))
    return predicted, order


def _missing(
    found: Tables, rows: np.ndarray, likely: np.ndarray, answers: pl.DataFrame
) -> tuple[np.ndarray, int]:
    """(N,) bool, predictions that are the likeliest of a box that was taken out; and how many were."""
    gone = answers.filter(pl.col("kind") == "missing")
    image = found.boxes["image_id"].to_numpy()[rows]
    pairs = overlapping(found.rotated()[rows], image, shapes(gone), gone["image_id"].to_numpy(), SAME)
    hit, taken = np.zeros(len(rows), dtype=bool), set()
    for place in np.argsort(-likely[pairs.first], kind="stable").tolist():
        if pairs.second[place] not in taken and not hit[pairs.first[place]]:
            taken.add(pairs.second[place])
            hit[pairs.first[place]] = True
    return hit, len(gone)


def shapes(answers: pl.DataFrame) -> np.ndarray:
    """(N, 5) boxes as they were: cx, cy, w, h, angle."""
    x, y, w, h, angle = (answers[n].fill_null(0.0).to_numpy() for n in ("x", "y", "w", "h", "angle"))
    return np.column_stack([x + w / 2, y + h / 2, w, h, angle])


if __name__ == "__main__":
    main()
