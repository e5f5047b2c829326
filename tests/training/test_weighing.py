"""Which images are drawn more often: with rare boxes, without objects, those that a detector got wrong."""

from collections import Counter
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import boxwright
from boxwright.config.data import SamplingConfig
from boxwright.data.sampling import draws_of
from boxwright.errors import ConfigError, DataError
from boxwright.training.weighing import errors_of_images, places_of_corrections, weigh_images
from tests.scenes import square_tables


@pytest.fixture
def tables(tmp_path):
    """Dark squares in every fifth of 40 images, bright ones in all but every third."""
    made = square_tables(tmp_path, images=40, seed=0)
    dark = (pl.col("category_id") == 1) & (pl.col("image_id") % 5 == 0)
    bright = (pl.col("category_id") == 0) & (pl.col("image_id") % 3 != 0)
    return replace(made, boxes=made.boxes.filter(dark | bright))


def expected_factors(tables, groups, share) -> list[float]:
    each = {row: set() for row in tables.images["image_id"].to_list()}
    for image, group in zip(tables.boxes["image_id"], groups):
        each[image].add(group)
    held = Counter(group for own in each.values() for group in own)
    return [max([1.0, *((share / (held[g] / len(each))) ** 0.5 for g in own)]) for own in each.values()]


def test_images_of_rare_classes_are_drawn_more_often_as_in_lvis(tables):
    expected = expected_factors(tables, tables.boxes["category_id"], 0.8)
    often, hardness = weigh_images(tables, SamplingConfig(balance=0.8))
    assert hardness is None
    np.testing.assert_allclose(often, expected)
    assert len(set(expected)) == 3


def test_factors_of_several_groups_are_multiplied(tables):
    small = tables.boxes["w"] * tables.boxes["h"] < 16**2
    wide = tables.boxes.with_columns(w=pl.when(small).then(6 * pl.col("w")).otherwise("w"))
    tables = replace(tables, boxes=wide)
    aspect = np.round(np.log(tables.boxes["w"] / tables.boxes["h"]))
    expected = np.array(expected_factors(tables, aspect, 0.9))
    assert len(set(expected)) > 1
    expected *= expected_factors(tables, tables.boxes["category_id"], 0.9)
    often, _ = weigh_images(tables, SamplingConfig(balance=0.9, by=("class", "aspect")))
    np.testing.assert_allclose(often, expected)
    with pytest.raises(ConfigError, match="slices by 'weather', expected one of size"):
        weigh_images(tables, SamplingConfig(balance=0.9, by=("weather",)))


def test_a_share_of_draws_shows_nothing(tables):
    often, _ = weigh_images(tables, SamplingConfig(balance=0.8, background=0.25))
    empty = ~np.isin(np.arange(40), tables.boxes["image_id"])
    assert 0 < empty.sum() < 20
    np.testing.assert_allclose(often[empty].sum() / often.sum(), 0.25)
    sources = [boxwright.config.data.SourceConfig(root="a")]
    draws = draws_of([40], sources, None, 1, often)
    seen = np.concatenate([draws.epoch(n, 0) for n in range(50)])
    assert abs(empty[seen].mean() - 0.25) < 0.01
    everywhere = [tables.boxes.with_columns(image_id=pl.lit(i, pl.Int64)) for i in range(40)]
    full = replace(tables, boxes=pl.concat(everywhere))
    with pytest.raises(ConfigError, match="each of the 40 training images has an object"):
        weigh_images(full, SamplingConfig(background=0.25))


def found(tables, boxes):
    return replace(tables, boxes=boxes.with_columns(score=pl.lit(0.9)))


def test_errors_of_images_are_lrp(tmp_path):
    truth = square_tables(tmp_path, images=6, seed=0)
    objects = np.bincount(truth.boxes["image_id"], minlength=6)
    assert errors_of_images(truth, found(truth, truth.boxes)).tolist() == [0.0] * 6
    assert errors_of_images(truth, found(truth, truth.boxes.clear())).tolist() == (objects > 0).tolist()
    # In the first image half of each box, whose IoU is 0.5: just found, and as bad as a miss.
    half = truth.boxes.with_columns(w=pl.when(pl.col("image_id") == 0).then(pl.col("w") / 2).otherwise("w"))
    # In the second all twice, in the third none, in the fourth 0.8 of each, in the fifth no score suffices.
    rows = pl.concat([half, half.filter(pl.col("image_id") == 1)]).filter(pl.col("image_id") != 2)
    rows = rows.with_columns(w=pl.when(pl.col("image_id") == 3).then(pl.col("w") * 0.8).otherwise("w"))
    rows = rows.with_columns(score=pl.when(pl.col("image_id") == 4).then(0.1).otherwise(0.9))
    errors = errors_of_images(truth, replace(truth, boxes=rows))
    np.testing.assert_allclose(errors, [1, 0.5, 1, 0.4, 1, 0], atol=1e-6)


def test_images_without_predictions_are_of_mean_hardness(tmp_path):
    truth = square_tables(tmp_path, images=6, seed=0)
    rows = truth.boxes.filter(pl.col("image_id") > 2)
    some = replace(truth, images=truth.images[:4], boxes=rows.filter(pl.col("image_id") == 3))
    boxwright.write(found(some, some.boxes), tmp_path / "found.parquet")
    errors = errors_of_images(truth, tmp_path / "found.parquet")
    np.testing.assert_allclose(errors, [1, 1, 1, 0, 0.75, 0.75])
    often, hardness = weigh_images(truth, SamplingConfig(hard=str(tmp_path / "found.parquet"), gain=2))
    np.testing.assert_allclose(hardness, errors)
    np.testing.assert_allclose(often, 1 + 2 * errors)
    others = replace(truth, images=truth.images.with_columns(file_name="other" + pl.col("file_name")))
    with pytest.raises(DataError, match="none of its 6 images is one of training"):
        errors_of_images(truth, found(others, others.boxes))


def test_images_that_people_corrected_are_drawn_more_often(tmp_path):
    from boxwright.labeling.corrections import corrections
    from boxwright.labeling.store import Change, Store

    labels = square_tables(tmp_path, images=4, seed=0)
    store = Store(tmp_path / "review.sqlite", labels)
    names = ("category_id", "x", "y", "w", "h", "angle")
    moved, gone = store.boxes(0)[0], store.boxes(1)[0]
    after = {name: moved[name] for name in names}
    after["x"] += moved["w"] / 2  # an IoU of 1/3 with what was there
    store.act(Change("a" * 8, "ada", 0, box_id=moved["box_id"], after=after))
    store.act(Change("b" * 8, "ada", 1, box_id=gone["box_id"]))
    store.act(Change("c" * 8, "ada", 2, after=after))
    table = tmp_path / "corrections.parquet"
    corrections(store).write_parquet(table)
    often, _ = weigh_images(store.tables(), SamplingConfig(corrected=str(table), gain=3))
    np.testing.assert_allclose(often, [1 + 3 * (2 / 3) / 2, 1 + 3 / 2, 1 + 3 / 3, 1])
    image, center = places_of_corrections(store.tables(), table)
    assert image.tolist() == [0, 1, 2]
    middle = [after["x"] + after["w"] / 2, after["y"] + after["h"] / 2]
    was = [gone["x"] + gone["w"] / 2, gone["y"] + gone["h"] / 2]
    np.testing.assert_allclose(center, [middle, was, middle])
    others = replace(labels, images=labels.images.with_columns(file_name="other" + pl.col("file_name")))
    with pytest.raises(DataError, match="none of its 3 images is one of training"):
        weigh_images(others, SamplingConfig(corrected=str(table)))
    labels.boxes.write_parquet(tmp_path / "boxes.parquet")
    with pytest.raises(DataError, match="not the corrections of"):
        weigh_images(labels, SamplingConfig(corrected=str(tmp_path / "boxes.parquet")))


def test_what_would_be_read_and_ignored_is_refused():
    with pytest.raises(ValueError, match="curriculum needs hard"):
        SamplingConfig(curriculum=0.3)
    with pytest.raises(ValueError, match="gain 2 needs hard or corrected"):
        SamplingConfig(gain=2)
    with pytest.raises(ValueError, match="by: size needs balance"):
        SamplingConfig(by=("size",))
