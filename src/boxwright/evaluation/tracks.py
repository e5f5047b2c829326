"""Tracks through videos: HOTA, MOTA and IDF1."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from boxwright.data.builder import unpack
from boxwright.data.tables import Tables
from boxwright.errors import DataError
from boxwright.evaluation.assignment import best_pairs
from boxwright.evaluation.matching import any_oriented, box_columns
from boxwright.evaluation.reading import Curves, Reading, mean
from boxwright.geometry.iou import pairwise_iou

ALPHAS = np.arange(1, 20) * 0.05  # IoU that HOTA is the mean over
OVERLAP = 0.5  # IoU of a match for MOTA and IDF1
ROUNDING = float(np.finfo(np.float64).eps)
SAME = 1000.0  # what a match is worth that goes on from the frame before, beside its IoU
TRACKED, LOST = 0.8, 0.2  # share of its frames in which a true track is "mostly" found, and not
SUMS = ("ID switches", "fragments", "FP", "FN")
SHOWN = ("class", "tracks", "found", "HOTA", "DetA", "AssA", "MOTA", "IDF1", "ID switches")  # of a class
SOURCE = (
    "Luiten et al., HOTA, IJCV 2021; Bernardin and Stiefelhagen, CLEAR MOT, 2008; Ristani et al., Performance"
    " Measures for Multi-Target Tracking, ECCVW 2016"
)


def tracks(truth: Tables, predictions: Tables) -> Reading:
    """HOTA (mean over IoU 0.05 to 0.95), MOTA and IDF1 (at IoU 0.5), by class; the numbers of TrackEval.

    A track is the boxes of one class with one "track_id" (an attribute of the box) in one video: the
    attribute "video" of the image, else the folder of its file name. Sequences are put together by their
    counts. A prediction that is matched to ignored or crowd truth, or that finds no truth and lies in such a
    region by more than half, doesn't count, nor do these regions.

    Args:
        truth, predictions: aligned tables.

    Raises:
        DataError: a box without "track_id", or two of one track in one image.

    Source: see `SOURCE`.
    """
    rows, by_alpha = [], []
    classes = list(truth.categories["name"])
    videos = [list(_sequences(truth, predictions, k)) for k in range(len(classes))]
    for name, sequences in zip(classes, videos):
        if not any(len(s.frames) for s in sequences):
            continue
        hota = _add([_hota(s) for s in sequences])
        numbers, curves = _read_hota(hota)
        numbers |= _read_clear(_add([_clear(s) for s in sequences]))
        numbers |= _read_identity(_add([_identity(s) for s in sequences]))
        true = sum(s.truths for s in sequences)
        rows.append({"class": name, "tracks": true, "found": sum(s.found for s in sequences)} | numbers)
        by_alpha += [curves] if true else []
    judged = [row for row in rows if row["tracks"]]
    overall = {n: mean(row[n] for row in judged) for n in (rows[0] if rows else {}) if n != "class"}
    for name in ("tracks", "found", *SUMS):
        if name in overall:
            overall[name] = float(sum(row[name] for row in rows))
    shown = [{name: row[name] for name in SHOWN} for row in rows]
    curves = {}
    if by_alpha:
        alphas = ALPHAS.tolist()
        series = {n: (alphas, np.mean([c[n] for c in by_alpha], axis=0).tolist()) for n in by_alpha[0]}
        curves["HOTA by IoU"] = Curves("IoU", "score", series)
    return Reading("Tracks through video", overall, shown, curves, source=SOURCE, beside="HOTA")


@dataclass(frozen=True)
class _Sequence:
    """One class of one video: of each frame the tracks (G,) and (P,) that are in it, and their IoU (G, P)."""

    truths: int
    found: int
    frames: list[tuple[np.ndarray, np.ndarray, np.ndarray]]

    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Frames that each true track, and each found one, is in."""
        totals = []
        for side, tracks in enumerate((self.truths, self.found)):
            ids = [frame[side] for frame in self.frames] or [np.zeros(0, dtype=np.int64)]
            totals.append(np.bincount(np.concatenate(ids), minlength=tracks).astype(np.float64))
        return totals[0], totals[1]


def _sequences(truth: Tables, predictions: Tables, category: int) -> Iterator[_Sequence]:
    """The videos of one class."""
    oriented = any_oriented(truth, predictions)
    videos = np.array(truth.videos(), dtype=object)
    frame_of = truth.frames()
    own = pl.col("category_id") == category
    sides = [_Side(t.with_boxes(t.boxes.filter(own)), oriented) for t in (truth, predictions)]
    for video in dict.fromkeys(videos.tolist()):
        images = np.flatnonzero(videos == video)
        images = images[np.argsort(frame_of[images], kind="stable")]
        ids: list[dict[str, int]] = [{}, {}]
        frames = []
        for image in images.tolist():
            frame = _frame(sides[0].at(image), sides[1].at(image))
            if len(frame[0]) or len(frame[1]):
                numbers = [[own.setdefault(t, len(own)) for t in names] for own, names in zip(ids, frame)]
                frames.append((*(np.array(n, dtype=np.int64) for n in numbers), frame[2]))
        yield _Sequence(len(ids[0]), len(ids[1]), frames)


class _Side:
    """The boxes of a table by image."""

    def __init__(self, tables: Tables, oriented: bool):
        boxes = tables.boxes
        self.rows = tables.rows_by_image()
        self.boxes = np.column_stack(box_columns(tables, oriented))
        self.ignored = (boxes["crowd"] | boxes["ignore"]).to_numpy()
        self.tracks = [unpack(text).get("track_id") for text in boxes["attributes"]]
        for row, (track, ignored) in enumerate(zip(self.tracks, self.ignored)):
            if track is None and not ignored:
                where = tables.images["file_name"][boxes["image_id"][row]]
                raise DataError(f"{where}, a box of {boxes['source'][row]}: no attribute 'track_id'.")
        self.names = tables.images["file_name"]

    def at(self, image: int) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Tracks, boxes, and which are ignored, of an image.

        Raises:
            DataError: two boxes of one track.
        """
        rows = self.rows[image]
        ids = [str(self.tracks[row]) for row in rows]
        counted = [t for t, row in zip(ids, rows) if not self.ignored[row]]
        if len(set(counted)) < len(counted):
            twice = next(t for t in counted if counted.count(t) > 1)
            raise DataError(f"{self.names[image]}: two boxes of track {twice}, expected one.")
        return ids, self.boxes[rows], self.ignored[rows]


def _frame(
    true: tuple[list[str], np.ndarray, np.ndarray], found: tuple[list[str], np.ndarray, np.ndarray]
) -> tuple[list[str], list[str], np.ndarray]:
    """Tracks of a frame and their IoU, without what is ignored."""
    ious = pairwise_iou(true[1], found[1])
    ignored = true[2]
    if not ignored.any():
        return true[0], found[0], ious
    kept = np.ones(len(found[0]), dtype=bool)
    pairs = best_pairs(np.where(ious >= OVERLAP - ROUNDING, ious, 0.0))
    kept[[p for g, p in pairs if ignored[g]]] = False
    inside = pairwise_iou(found[1], true[1][ignored], "coverage").max(axis=1, initial=0.0) > OVERLAP
    matched = np.isin(np.arange(len(kept)), [p for _, p in pairs])
    kept &= matched | ~inside
    names = [t for t, i in zip(true[0], ignored) if not i]
    return names, [t for t, k in zip(found[0], kept) if k], ious[~ignored][:, kept]


def _hota(sequence: _Sequence) -> dict[str, np.ndarray]:
    """Sums by alpha (A,): true positives, their IoU, their association; and the boxes of both sides."""
    true, found = sequence.counts()
    together = np.zeros((sequence.truths, sequence.found))
    for gt, det, ious in sequence.frames:
        union = ious.sum(axis=0) + ious.sum(axis=1)[:, None] - ious
        together[np.ix_(gt, det)] += np.divide(ious, union, out=np.zeros_like(ious), where=union > ROUNDING)
    alignment = together / np.maximum(true[:, None] + found - together, ROUNDING)
    overlap = np.zeros(len(ALPHAS))
    keys, hits = [np.zeros(0, dtype=np.int64)], [np.zeros((len(ALPHAS), 0), dtype=bool)]
    for gt, det, ious in sequence.frames:
        pairs = best_pairs(alignment[np.ix_(gt, det)] * ious)
        iou = ious[pairs[:, 0], pairs[:, 1]]
        hits.append(iou >= ALPHAS[:, None] - ROUNDING)
        keys.append(gt[pairs[:, 0]] * sequence.found + det[pairs[:, 1]])
        overlap += (hits[-1] * iou).sum(axis=1)
    # Of every two tracks that were ever matched: in how many frames.
    both, of_match = np.unique(np.concatenate(keys), return_inverse=True)
    matches = np.array([np.bincount(of_match[hit], minlength=len(both)) for hit in np.hstack(hits)])
    own, by = true[both // max(1, sequence.found)], found[both % max(1, sequence.found)]
    return {
        "TP": matches.sum(axis=1),
        "IoU": overlap,
        "AssA": (matches**2 / (own + by - matches)).sum(axis=1),
        "AssRe": (matches**2 / own).sum(axis=1),
        "AssPr": (matches**2 / by).sum(axis=1),
        "truth": true.sum(),
        "found": found.sum(),
    }


def _read_hota(sums: dict[str, np.ndarray]) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    tp, least = sums["TP"], np.maximum(1, sums["TP"])
    detection = tp / np.maximum(1, sums["truth"] + sums["found"] - tp)
    association = sums["AssA"] / least
    curves = {"HOTA": np.sqrt(detection * association), "DetA": detection, "AssA": association}
    others = {
        "DetRe": tp / np.maximum(1, sums["truth"]),
        "DetPr": tp / np.maximum(1, sums["found"]),
        "AssRe": sums["AssRe"] / least,
        "AssPr": sums["AssPr"] / least,
        "LocA": np.where(tp > 0, sums["IoU"] / least, 1.0),
    }
    return {name: float(values.mean()) for name, values in (curves | others).items()}, curves


def _clear(sequence: _Sequence) -> dict[str, float]:
    true, _ = sequence.counts()
    last = np.full(sequence.truths, -1)  # track that each true one was found by last
    before = np.full(sequence.truths, -1)  # the same, in the frame before alone
    matched, begun = np.zeros(sequence.truths), np.zeros(sequence.truths)
    sums = dict.fromkeys(("TP", "FP", "FN", "IoU", "switches"), 0.0)
    for gt, det, ious in sequence.frames:
        if not len(gt) or not len(det):
            sums["FP"], sums["FN"] = sums["FP"] + len(det), sums["FN"] + len(gt)
            continue
        worth = SAME * (det == before[gt][:, None]) + ious
        pairs = best_pairs(np.where(ious >= OVERLAP - ROUNDING, worth, 0.0))
        own, by = gt[pairs[:, 0]], det[pairs[:, 1]]
        sums["switches"] += float(((last[own] >= 0) & (last[own] != by)).sum())
        matched[own] += 1
        new = before < 0
        last[own] = by
        before[:] = -1
        before[own] = by
        begun += new & (before >= 0)
        sums["TP"] += len(pairs)
        sums["FN"] += len(gt) - len(pairs)
        sums["FP"] += len(det) - len(pairs)
        sums["IoU"] += float(ious[pairs[:, 0], pairs[:, 1]].sum())
    share = matched[true > 0] / true[true > 0]
    return sums | {
        "fragments": float((begun[begun > 0] - 1).sum()),
        "tracked": float((share > TRACKED).sum()),
        "lost": float((share < LOST).sum()),
        "truths": float(len(share)),
    }


def _read_clear(sums: dict[str, float]) -> dict[str, float]:
    total = max(1.0, sums["TP"] + sums["FN"])
    return {
        "MOTA": (sums["TP"] - sums["FP"] - sums["switches"]) / total,
        "MOTP": sums["IoU"] / max(1.0, sums["TP"]),
        "ID switches": sums["switches"],
        "fragments": sums["fragments"],
        "FP": sums["FP"],
        "FN": sums["FN"],
        "mostly tracked": sums["tracked"] / max(1.0, sums["truths"]),
        "mostly lost": sums["lost"] / max(1.0, sums["truths"]),
    }


def _identity(sequence: _Sequence) -> dict[str, float]:
    true, found = sequence.counts()
    shared = np.zeros((sequence.truths, sequence.found))
    for gt, det, ious in sequence.frames:
        shared[np.ix_(gt, det)] += ious >= OVERLAP - ROUNDING
    pairs = best_pairs(shared)
    return {"IDTP": float(shared[pairs[:, 0], pairs[:, 1]].sum()), "truth": true.sum(), "found": found.sum()}


def _read_identity(sums: dict[str, float]) -> dict[str, float]:
    return {
        "IDF1": 2 * sums["IDTP"] / max(1.0, sums["truth"] + sums["found"]),
        "IDP": sums["IDTP"] / max(1.0, sums["found"]),
        "IDR": sums["IDTP"] / max(1.0, sums["truth"]),
    }


def _add(parts: list[dict]) -> dict:
    return {name: sum(part[name] for part in parts) for name in parts[0]}
