"""How far found landmarks lie from where they should, in sizes of the face."""

import numpy as np

from boxwright.data.tables import Tables
from boxwright.errors import DataError
from boxwright.evaluation.matching import match
from boxwright.evaluation.reading import Curves, Reading

NAMES = ("left eye", "right eye", "nose", "left corner of the mouth", "right corner of the mouth")
FAILED = 0.1  # NME from which a face counts as failed
POINTS = 100  # of the curve


def landmarks(truth: Tables, predictions: Tables, iou: float = 0.5) -> Reading:
    """Normalised mean error (NME) over true positives whose truth has landmarks: the mean distance of a
    face's landmarks from the truth's, divided by the square root of the truth's width times height.

    The normalisation of RetinaFace (Deng et al., CVPR 2020), section 4.4; left is the image's left.

    Args:
        truth, predictions: aligned tables.
        iou: from which a detection is true.

    Raises:
        DataError: the truth or the predictions have no landmarks.
    """
    for name, tables in (("truth has", truth), ("predictions have", predictions)):
        if not tables.boxes["landmarks"].is_not_null().any():
            raise DataError(f"the {name} no landmarks to judge.")
    matching = match(truth, predictions, np.array([iou]))
    hit = np.flatnonzero(matching.outcomes()[0])
    there = matching.gt_row[matching.found()[hit]]
    wanted, found = truth.landmarks()[there], predictions.landmarks()[matching.det_row[hit]]
    size = np.sqrt(truth.boxes["w"].to_numpy() * truth.boxes["h"].to_numpy())[there]
    judged = np.isfinite(wanted + found).all(axis=(1, 2)) & (size > 0)
    errors = np.linalg.norm(found - wanted, axis=2)[judged] / size[judged, None]  # (N, LANDMARKS)
    of_face = errors.mean(axis=1)
    rows = [
        {"landmark": name, "mean": _mean(errors[:, n]), "median": _middle(errors[:, n])}
        for n, name in enumerate(NAMES)
    ]
    counted = int((truth.boxes["landmarks"].is_not_null() & ~truth.boxes["ignore"]).sum())
    notes = [f"{len(errors):,} of the {counted:,} faces with landmarks were found and judged."]
    series = {}
    if len(errors):
        limits = np.linspace(0, max(2 * FAILED, float(np.percentile(of_face, 95))), POINTS)
        shares = (of_face[:, None] <= limits).mean(axis=0)
        series = {"faces": (limits.tolist(), shares.tolist())}
    return Reading(
        title=f"Landmarks of true positives, IoU {iou:g}",
        overall={
            "NME": _mean(of_face),
            "median": _middle(of_face),
            f"share above {FAILED:g}": _mean(of_face > FAILED),
        },
        rows=rows,
        curves={"Faces up to an error": Curves("NME", "share of faces", series)} if series else {},
        notes=notes,
        source="Deng et al., RetinaFace, CVPR 2020",
    )


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _middle(values: np.ndarray) -> float | None:
    return float(np.median(values)) if len(values) else None
