"""Detectors timed on the same images."""

import json

import polars as pl
import pytest
import torch

import boxwright
from boxwright.data import formats
from boxwright.errors import ConfigError
from boxwright.reporting.benchmark import pareto_front
from tests.cli.test_cli import run
from tests.scenes import square_tables
from tests.training.test_distilling import saved


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("benchmark")
    saved(place, classes=["bright", "dark"]).rename(place / "model.safetensors")
    formats.write(square_tables(place / "images", 6, 64), place / "truth.parquet")
    boxwright.export(place / "model.safetensors", place / "model.onnx", (64, 64), images=0)
    return place


def test_every_combination_is_timed_and_judged_alike(folder):
    threads = torch.get_num_threads()
    places = [folder / "model.safetensors", folder / "model.onnx"]
    found = boxwright.benchmark(places, folder / "truth.parquet", 6, (1, 4), (64, 64), threads=[1])
    assert [(t.runtime, t.batch) for t in found] == [
        ("torch", 1), ("torch", 4), ("onnx", 1), ("onnx", 4), ("file", 1), ("file", 4)
    ]  # fmt: skip
    for timing in found:
        assert timing.threads == 1
        assert 0 < timing.p50 <= timing.p95 <= timing.p99
        assert timing.ap == pytest.approx(found[0].ap, abs=1e-6)
        assert timing.images_per_second > 0
        assert timing.memory is None or timing.memory > 50
    assert torch.get_num_threads() == threads


def test_fewer_images_and_wrong_wishes(folder):
    (found,) = boxwright.benchmark([folder / "model.onnx"], folder / "truth.parquet", images=2)
    assert found.name == "model.onnx"
    with pytest.raises(ConfigError, match="from 1 on"):
        boxwright.benchmark([folder / "model.onnx"], folder / "truth.parquet", images=2, batch_sizes=(0,))
    with pytest.raises(ConfigError, match="runtime 'tensorrt'"):
        boxwright.benchmark(
            [folder / "model.safetensors"], folder / "truth.parquet", 2, runtimes=["tensorrt"]
        )


def test_the_front_is_what_no_other_beats_in_both():
    numbers = [(10, 1, 0.5), (5, 1, 0.4), (12, 1, 0.45), (40, 8, 0.3), (20, 1, 0.6), (20, 1, 0.55)]
    rows = [{"p50": ms, "batch": batch, "ap": ap} for ms, batch, ap in numbers]
    front = pareto_front(rows)
    assert front == [1, 0, 4]
    for n, row in enumerate(rows):
        beaten = any(
            o["p50"] / o["batch"] <= row["p50"] / row["batch"] and o["ap"] >= row["ap"] and o is not row
            for o in rows
        )
        assert (n in front) != beaten


def test_the_command_writes_a_page_and_numbers(folder, tmp_path):
    words = ["benchmark", folder / "model.onnx", "--data", folder / "truth.parquet", "--images", 4]
    shown = run(*words, "-o", tmp_path / "page.html").stdout
    assert "p50 ms" in shown
    assert max(len(line) for line in shown.splitlines() if "page.html" not in line) <= 80
    page = (tmp_path / "page.html").read_text()
    assert "AP over time" in page
    assert "model.onnx, file" in page
    run(*words, "-o", tmp_path / "rows.json")
    assert len(json.loads((tmp_path / "rows.json").read_text())) == 1
    run(*words, "--batch", "1,2", "-o", tmp_path / "rows.parquet")
    assert pl.read_parquet(tmp_path / "rows.parquet")["batch"].to_list() == [1, 2]
    assert "expected a .html" in run(*words, "-o", tmp_path / "a.txt", check=2).stderr
