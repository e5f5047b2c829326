"""Pictures made worse, and objects pasted into others."""

from dataclasses import replace

import numpy as np
import pytest
import yaml
from PIL import Image

import boxwright
from boxwright.config import check_config, dump_config
from boxwright.config.augment import AugmentConfig
from boxwright.data.dataset import DetectionDataset
from boxwright.data.degrading import degrade
from boxwright.data.samples import Sample, paste, recolor_objects
from boxwright.errors import ConfigError
from boxwright.geometry.conventions import corners
from tests.scenes import oriented_tables, square_experiment

PLAIN = AugmentConfig(pipeline="none")


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (60, 80, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["blur", "jpeg", "cutout"])
def test_a_picture_gets_worse_and_the_first_stays(name):
    pixels = picture()
    before = pixels.copy()
    worse = degrade(pixels, PLAIN.model_copy(update={name: 1.0}), np.random.default_rng(1))
    assert worse.shape == pixels.shape
    assert worse.dtype == np.uint8
    assert not np.array_equal(worse, pixels)
    np.testing.assert_array_equal(pixels, before)
    # Half of the time is half of the time.
    half = PLAIN.model_copy(update={name: 0.5})
    changed = [not np.array_equal(degrade(pixels, half, np.random.default_rng(n)), pixels) for n in range(60)]
    assert 15 < sum(changed) < 45


def test_jpeg_keeps_colours_and_blur_keeps_their_mean():
    red = np.zeros((40, 40, 3), dtype=np.uint8) + np.array([200, 30, 60], dtype=np.uint8)
    for name in ("jpeg", "blur"):
        worse = degrade(red, PLAIN.model_copy(update={name: 1.0}), np.random.default_rng(0))
        np.testing.assert_allclose(worse.mean(axis=(0, 1)), [200, 30, 60], atol=4)
    noisy = picture()
    blurred = degrade(noisy, PLAIN.model_copy(update={"blur": 1.0}), np.random.default_rng(0))
    assert (
        np.abs(np.diff(blurred.astype(int), axis=1)).mean()
        < 0.9 * np.abs(np.diff(noisy.astype(int), axis=1)).mean()
    )


def test_a_seed_draws_what_it_drew_where_nothing_new_is_wanted():
    rng = np.random.default_rng(0)
    degrade(picture(), PLAIN, rng)
    assert rng.random() == np.random.default_rng(0).random()


def sample_of(boxes: list[list[float]], color: int, angle: float = 0.0) -> Sample:
    """Squares of a grey value on black; boxes xyxy."""
    array = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    pixels = np.zeros((100, 120, 3), dtype=np.uint8)
    for x1, y1, x2, y2 in array.astype(int):
        pixels[y1:y2, x1:x2] = color
    size = array[:, 2:] - array[:, :2]
    rotated = np.column_stack([array[:, :2] + size / 2, size, np.full(len(array), angle)])
    flags = np.zeros(len(array), dtype=bool)
    points = np.full((len(array), 5, 2), np.nan)
    return Sample(pixels, array, rotated, flags, np.full(len(array), 1), flags, points, 0, np.eye(2, 3))


def test_an_object_is_pasted_where_its_box_says():
    target, other = sample_of([[5.0, 5, 30, 30]], 100), sample_of([[40.0, 40, 60, 70]], 250)
    for seed in range(20):
        made = paste(target, other, np.random.default_rng(seed))
        assert len(made.boxes) == 2
        np.testing.assert_allclose(made.boxes[1, 2:] - made.boxes[1, :2], [20, 30])
        np.testing.assert_allclose(made.rotated[1, :2], made.boxes[1].reshape(2, 2).mean(0))
        x1, y1, x2, y2 = made.boxes[1].astype(int)
        assert x1 >= 0 and y1 >= 0 and x2 <= 120 and y2 <= 100  # noqa: PT018
        # Its middle is the object, its border is blended, and far from it nothing has changed.
        assert (made.pixels[y1 + 4 : y2 - 4, x1 + 4 : x2 - 4] > 230).all()
        same = np.ones((100, 120), dtype=bool)
        same[max(0, y1 - 5) : y2 + 5, max(0, x1 - 5) : x2 + 5] = False
        np.testing.assert_array_equal(made.pixels[same], target.pixels[same])
        # Little of what was there is hidden.
        (left, top), (right, bottom) = np.maximum(*made.boxes[:, :2]), np.minimum(*made.boxes[:, 2:])
        assert max(0, right - left) * max(0, bottom - top) <= 0.2 * 25 * 25
    np.testing.assert_array_equal(target.pixels, sample_of([[5.0, 5, 30, 30]], 100).pixels)


def test_what_is_cut_off_ignored_or_without_a_place_is_not_pasted():
    target, rng = sample_of([[0.0, 0, 120, 100]], 100), np.random.default_rng(0)
    assert paste(target, sample_of([], 0), rng) is target
    assert paste(target, sample_of([[0.0, 40, 20, 60]], 250), rng) is target  # at the border
    other = sample_of([[40.0, 40, 60, 60]], 250)
    assert paste(sample_of([], 0), replace(other, ignore=np.array([True])), rng).boxes.shape == (0, 4)
    crowded = sample_of([[x, y, x + 10.0, y + 10] for x in range(0, 120, 10) for y in range(0, 100, 10)], 9)
    assert paste(crowded, other, rng) is crowded


def test_objects_of_the_sizes_that_are_named_change_their_colours(tmp_path):
    grey = np.full((200, 300, 3), 128, dtype=np.uint8)
    rotated = np.array([[30.0, 30, 20, 16, 0.4], [90, 90, 60, 40, 0], [220, 110, 110, 100, 0.2]])
    points = corners(rotated)
    boxes = np.concatenate([points.min(1), points.max(1)], axis=1)
    flags = np.zeros(3, dtype=bool)
    marks = np.full((3, 5, 2), np.nan)
    sample = Sample(grey, boxes, rotated, ~flags, np.zeros(3, int), flags, marks, 0, np.eye(2, 3))
    for n in range(3):
        chances = tuple(float(k == n) for k in range(3))
        augment = AugmentConfig(object_colors=chances, brightness=0.5)
        changed = recolor_objects(sample, augment, np.random.default_rng(n))
        away = np.abs(changed.pixels.astype(int) - 128).max(-1)
        centre = tuple(rotated[n, 1::-1].astype(int))
        assert away[centre] > 3
        # The others stay, and so does what is away from the box; the border is blended.
        x1, y1, x2, y2 = np.rint(boxes[n] + [-12, -12, 12, 12]).astype(int)
        outside = np.ones_like(away, dtype=bool)
        outside[max(y1, 0) : y2, max(x1, 0) : x2] = False
        assert not away[outside].any()
        assert len(np.unique(away)) > 3
        assert changed.boxes is sample.boxes
    assert (grey == 128).all()
    none = AugmentConfig(object_colors=(1.0, 1.0, 1.0))
    ignored = replace(sample, ignore=~flags)
    assert (recolor_objects(ignored, none, np.random.default_rng(0)).pixels == 128).all()


def test_strength_multiplies_ranges_and_chances():
    strong = AugmentConfig(pipeline="strong", rotate=10, mosaic=0.6, object_colors=(0.1, 0.2, 0.9))
    assert strong.applied() == strong
    half = strong.model_copy(update={"strength": 0.5}).applied()
    assert half.scale == pytest.approx((0.6**0.5, 1.4**0.5))
    assert (half.rotate, half.blur, half.cutout, half.brightness) == (5, 0.1, 0.15, 0.2)
    assert (half.mosaic, half.object_colors) == (0.3, (0.05, 0.1, 0.45))
    assert half.flip_horizontal == 0.5
    twice = strong.model_copy(update={"strength": 2.0}).applied()
    assert (twice.mosaic, twice.rotate, twice.object_colors) == (1.0, 20, (0.2, 0.4, 1.0))
    nothing = strong.model_copy(update={"strength": 0.0}).applied()
    plain = AugmentConfig(pipeline="none", flip_horizontal=0.5)
    assert nothing == plain.model_copy(update={"pipeline": "strong"})


def test_a_pipeline_gives_what_is_not_said():
    strong = AugmentConfig(pipeline="strong", blur=0.0)
    assert (strong.blur, strong.cutout, strong.scale) == (0.0, 0.3, (0.6, 1.4))
    assert AugmentConfig(pipeline="standard") == AugmentConfig()
    content = square_experiment_content()
    content["augment"] = {"pipeline": "strong", "color": 0.5}
    config = check_config(content, "test")
    # What a run folder keeps is the same again.
    assert check_config(yaml.safe_load(dump_config(config)), "again").augment == config.augment
    content["augment"] = {"pipeline": "wild"}
    with pytest.raises(ConfigError, match=r"augment\.pipeline"):
        check_config(content, "test")


def square_experiment_content() -> dict:
    source = {"root": "x.parquet"}
    return {"data": {"train": source, "val": source}, "model": {"name": "compact"}}


def test_samples_of_oriented_boxes_stay_true(tmp_path):
    tables = oriented_tables(tmp_path, 6)
    augment = AugmentConfig(pipeline="strong", paste=1.0, quarter_turn=0.5, rotate=30)
    dataset = DetectionDataset(tables, (96, 96), augment)
    grown = 0
    for index in range(6):
        sample = dataset[2, index]
        alone = DetectionDataset(tables, (96, 96), augment.model_copy(update={"paste": 0.0}))[2, index]
        grown += len(sample.boxes) - len(alone.boxes)
        points = corners(sample.rotated)
        kept = ~sample.ignore
        np.testing.assert_allclose(np.clip(points.min(1), 0, 96)[kept], sample.boxes[kept, :2], atol=1e-6)
    assert grown > 0


def test_the_picture_shows_images_and_their_variants(tmp_path):
    config = square_experiment(tmp_path)
    path = tmp_path / "squares.yaml"
    path.write_text(dump_config(config))
    boxwright.show_augmented(path, tmp_path / "a.png", count=2, variants=3, changes=["augment.mosaic=1"])
    sheet = Image.open(tmp_path / "a.png")
    assert sheet.size == (4 * 68, 2 * 68)
