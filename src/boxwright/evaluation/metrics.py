"""Every metric beside COCO's, by the name a user gives it."""

import os
from collections.abc import Callable
from functools import partial

from boxwright.data.tables import Tables
from boxwright.errors import ConfigError, nearest
from boxwright.evaluation.accuracy import accuracy
from boxwright.evaluation.average_precision import oriented, voc
from boxwright.evaluation.bounds import sensitivity, upper_bound
from boxwright.evaluation.confidence import confidence
from boxwright.evaluation.correction import correction_cost
from boxwright.evaluation.crowd import crowd
from boxwright.evaluation.landmarks import landmarks
from boxwright.evaluation.lrp import lrp
from boxwright.evaluation.pairing import read_pair
from boxwright.evaluation.pdq import pdq
from boxwright.evaluation.reading import Reading
from boxwright.evaluation.slices import slices
from boxwright.evaluation.tide import tide
from boxwright.evaluation.tracks import tracks
from boxwright.evaluation.tubes import tubes
from boxwright.evaluation.vehicle import vehicle

Metric = Callable[..., Reading]  # of truth and predictions, aligned

METRICS: dict[str, Metric] = {
    "voc": voc,
    "voc-plus-one": partial(voc, plus_one=True),
    "oriented": oriented,
    "oriented-coco": partial(oriented, rule="coco"),
    "crowd": crowd,
    "lrp": lrp,
    "tide": lambda truth, found, max_dets=100: tide(truth, found, max_dets=max_dets).reading,
    "tidecv": lambda truth, found: tide(truth, found, compatible=True).reading,
    "correction": correction_cost,
    "bound": upper_bound,
    "sensitivity": sensitivity,
    "confidence": confidence,
    "pdq": pdq,
    "tubes": tubes,
    "tracks": tracks,
    "vehicle": vehicle,
    "landmarks": landmarks,
    "accuracy": accuracy,
}
LIMITED = ("tide", "bound", "sensitivity")  # those that have COCO's limit of detections an image and class
SLICED = "by-"  # and a property: by-size, by-image:weather
# What a page shows unless told otherwise: whatever any table can be asked.
USUAL = ("lrp", "tide", "confidence", "by-size", "by-density", "bound", "sensitivity")


def find_metric(name: str, max_dets: int = 100) -> Metric:
    """The metric of a name; those that limit the detections an image and class keep `max_dets` of them.

    Raises:
        ConfigError: there is none.
    """
    if name.startswith(SLICED):
        return lambda truth, found: slices(truth, found, name.removeprefix(SLICED)).reading
    if name not in METRICS:
        raise ConfigError(f"metric '{name}' is unknown. {nearest(name, [*METRICS, 'by-size'])}")
    return partial(METRICS[name], max_dets=max_dets) if name in LIMITED else METRICS[name]


def measure(
    truth: Tables | str | os.PathLike,
    predictions: Tables | str | os.PathLike,
    metric: str,
    max_dets: int = 100,
) -> Reading:
    """One metric of two tables.

    Args:
        truth, predictions: tables or paths.
        metric: a key of `METRICS`, or "by-" and a property of `slices`.
        max_dets: detections an image and class, for the metrics that limit them (`LIMITED`).

    Raises:
        DataError: a file can't be read, or the tables lack what the metric needs.
        ConfigError: an unknown metric.

    Example:
        >>> boxwright.measure("truth.json", "predictions.parquet", "lrp").overall["oLRP"]
    """
    judge = find_metric(metric, max_dets)
    return judge(*read_pair(truth, predictions))
