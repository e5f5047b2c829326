"""Trackers of experiments get the run's settings and numbers."""

import json
import os
import subprocess
import sys

import polars as pl
import pytest

from boxwright.config import dump_config
from boxwright.errors import ConfigError
from boxwright.training.train import train
from tests.scenes import square_experiment

# Stands in for the package of that name: writes down what it is told.
STAND_IN = """
import json

class Run:
    def __init__(self, told):
        self.told = told
        self.config = self
    def write(self, *row):
        with open("told.jsonl", "a") as file:
            print(json.dumps(row), file=file)
    def update(self, values, **_):
        self.write("settings", values)
    def log(self, values, step=None, **_):
        self.write("numbers", step, values)
    def finish(self):
        self.write("finish")

def init(**told):
    global config
    run = Run(told)
    config = run
    run.write("init", told["project"], told["name"])
    return run
"""


def test_a_tracker_is_told_what_the_run_folder_holds(tmp_path):
    package = tmp_path / "packages/wandb"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(STAND_IN)
    (tmp_path / "packages/wandb-1.0.dist-info").mkdir()
    (tmp_path / "packages/wandb-1.0.dist-info/METADATA").write_text("Name: wandb\nVersion: 1.0\n")
    config = square_experiment(tmp_path, epochs=2, evaluate_every=2, log_every=4, trackers=["wandb"])
    (tmp_path / "tracked.yaml").write_text(dump_config(config))
    paths = os.pathsep.join([str(tmp_path / "packages"), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "boxwright", "train", "tracked.yaml"]
    result = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    told = [json.loads(line) for line in (tmp_path / "told.jsonl").read_text().splitlines()]
    assert told[0] == ["init", "boxwright", "tracked"]
    assert told[1][1]["train.optimizer.lr"] == config.train.optimizer.lr
    assert told[1][1]["model.name"] == "compact"
    assert told[-1] == ["finish"]
    rows = pl.read_parquet(tmp_path / "runs/tracked/metrics.parquet").to_dicts()
    numbers = [row for kind, *row in told if kind == "numbers"]
    assert [step for step, _ in numbers] == [row["step"] for row in rows]
    assert [values["epoch"] for _, values in numbers] == [row["epoch"] for row in rows]
    for (_, values), row in zip(numbers, rows, strict=True):
        assert {name: row[name] for name in values} == values
    assert "val/AP" in numbers[-1][1]


def test_a_tracker_that_is_not_installed_is_told_before_training(tmp_path):
    config = square_experiment(tmp_path, trackers=["swanlab"])
    with pytest.raises(ConfigError, match=r"train\.trackers: swanlab needs pip install"):
        train(config, runs=tmp_path)
