"""Whether scores mean what they say: the share of true detections among those of one score."""

from collections.abc import Sequence

import numpy as np

from boxwright.data.tables import Tables
from boxwright.errors import ConfigError
from boxwright.evaluation.matching import Matching, match
from boxwright.evaluation.reading import Curves, Reading, by_category, mean

DIMENSIONS = ("score", "cx", "cy", "w", "h")


def confidence(
    truth: Tables,
    predictions: Tables,
    iou: float = 0.5,
    bins: int = 20,
    dimensions: Sequence[str] = ("score",),
) -> Reading:
    """Detection expected calibration error: the mean gap between score and precision over bins.

    Args:
        truth, predictions: aligned tables.
        iou: from which a detection is true.
        bins: of each dimension.
        dimensions: what the bins divide: "score", and "cx", "cy", "w", "h" as shares of the image, since a
            detector may be sure of itself in one corner without reason.

    Raises:
        ConfigError: an unknown dimension.
        DataError: dimensions of the box where an image has no size.

    Source: Kueppers et al., Multivariate Confidence Calibration for Object Detection, CVPR-W 2020, eq. 4.
    """
    unknown = [d for d in dimensions if d not in DIMENSIONS]
    if unknown or "score" not in dimensions:
        raise ConfigError(f"dimensions {list(dimensions)}, expected 'score' and any of {DIMENSIONS[1:]}.")
    matching = match(truth, predictions, np.array([iou]))
    places = _places(truth, predictions, matching, dimensions)
    hit, _ = matching.outcomes()
    rows, everything = [], []
    for k, dets in by_category(matching):
        everything.append(dets)
        error = calibration_error(places[dets], hit[dets], matching.det_score[dets], bins)
        rows.append({"class": truth.categories["name"][k], "detections": len(dets), "D-ECE": error})
    dets = np.concatenate(everything) if everything else np.zeros(0, int)
    score, true = matching.det_score[dets], hit[dets]
    return Reading(
        title=f"Confidence, IoU {iou:g}, {bins} bins of {', '.join(dimensions)}",
        overall={
            "D-ECE": calibration_error(places[dets], true, score, bins),
            "D-ECE by class": mean(row["D-ECE"] for row in rows),
        },
        rows=rows,
        curves=_curves(score, true, bins),
        source="Kueppers et al., Multivariate Confidence Calibration, CVPR-W 2020",
    )


def calibration_error(places: np.ndarray, true: np.ndarray, score: np.ndarray, bins: int) -> float | None:
    """Sum over bins of their share of detections times |precision - mean score|.

    Args:
        places: (N, K) in [0, 1], what the bins divide.
        true: (N,) bool.
        score: (N,).
        bins: of each of the K dimensions.
    """
    if len(score) == 0:
        return None
    index = np.minimum((np.clip(places, 0, 1) * bins).astype(np.int64), bins - 1)
    _, member = np.unique(index @ bins ** np.arange(index.shape[1]), return_inverse=True)
    gap = np.bincount(member, true) - np.bincount(member, score)
    return float(np.abs(gap).sum() / len(score))


def _places(truth: Tables, predictions: Tables, matching: Matching, dimensions: Sequence[str]) -> np.ndarray:
    columns = {"score": matching.det_score}
    if len(dimensions) > 1:
        boxes = predictions.boxes[matching.det_row]
        sizes = truth.images.select("width", "height")[boxes["image_id"]].to_numpy().astype(np.float64)
        x, y, w, h = (boxes[c].to_numpy() for c in "xywh")
        columns |= {"cx": (x + w / 2) / sizes[:, 0], "cy": (y + h / 2) / sizes[:, 1]}
        columns |= {"w": w / sizes[:, 0], "h": h / sizes[:, 1]}
    return np.column_stack([columns[d] for d in dimensions])


def _curves(score: np.ndarray, true: np.ndarray, bins: int) -> dict[str, Curves]:
    if len(score) == 0:
        return {}
    member = np.minimum((np.clip(score, 0, 1) * bins).astype(int), bins - 1)
    count = np.bincount(member, minlength=bins)
    filled = count > 0
    mean_score = (np.bincount(member, score, bins)[filled] / count[filled]).tolist()
    precision = (np.bincount(member, true, bins)[filled] / count[filled]).tolist()
    middle = ((np.arange(bins) + 0.5) / bins).tolist()
    share = {
        name: (middle, (np.bincount(member, flags, bins) * bins / len(score)).tolist())
        for name, flags in (("true", true), ("false", ~true))
    }
    return {
        "Reliability": Curves(
            "score", "precision", {"detections": (mean_score, precision), "perfect": ([0.0, 1.0], [0.0, 1.0])}
        ),
        "Score density": Curves("score", "density", share),
    }
