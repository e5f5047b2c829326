"""A whole run on small images: train, predict, report, runs; the page is opened in a browser."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import boxwright
from boxwright.config import load_config
from boxwright.data import formats
from boxwright.errors import CheckpointError, ConfigError, DataError
from boxwright.evaluation.calibration import Calibration, Correction
from tests.scenes import square_experiment


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run of two epochs, and a second one of another width."""
    folder = tmp_path_factory.mktemp("work")
    experiment = square_experiment(folder, epochs=2, evaluate_every=1)
    boxwright.train(experiment, name="first", runs=folder / "runs")
    wider = experiment.model_copy(update={"model": experiment.model.model_copy(update={"width": 0.375})})
    boxwright.train(wider, name="second", runs=folder / "runs")
    return folder / "runs" / "first"


def test_the_run_folder_holds_what_the_design_says(run):
    names = {p.relative_to(run).as_posix() for p in run.rglob("*")}
    assert {
        "config.yaml",
        "metrics.parquet",
        "environment.json",
        "predictions.parquet",
        "truth.parquet",
        "evaluation.json",
        "report/index.html",
        "checkpoints/best.safetensors",
        "checkpoints/last.safetensors",
        "checkpoints/state.pt",
    } <= names
    assert any(n.startswith("tensorboard/events") for n in names)
    metrics = pl.read_parquet(run / "metrics.parquet")
    assert metrics["val/AP"].drop_nulls().len() == 2
    assert (metrics["step"].diff().drop_nulls() >= 0).all()
    assert load_config(run / "config.yaml").train.epochs == 2


def test_the_numbers_of_the_run_are_those_of_evaluate(run):
    found = boxwright.evaluate(run / "truth.parquet", run / "predictions.parquet")
    assert json.loads((run / "evaluation.json").read_text())["coco"] == pytest.approx(found.coco)


def test_the_page_holds_everything_and_asks_for_nothing(run):
    page = (run / "report" / "index.html").read_text()
    assert page.count("data:image/jpeg;base64,") >= 4
    assert page.count("<svg") == 9  # seven curves, and precision, recall and F1 of two classes
    assert (
        page.count('class="mark"') == 8
    )  # the operating point on their three lines, and on precision and recall
    assert all(
        f"<h2>{title}</h2>" in page for title in ("In use", "What is taken for what", "True positives")
    )
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert "width: 0.25" in page
    assert "bright" in page


def test_the_page_opens_in_a_browser_without_an_error(run, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium is installed")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    flags += [f"--user-data-dir={tmp_path}", "--enable-logging=stderr", "--v=0", "--window-size=1200,2000"]
    picture, page = tmp_path / "page.png", run / "report" / "index.html"
    command = [browser, *flags, f"--screenshot={picture}", page.resolve().as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    assert picture.stat().st_size > 20_000


def test_names_from_outside_are_escaped(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    for name in ("truth.parquet", "predictions.parquet"):
        tables = formats.read(copy / name)
        named = tables.categories.with_columns(name=pl.Series(["<script>alert(1)</script>", "b"]))
        formats.write(type(tables)(tables.images, tables.boxes, named), copy / name)
    page = boxwright.report(copy).read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_runs_lists_what_differs_and_ap_by_threshold(run):
    rows = {r.name: r for r in boxwright.runs(run.parent)}
    assert rows.keys() == {"first", "second"}
    differences = [d for r in rows.values() for d in r.differs]
    assert any(d.startswith("model.width=") for d in differences)
    assert list(rows["first"].ap_by_iou) == [f"{t:.2f}" for t in np.arange(0.5, 1, 0.05)]
    assert rows["first"].epochs == 2
    assert rows["first"].seconds > 0


def test_a_run_without_predictions_says_what_to_do(run, tmp_path):
    shutil.copytree(run, tmp_path / "copy")
    (tmp_path / "copy" / "predictions.parquet").unlink()
    with pytest.raises(DataError, match=r"predictions\.parquet is missing.*--resume"):
        boxwright.report(tmp_path / "copy")


def test_predict_agrees_with_the_run_and_names_broken_images(run, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(run.parent.parent / "images", images)
    (images / "zzz.png").write_bytes(b"broken")
    tables = boxwright.predict(images, run, tmp_path / "out.json", batch_size=3)
    assert [f.place for f in tables.faults] == [str(images / "zzz.png")]
    reference = formats.read(run / "predictions.parquet")
    assert len(tables.boxes) == len(reference.boxes)
    columns = ["x", "y", "w", "h", "score"]
    difference = tables.boxes.select(columns).to_numpy() - reference.boxes.select(columns).to_numpy()
    assert np.abs(difference).max() < 1e-3
    records = json.loads((tmp_path / "out.json").read_text())
    assert len(records) == len(tables.boxes)
    # A folder of images has no ids: the records name what the numbers stand for.
    assert records[0].keys() == {"image_id", "category_id", "bbox", "score", "file_name", "category"}


def test_predict_applies_a_calibration(run, tmp_path):
    Calibration("all", {"": Correction(w=0.5)}).save(tmp_path / "c.json")
    images = run.parent.parent / "images"
    plain, halved = (boxwright.predict(images, run, calibration=c).boxes for c in (None, tmp_path / "c.json"))
    assert halved["w"].to_numpy() == pytest.approx(plain["w"].to_numpy() / 2)
    assert (halved["x"] + halved["w"] / 2).to_numpy() == pytest.approx(
        (plain["x"] + plain["w"] / 2).to_numpy()
    )


def test_a_checkpoint_that_is_none_is_refused(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(CheckpointError, match="can't be read as safetensors"):
        boxwright.predict(__file__, tmp_path / "a.safetensors")


def test_a_second_run_of_a_name_gets_a_number_and_resume_needs_one(run, tmp_path):
    from boxwright.training.run_folder import choose_folder

    assert choose_folder(run.parent, "first", resume=False).name == "first-2"
    assert choose_folder(run.parent, "first", resume=True) == run
    with pytest.raises(ConfigError, match="no run of this name to resume"):
        choose_folder(tmp_path, "first", resume=True)
