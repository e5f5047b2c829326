"""How often the best detection of an image has the class of the one object in it."""

import numpy as np

from boxwright.data.tables import Tables
from boxwright.errors import DataError
from boxwright.evaluation.reading import Reading

FIVE = 5


def accuracy(truth: Tables, predictions: Tables) -> Reading:
    """Accuracy over images with one object: its class is that of the image's best detection, or among those
    of the best five. Where boxes lie doesn't count.

    Top-1 and top-5 accuracy of ILSVRC (Russakovsky et al., IJCV 2015, section 4.1).

    Args:
        truth, predictions: aligned tables. Ignored truth doesn't count.

    Raises:
        DataError: no image has just one object.
    """
    objects = truth.boxes.filter(~truth.boxes["ignore"] & ~truth.boxes["crowd"])
    image, label = (objects[c].to_numpy() for c in ("image_id", "category_id"))
    objects_of = np.bincount(image, minlength=len(truth.images))
    single = objects_of == 1
    if not single.any():
        raise DataError("no image of the truth has just one object: accuracy is for whole images' classes.")
    wanted = np.full(len(truth.images), -1)
    wanted[image] = label
    found_in = predictions.boxes["image_id"].to_numpy()
    first, five = _hits(predictions, np.where(single, wanted, -1))
    own = wanted[single]
    images, right = (np.bincount(own, weights, len(truth.categories)) for weights in (None, first[single]))
    rows = [
        {"class": name, "images": int(count), "accuracy": float(hits / count)}
        for name, count, hits in zip(truth.categories["name"], images, right)
        if count
    ]
    left_out = int((~single).sum())
    return Reading(
        title="Accuracy over images with one object",
        overall={
            "top-1": float(first[single].mean()),
            "top-5": float(five[single].mean()) if np.bincount(found_in, minlength=1).max() > 1 else None,
            "mean of classes": float(np.mean([row["accuracy"] for row in rows])),
        },
        rows=rows,
        notes=[f"{left_out:,} images with no object or with several are left out."] if left_out else [],
        source="Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 2015",
    )


def _hits(predictions: Tables, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(I,) bool, twice: whether an image's best detection, or one of its best five, is of its class."""
    image, label, score = (predictions.boxes[c].to_numpy() for c in ("image_id", "category_id", "score"))
    order = np.lexsort((-score, image))
    image, right = image[order], label[order] == wanted[image[order]]
    rank = np.arange(len(image)) - np.searchsorted(image, image)
    found = []
    for most in (1, FIVE):
        hit = np.zeros(len(wanted), dtype=bool)
        hit[image[right & (rank < most)]] = True
        found.append(hit)
    return found[0], found[1]
