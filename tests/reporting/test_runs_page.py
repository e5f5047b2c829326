"""Runs beside each other: what differs, and what is more than chance."""

import json

import numpy as np
import polars as pl
import pytest
import yaml

from boxwright.data import formats
from boxwright.data.tables import Tables
from boxwright.errors import ConfigError
from boxwright.evaluation.evaluate import evaluate
from boxwright.reporting.runs import runs
from boxwright.reporting.runs_page import paired, runs_page
from tests.scenes import square_tables


def make_run(folder, truth: Tables, off: float, config: dict) -> None:
    """What a finished run leaves, whose boxes are `off` pixels away."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    boxes = truth.boxes.with_columns(
        score=pl.Series(rng.uniform(0.3, 1, len(truth.boxes))), x=pl.col("x") + off, source=pl.lit("run")
    )
    found = truth.with_boxes(boxes)
    formats.write(truth, folder / "truth.parquet")
    formats.write(found, folder / "predictions.parquet")
    (folder / "evaluation.json").write_text(json.dumps(evaluate(truth, found).to_dict()))
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    metrics = {
        "step": [4, 8],
        "epoch": [1, 2],
        "seconds": [1.0, 2.0],
        "loss/total": [3.0, 2.0],
        "val/AP": [0.1, 0.2],
    }
    pl.DataFrame(metrics).write_parquet(folder / "metrics.parquet")


@pytest.fixture
def folder(tmp_path):
    truth = square_tables(tmp_path / "images", 30)
    config = {
        "data": {"train": [{"root": "a.json", "role": "labels"}]},
        "train": {"seed": 0, "patience": None},
    }
    make_run(tmp_path / "runs" / "exact", truth, 0.0, config)
    make_run(tmp_path / "runs" / "same", truth, 0.0, config | {"train": {"seed": 1, "patience": None}})
    more = {"train": [*config["data"]["train"], {"root": "pseudo.parquet", "role": "pseudo"}]}
    make_run(tmp_path / "runs" / "off", truth, 4.0, config | {"data": more})
    make_run(tmp_path / "runs" / "elsewhere", truth.select_images(np.arange(30) < 20), 0.0, config)
    return tmp_path / "runs"


def test_settings_of_each_source_are_told(folder):
    differs = {row.name: row.differs for row in runs(folder)}
    assert differs == {
        "exact": [],
        "same": ["train.seed=1"],
        "off": ['data.train.1.role="pseudo"', 'data.train.1.root="pseudo.parquet"'],
        "elsewhere": [],
    }


def test_differences_have_intervals_and_other_truth_has_none(folder):
    rows = paired(folder, "exact", resamples=100)
    by_run = {(row["run"], row["number"]): row for row in rows}
    assert by_run["same", "AP"]["difference"] == 0
    assert by_run["same", "AP"]["from"] <= 0 <= by_run["same", "AP"]["to"]
    worse = by_run["off", "AP"]
    assert worse["difference"] == pytest.approx(worse["other"] - 1)
    assert worse["to"] < 0
    assert worse["p"] < 0.05
    assert ("elsewhere", "judged by other truth") in by_run
    with pytest.raises(ConfigError, match=r"no finished run 'exat'.*Did you mean 'exact'"):
        paired(folder, "exat")


def test_the_page_has_curves_settings_and_differences(folder, tmp_path):
    (folder / "begun").mkdir()
    (folder / "begun" / "config.yaml").write_text("train: {seed: 2}")
    page = runs_page(folder, tmp_path / "runs.html").read_text()
    for text in ("5 runs of", "4 finished", "AP on the validation images", "train.seed=1", "Difference from"):
        assert text in page
    assert page.count("<polyline") >= 9
