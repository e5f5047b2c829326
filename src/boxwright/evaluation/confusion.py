"""Which class is taken for which, at the scores that are used: a matrix with background."""

from dataclasses import dataclass

import numpy as np

from boxwright.data.confident import confident
from boxwright.data.tables import Tables
from boxwright.evaluation.comparison import ALONE, compare
from boxwright.evaluation.operating import IOU

BACKGROUND = "background"


@dataclass(frozen=True)
class Confusion:
    """Counts of truth (rows) by what was found there (columns); the last of both is background.

    Attributes:
        names: classes, and "background".
        counts: (K + 1, K + 1) int64: of truth k found as j; the last column missed, the last row found where
            there is nothing.
        truth, predictions: the tables; of predictions those above their thresholds.
        examples: by row and column of the matrix, rows of the predictions, or (last column) of the truth.
    """

    names: list[str]
    counts: np.ndarray
    truth: Tables
    predictions: Tables
    examples: dict[tuple[int, int], np.ndarray]


def confusion(truth: Tables, predictions: Tables, iou: float = IOU) -> Confusion:
    """Compare confident predictions with truth whatever their class.

    Within an image boxes of one class are paired first, by descending IoU; what is left is paired across
    classes. Ignored truth, and what lies on it, doesn't count.

    Args:
        truth, predictions: aligned tables; a score counts from its class's operating threshold.
        iou: from which two boxes are one.
    """
    found = predictions.with_boxes(predictions.boxes.filter(confident(predictions)))
    compared = compare(truth, found, iou)
    gt_class, det_class = (t.boxes["category_id"].to_numpy() for t in (truth, compared.b))
    last = len(truth.categories)
    a, b = (compared.pairs[name].to_numpy() for name in ("a_row", "b_row"))
    missed, false = (np.flatnonzero(o == ALONE) for o in (compared.outcome_a, compared.outcome_b))
    row = np.concatenate([gt_class[a], gt_class[missed], np.full(len(false), last)]).astype(np.int64)
    column = np.concatenate([det_class[b], np.full(len(missed), last), det_class[false]]).astype(np.int64)
    box = np.concatenate([b, missed, false])
    counts = np.zeros((last + 1, last + 1), dtype=np.int64)
    np.add.at(counts, (row, column), 1)
    examples = {(int(r), int(c)): box[(row == r) & (column == c)] for r, c in np.argwhere(counts).tolist()}
    return Confusion([*truth.categories["name"], BACKGROUND], counts, truth, compared.b, examples)
