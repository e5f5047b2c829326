"""Pages of judgements and comparisons, and the commands that write them."""

import json
import re
import shutil
import subprocess

import numpy as np
import polars as pl
import pytest
from PIL import Image

from boxwright.data import formats
from boxwright.data.builder import TableBuilder
from boxwright.errors import ConfigError
from boxwright.evaluation.evaluate import evaluate
from boxwright.evaluation.intervals import all_intervals
from boxwright.evaluation.metrics import METRICS, measure
from boxwright.evaluation.tide import NAMES, tide
from boxwright.reporting.examples import pictures_of
from boxwright.reporting.judgement import judgement_page
from boxwright.reporting.page import Section, write_page
from boxwright.reporting.plots import Axis
from tests.cli.test_cli import run
from tests.evaluation.oracles import random_case


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Truth, two models' predictions and their images, as files."""
    folder = tmp_path_factory.mktemp("judged")
    truth, found = random_case(1, images=12)
    rng = np.random.default_rng(0)
    paths = []
    for name in truth.images["file_name"]:
        paths.append(str(folder / name))
        Image.fromarray(rng.integers(0, 255, (200, 200, 3), dtype=np.uint8)).save(paths[-1])
    truth = truth.__class__(truth.images.with_columns(path=pl.Series(paths)), truth.boxes, truth.categories)
    other = found.boxes.with_columns(w=found.boxes["w"] * 0.9)
    formats.write(truth, folder / "truth.parquet")
    formats.write(found, folder / "first.parquet")
    formats.write(found.with_boxes(other), folder / "second.parquet")
    return folder


def test_evaluate_prints_models_side_by_side_and_writes_page_and_numbers(files, tmp_path):
    truth, first, second = (files / f"{n}.parquet" for n in ("truth", "first", "second"))
    page, numbers = tmp_path / "page.html", tmp_path / "numbers.json"
    words = [
        "evaluate",
        truth,
        first,
        second,
        "--metric",
        "lrp",
        "--metric",
        "by-size",
        "--metric",
        "oriented",
    ]
    done = run(*words, "--report", page, "--json", numbers)
    assert max(len(line) for line in done.stdout.splitlines() if not line.startswith("Report")) <= 80
    content = json.loads(numbers.read_text())
    assert content["second"]["coco"]["AP"] == pytest.approx(evaluate(truth, second).coco["AP"])
    assert content["first"]["lrp"]["overall"] == pytest.approx(measure(truth, first, "lrp").overall)
    html = page.read_text()
    errors = tide(*(formats.read(p) for p in (truth, first))).errors
    for kind in NAMES.values():
        count = (errors["kind"] == kind).sum()
        assert re.search(rf"<summary>{kind}: .* \({count}\)</summary>", html)
    assert html.count("data:image/jpeg;base64,") >= min(20, len(errors))
    assert "Found by first alone" in html
    assert not re.findall(r'(?:src|href)="(?!data:|#)', html)


def test_every_metric_that_these_tables_can_be_asked_runs(files):
    for name in METRICS.keys() - {"pdq", "tubes", "tracks", "landmarks", "accuracy"}:
        reading = measure(files / "truth.parquet", files / "first.parquet", name)
        assert json.loads(json.dumps(reading.to_dict()))["title"]
        assert reading.rows or reading.overall
        assert len({tuple(row) for row in reading.rows}) <= 1, name
    with pytest.raises(ConfigError, match="Did you mean 'lrp'"):
        measure(files / "truth.parquet", files / "first.parquet", "lpr")


def test_the_options_of_evaluate_change_the_numbers_they_name(files, tmp_path):
    words = ["evaluate", files / "truth.parquet", files / "first.parquet", "--json", tmp_path / "n.json"]

    def numbers(*more):
        run(*words, *more)
        return json.loads((tmp_path / "n.json").read_text())

    usual = numbers()
    grid = numbers("--ious", "0.5,0.6")
    assert grid["coco"]["AP"] == pytest.approx((usual["ap_by_iou"]["0.50"] + usual["ap_by_iou"]["0.60"]) / 2)
    assert "AP75" not in grid["coco"]
    any_class = numbers("--class-agnostic")
    assert list(any_class["per_class"]) == ["0"]
    assert any_class["coco"]["AR100"] > usual["coco"]["AR100"]
    # The images are 200 x 200, so these edges are the same ones.
    relative = numbers("--relative-areas", "--areas", f"{1024 / 40000},{9216 / 40000}")
    assert relative["coco"] == pytest.approx(usual["coco"])
    assert numbers("--areas", "400,900")["coco"]["APs"] != usual["coco"]["APs"]
    few = numbers("--max-detections", "1", "--metric", "bound", "--metric", "tide")
    assert few["coco"].keys() >= {"AR1"}
    assert few["bound"]["overall"]["AP now"] == pytest.approx(few["coco"]["AP"])
    assert few["tide"] == measure(*words[1:3], "tide", max_dets=1).to_dict()
    chance = numbers("--ious", "0.5,0.6", "--class-agnostic", "--intervals", "10")["intervals"][0]
    expected = evaluate(*words[1:3], iou_thresholds=(0.5, 0.6), class_agnostic=True).coco
    values = {row["number"]: row["value"] for row in chance["rows"]}
    assert values["AP"] == pytest.approx(expected["AP"])
    assert "AP75" not in values
    page = tmp_path / "options.html"
    run(*words, "--ious", "0.5,0.6", "--class-agnostic", "--report", page)
    assert f"{expected['AP']:.4f}" in page.read_text()
    for bad in (["--ious", "0.6,0.5"], ["--ious", "x"], ["--areas", "5"], ["--metric", "lpr"]):
        assert "expected" in run(*words, *bad, check=2).stderr or bad[0] == "--metric"


def test_intervals_of_every_number_from_the_command_line(files):
    truth, first, second = (files / f"{n}.parquet" for n in ("truth", "first", "second"))
    text = run("evaluate", truth, first, second, "--metric", "lrp", "--intervals", "20").stdout
    assert "second against first" in text
    assert re.search(r"oLRP +0\.\d{4}", text)
    assert re.search(r"AP class 2 +0\.\d{4}", text)
    assert "chance" in text


def test_compare_calibrate_and_threshold_from_the_command_line(files, tmp_path):
    truth, first, second = (files / f"{n}.parquet" for n in ("truth", "first", "second"))
    words = [
        "--json",
        tmp_path / "c.json",
        "--pairs",
        tmp_path / "p.parquet",
        "--report",
        tmp_path / "c.html",
    ]
    text = run("compare", first, second, *words).stdout
    assert "only A" in text
    rows = json.loads((tmp_path / "c.json").read_text())["rows"]
    assert rows[0]["matched"] == len(pl.read_parquet(tmp_path / "p.parquet"))
    assert "Only in second" in (tmp_path / "c.html").read_text()
    words = ["-o", tmp_path / "cal.json", "--by", "all", "--folds", "2", "--report", tmp_path / "cal.html"]
    assert "held-out AP after" in run("calibrate", truth, first, *words).stdout
    assert "AP over w" in (tmp_path / "cal.html").read_text()
    words = ["--calibration", tmp_path / "cal.json", "--json", tmp_path / "e.json"]
    run("evaluate", truth, first, *words)
    fitted = json.loads((tmp_path / "cal.json").read_text())["fitted"]
    assert json.loads((tmp_path / "e.json").read_text())["coco"]["AP"] == pytest.approx(fitted["AP after"])
    run("threshold", truth, first, "--precision", "0.3", "--json", tmp_path / "t.json")
    assert len(json.loads((tmp_path / "t.json").read_text())["rows"]) == 3
    assert "both" in run("threshold", truth, first, "--precision", "1", "--recall", "1", check=2).stderr


def test_a_page_without_images_still_says_everything(files, tmp_path):
    truth, found = random_case(2)
    evaluations = {"<b>model</b>": evaluate(truth, found)}
    readings = {"lrp": {"<b>model</b>": measure(truth, found, "lrp")}}
    page = judgement_page(tmp_path / "p.html", evaluations, readings, all_intervals(evaluations, {}, 10))
    html = page.read_text()
    assert "data:image/jpeg" not in html
    assert "<b>model" not in html
    assert "The worst of each kind of error" in html


def dom_after(page, script):
    """What a browser has of a page once a script has run."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium is installed")
    page.write_text(page.read_text().replace("</body>", f"<script>{script}</script></body>"))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={page.parent}", "--dump-dom"]
    command = [browser, *flags, page.resolve().as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120).stdout


@pytest.mark.parametrize(("low", "high"), [(20.3, 37.1), (0.9, 1.1), (1.0, 5000.0), (3.0, 12.0)])
def test_a_logarithmic_axis_has_ticks_however_short_it_is(low, high):
    axis = Axis("ms", low, high, 0, 100, log=True)
    ticks = axis.ticks()
    assert len(ticks) >= 2
    assert all(low <= tick <= high for tick in ticks)
    assert (np.diff(axis.place(ticks)) > 0).all()


def test_a_click_sorts_a_table_by_number(tmp_path):
    rows = [{"name": "b", "AP": 9.5}, {"name": "a", "AP": None}, {"name": "c", "AP": 10.25}]
    write_page(tmp_path / "p.html", "t", "lead", [Section("s", rows=rows)])
    dom = dom_after(tmp_path / "p.html", "document.querySelectorAll('th.sorts')[1].click()")
    assert re.findall(r'<td class="text" data-value="(\w)">', dom) == ["c", "b", "a"]


@pytest.mark.parametrize(
    ("key", "order"), [("size", "bca"), ("aspect ratio", "acb"), ("angle error", "cba"), ("", "abc")]
)
def test_a_gallery_sorts_by_size_aspect_ratio_and_angle_error(tmp_path, key, order):
    truth, found = (TableBuilder(name, "degrees") for name in ("truth", "found"))
    # Length, width and angle of the truth, and the angle found; half a turn is no error.
    shapes = {"a": (30, 5, 10, 8), "b": (20, 18, 0, 183), "c": (24, 12, 178, -8)}
    for builder in (truth, found):
        builder.category("vehicle")
    for name, (length, width, angle, said) in shapes.items():
        for builder, turn, score in ((truth, angle, None), (found, said, 0.9)):
            image = builder.image(f"{name}.png", "", 64, 64)
            builder.box((name, 0), image, 0, (32, 32, length, width, turn), score=score)
    truth, found = truth.build(), found.build()
    pictures = pictures_of(truth, found, found.boxes.to_dicts(), 3)
    assert [p.keys["angle error"] for p in pictures] == pytest.approx([2, 3, 6], abs=0.01)
    write_page(tmp_path / "p.html", "t", "lead", [Section("s", galleries={"false": pictures})])
    pick = (
        f"const s = document.querySelector('select'); s.value = '{key}'; s.dispatchEvent(new Event('change'))"
    )
    assert "".join(re.findall(r"px, .*?(\w)\.png", dom_after(tmp_path / "p.html", pick))) == order
