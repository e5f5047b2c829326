"""The page to look through a data set."""

import shutil
from datetime import datetime

import numpy as np
import polars as pl
import pytest
from PIL import Image

import boxwright
from boxwright.data import formats
from boxwright.data.builder import TableBuilder, pack
from boxwright.data.synthetic import make_scenes
from boxwright.data.tables import Tables
from boxwright.errors import CheckpointError, ConfigError
from boxwright.reporting.distributions import SECTORS, heat_map, rose
from boxwright.reporting.explore import hard_examples
from boxwright.reporting.explore_crops import choose
from boxwright.reporting.explore_sections import groups, headings, kinds_of, when_and_where
from tests.auditing.crowds import detections, labels
from tests.cli.test_cli import run
from tests.scenes import small_tables

pytest.importorskip("sklearn")
HOSTILE = "<script>alert(1)</script>"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Labels of scenes with headings, a hostile class and image name, and predictions of them."""
    folder = tmp_path_factory.mktemp("scenes")
    made = make_scenes(folder / "images", 12, (256, 192), 3)
    names = made.categories["name"].to_list()
    files = made.images["file_name"].to_list()
    made = Tables(
        made.images.with_columns(
            file_name=pl.Series([HOSTILE, *files[1:]]),
            attributes=pl.Series([pack({"weather": ["rain", "sun"][n % 2]}) for n in range(12)]),
        ),
        made.boxes,
        made.categories.with_columns(name=pl.Series([HOSTILE, *names[1:]])),
    )
    formats.write(made, folder / "labels.parquet")
    found = made.boxes.with_columns(x=made.boxes["x"] + 2, score=pl.lit(0.9))
    formats.write(made.with_boxes(found), folder / "found.parquet")
    return folder


@pytest.fixture(scope="module")
def page(scenes):
    words = ["--predictions", scenes / "found.parquet", "-o", scenes / "explore.html"]
    done = run("data", "explore", scenes / "labels.parquet", *words)
    assert done.returncode == 0, done.stderr
    assert "12 images" in done.stdout
    return scenes / "explore.html"


def test_the_page_has_every_part_and_no_foreign_markup(page):
    text = page.read_text()
    for title in ("Contents", "Sizes and shapes", "Places", "Density", "Headings", "By source and attribute",
                  "Crops", "Odd ones", "Groups of like ones, rare first", "Hard examples"):  # fmt: skip
        assert f">{title}</h2>" in text, title
    assert HOSTILE not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "rain" in text
    assert "When and where" not in text


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_a_crop_is_shown_beside_the_pointer_and_a_class_is_hidden_by_its_name(page):
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1200, "height": 900})
        trouble = []
        opened.on("pageerror", lambda error: trouble.append(str(error)))
        opened.goto(page.resolve().as_uri())
        dot = opened.locator("svg.crops circle").first
        dot.scroll_into_view_if_needed()
        dot.hover(force=True)
        shown = "[...document.querySelectorAll('.values')].filter((b) => b.style.visibility === 'visible')"
        boxes = opened.evaluate(
            f"{shown}.map((b) => [b.innerText, b.querySelector('.crop').style.backgroundImage])"
        )
        assert len(boxes) == 1
        assert "oddness" in boxes[0][0]
        assert boxes[0][1].startswith('url("data:image/jpeg;base64,')
        hidden = "document.querySelectorAll('svg.crops circle[style*=\"display: none\"]').length"
        before = opened.evaluate(hidden)
        opened.locator("button[data-group]").first.click()
        assert before == 0 < opened.evaluate(hidden)
        opened.locator("button[data-group]").first.click()
        assert opened.evaluate(hidden) == 0
        assert trouble == []
        browser.close()


def test_labels_without_boxes_or_with_few(tmp_path):
    few = small_tables(tmp_path)
    text = boxwright.explore(few, tmp_path / "few.html", title="Few").read_text()
    assert "fewer than 30 can&#39;t be arranged" in text
    assert "<h1>Few</h1>" in text
    text = boxwright.explore(few.with_boxes(few.boxes.clear()), tmp_path / "none.html").read_text()
    assert "Contents" in text
    assert "Density" not in text


def test_wrong_wishes_are_told(tmp_path, scenes):
    with pytest.raises(ConfigError, match=r"expected a \.html"):
        boxwright.explore(scenes / "labels.parquet", tmp_path / "page.pdf")
    with pytest.raises(ConfigError, match="from 0 to 1"):
        boxwright.explore(scenes / "labels.parquet", tmp_path / "page.html", iou=1.5)
    done = run("data", "explore", scenes / "labels.parquet", "--checkpoint", tmp_path / "no", check=2)
    assert "no weights there" in done.stderr


def test_a_detector_tells_what_crops_are_like(scenes, tmp_path):
    torch = pytest.importorskip("torch")
    from boxwright.config import check_config
    from boxwright.models import build_detector
    from boxwright.models.checkpoint import save_detector
    from boxwright.prediction.embedding import embed_crops_by

    data = {"root": str(scenes / "labels.parquet")}
    content = {"data": {"train": data, "val": data}, "model": {"name": "compact", "width": 0.25}}
    config = check_config(content, "test")
    torch.manual_seed(0)
    save_detector(build_detector(config.model, 1).eval(), config, ["thing"], tmp_path / "a.safetensors", {})
    crops = np.random.default_rng(0).integers(0, 255, (70, 96, 96, 3), dtype=np.uint8)
    vectors = embed_crops_by(tmp_path / "a.safetensors", crops)
    assert len(vectors) == 70
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), np.sqrt(2), rtol=1e-5)
    np.testing.assert_allclose(
        vectors[3:4], embed_crops_by(tmp_path / "a.safetensors", crops[3:4]), atol=1e-5
    )
    target = boxwright.explore(
        scenes / "labels.parquet", tmp_path / "page.html", checkpoint=tmp_path / "a.safetensors"
    )
    assert "Odd ones" in target.read_text()
    with pytest.raises(CheckpointError):
        boxwright.explore(scenes / "labels.parquet", target, checkpoint=scenes / "found.parquet")


def test_as_many_crops_of_each_class_as_can_be():
    truth = labels(classes=3)
    boxes = truth.boxes.with_columns(
        category_id=pl.Series(np.where(np.arange(len(truth.boxes)) < 5, 1, 0), dtype=pl.Int32)
    )
    chosen = choose(truth.with_boxes(boxes), 40, 0)
    assert len(set(chosen.tolist())) == 40
    assert (chosen < 5).sum() == 5
    assert np.array_equal(choose(truth, len(truth.boxes) + 9, 0), np.arange(len(truth.boxes)))


def test_hard_examples_are_counted():
    truth = labels(images=6)
    size = truth.boxes.select("w", "h").to_numpy()
    found = truth.boxes.with_columns(score=pl.lit(0.9)).with_row_index()
    far = pl.col("index").is_in([3, 4])
    moved = found.with_columns(
        score=pl.when(pl.col("index") == 5).then(0.2).otherwise(pl.col("score")),
        x=pl.col("x") + pl.when(far).then(2 * size[:, 0].max()).otherwise(0.0),
    ).filter(pl.col("index") != 6)
    section = hard_examples(truth, truth.with_boxes(moved.drop("index")), 0.5, 0.5)
    count = len(truth.boxes)
    assert section.numbers == {
        "found with a score of 0.5 or more": count - 4,
        "mistakes of such a score": 2,
        "never found": 3,
        "found with less": 1,
    }


def test_a_run_shows_its_own_images(scenes, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    truth = labels(images=4)
    formats.write(truth, folder / "truth.parquet")
    formats.write(detections(truth), folder / "predictions.parquet")
    target = boxwright.explore(scenes / "labels.parquet", tmp_path / "page.html", predictions=folder, crops=0)
    text = target.read_text()
    assert "003.png" in text
    assert "Odd ones" not in text


def test_a_heat_map_counts_places():
    rng = np.random.default_rng(0)
    found = heat_map(rng.random((500, 2)), 2.0)
    told = sum(int(part.split("</title>")[0].replace(",", "")) for part in found.split("<title>")[1:])
    assert told == 500
    assert 'viewBox="0 0 320 160"' in found


@pytest.mark.parametrize("told", [True, False])
def test_a_rose_counts_angles_around_each_sector(told):
    angles = np.radians([0.0, 4.9, -4.9, 90.0, -180.0])
    found = rose(angles, told)
    parts = [part.split("</title>")[0] for part in found.split("<title>")[1:]]
    counts = {part.split(" at ")[1]: int(part.split(" at ")[0]) for part in parts}
    assert 360 / SECTORS == 10
    if told:
        assert counts == {"0°": 3, "90°": 1, "180°": 1}
    else:
        assert counts == {"0°": 4, "90°": 1, "180°": 4, "270°": 1}


def test_headings_say_whether_they_tell_front_from_back():
    truth = labels(oriented=True)
    kinds = kinds_of(truth)
    assert len(headings(truth, kinds).notes) == 1
    half = truth.with_boxes(truth.boxes.with_columns(angle=pl.col("angle") / 2))
    assert "front from back" in headings(half, kinds).notes[1]
    assert headings(labels(), kinds) is None


def test_groups_are_by_source_and_by_attributes_of_few_values():
    truth = labels(images=6)
    country = [
        pack({"country": c, "id": n, "depth": {"a": 1}}) for n, c in enumerate(["de"] * 4 + ["fr"] * 2)
    ]
    tables = Tables(truth.images.with_columns(attributes=pl.Series(country)), truth.boxes, truth.categories)
    rows = groups(tables, kinds_of(tables)).rows
    assert {row["by"] for row in rows} == {"country", "id"}
    per_image = np.bincount(truth.boxes["image_id"].to_numpy())
    france = next(row for row in rows if row["value"] == "fr")
    assert (france["images"], france["boxes"]) == (2, per_image[4:].sum())
    assert sum(france[name] for name in "abc") == pytest.approx(1)


def test_when_and_where_are_read_from_annotations_and_from_files(tmp_path):
    builder = TableBuilder("taken")
    builder.category("thing")
    for n in range(4):
        image = Image.new("RGB", (8, 8))
        exif = image.getexif()
        exif.get_ifd(0x8769)[0x9003] = datetime(2021, 1, 1 + n, 7).strftime("%Y:%m:%d %H:%M:%S")
        exif.get_ifd(0x8825).update({1: "N", 2: (48, n, 0), 3: "E", 4: (9, 0, 0)})
        image.save(tmp_path / f"{n}.jpg", exif=exif)
        builder.image(f"{n}.jpg", str(tmp_path / f"{n}.jpg"), 8, 8)
    told = {"date_captured": "2022-05-05 23:00:00", "lon": 10.5, "lat": -4.25}
    builder.image("told.jpg", str(tmp_path / "0.jpg"), 8, 8, attributes=told)
    builder.image("gone.jpg", str(tmp_path / "gone.jpg"), 8, 8)
    section = when_and_where(builder.build())
    assert section.notes[0] == "Of 6 images 5 tell when and 5 where."
    assert section.notes[1].startswith("1 files can't be read")
    assert "2022-05-05" in section.figures["Images over time"]
    assert "1 at 10.5000, -4.2500" in section.figures["Where"]
    assert when_and_where(labels()) is None
