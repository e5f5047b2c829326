"""Every detector along the commands' own path: trained, judged, saved, loaded, used on files."""

import numpy as np
import pytest

import boxwright
from boxwright.config import check_config
from tests.models.test_detectors import CONFIGS, LARGE, SETS
from tests.scenes import small_tables

FEW = {"score_threshold": 0.0, "max_detections": 5}
PER_LEVEL = FEW | {"per_level": True, "candidates": 50}
# The same detectors with another sampler, loss or head are slow's: their own tests train them.
NAMES = [pytest.param(n, marks=pytest.mark.slow) if "-" in n else n for n in (*CONFIGS, *LARGE)]


@pytest.mark.parametrize("name", NAMES)
def test_a_detector_trains_and_predicts_on_images_that_are_not_square(name, tmp_path):
    tables = small_tables(tmp_path)
    boxwright.write(tables, tmp_path / "truth.parquet")
    source = {"root": str(tmp_path / "truth.parquet")}
    side = 320 if name in LARGE else 96
    content = {
        "data": {"train": source, "val": source},
        "model": (CONFIGS | LARGE)[name] | {"selection": FEW if name in SETS else PER_LEVEL},
        "image_size": [side, side],
        "views": ["plain", "transposed"],
        "train": {"epochs": 1, "batch_size": 2, "evaluate_every": 1, "precision": "fp32", "log_every": 1},
    }
    run = boxwright.train(check_config(content, "test"), name=name, runs=tmp_path / "runs")
    assert np.isfinite(run.evaluation.coco["AP"])
    found = boxwright.predict(tmp_path / "images", run.folder)
    assert 0 < len(found.boxes) <= 5 * len(tables.images)
    # Oriented boxes may leave the image, their centres may not.
    xywh = found.upright()
    ends = [xywh[:, :2] + xywh[:, 2:] / 2] * 2 if "obb" in name else [xywh[:, :2], xywh[:, :2] + xywh[:, 2:]]
    assert (ends[0] >= 0).all()
    assert (ends[1] <= [96, 64]).all()
