"""Oriented boxes on their way to a network: exact under turns, visible parts, what is ignored, how tight."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import Polygon, box

from boxwright.config.augment import AugmentConfig
from boxwright.config.data import SourceConfig
from boxwright.data import formats
from boxwright.data.dataset import Corrected, DetectionDataset, collate
from boxwright.data.oriented import fit_error
from boxwright.data.sources import load_sources, select_classes
from boxwright.data.transforms import (
    random_matrix,
    transform_points,
    transform_rotated,
    visible_part,
)
from boxwright.errors import ConfigError
from boxwright.geometry.conventions import corners
from tests.scenes import oriented_tables, small_tables

TURNS = AugmentConfig(rotate=180, scale=(0.5, 2.0), flip_horizontal=0.5, flip_vertical=0.5, quarter_turn=0.5)
sides = st.floats(0.5, 80)
places = st.floats(-60, 160)


@given(places, places, sides, sides, st.floats(-7, 7))
@settings(max_examples=300, deadline=None)
def test_the_visible_part_is_that_of_the_polygons(cx, cy, w, h, angle):
    shape = np.array([[cx, cy, w, h, angle]])
    (hull,), (share,) = visible_part(shape, (100, 60))
    part = Polygon(corners(shape)[0]).intersection(box(0, 0, 100, 60))
    assert share == pytest.approx(part.area / (w * h), abs=1e-6)
    if part.area > 1e-3:
        assert np.allclose(hull, part.bounds, atol=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_truth_stays_tight_at_any_angle(seed):
    rng = np.random.default_rng(seed)
    columns = [rng.uniform(0, 90, (30, 2)), rng.uniform(2, 40, (30, 2)), rng.uniform(-4, 4, (30, 1))]
    boxes = np.concatenate(columns, axis=1)
    matrix = random_matrix((96, 64), (80, 80), TURNS, rng)
    moved = transform_rotated(boxes, np.ones(30, dtype=bool), matrix)
    assert fit_error(transform_points(corners(boxes), matrix), moved).max() < 1e-9
    # The width still points where it pointed: a front stays a front.
    ahead = transform_points(boxes[:, :2] + np.stack([np.cos(boxes[:, 4]), np.sin(boxes[:, 4])], 1), matrix)
    ahead -= transform_points(boxes[:, :2], matrix)
    assert np.allclose(np.arctan2(ahead[:, 1], ahead[:, 0]), moved[:, 4])
    # The upright truth is the hull of the oriented one, as tight as a hull can be.
    hulls, _ = visible_part(moved + np.array([500, 500, 0, 0, 0]), (1000, 1000))
    points = transform_points(corners(boxes), matrix) + 500
    assert np.allclose(hulls, np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1))


def test_an_oriented_and_an_upright_box_in_one_batch(tmp_path):
    tables = oriented_tables(tmp_path)
    angles = tables.boxes["angle"].to_list()
    angles[0] = None
    tables = tables.with_boxes(tables.boxes.with_columns(angle=pl.Series(angles, dtype=pl.Float64)))
    batch = collate([DetectionDataset(tables, (96, 96), TURNS)[(0, n)] for n in range(3)])
    targets = batch.targets
    wanted = targets.mask | targets.ignore
    assert targets.oriented[0].tolist()[: int(wanted[0].sum())].count(False) <= 1
    assert targets.oriented[1:][wanted[1:]].all()
    upright = targets.rotated[wanted & ~targets.oriented]
    hulls = targets.boxes[wanted & ~targets.oriented]
    assert np.allclose(upright[:, :2] - upright[:, 2:4] / 2, hulls[:, :2], atol=1e-4)
    assert (upright[:, 4] == 0).all()


@pytest.mark.parametrize("cut", ["mark", "drop"])
def test_cut_objects_are_marked_or_dropped_by_the_share_inside(cut, tmp_path):
    tables = oriented_tables(tmp_path, images=20)
    augment = AugmentConfig(scale=(2.0, 3.0), min_visible=0.6, cut=cut)
    dataset = DetectionDataset(tables, (96, 96), augment)
    ignored = kept = 0
    for n in range(20):
        sample = dataset[(0, n)]
        _, inside = visible_part(sample.rotated, (96, 96))
        assert (sample.ignore == (inside < 0.6)).all()
        ignored += sample.ignore.sum()
        kept += len(sample.boxes)
    assert kept > 5
    assert (ignored > 3) == (cut == "mark")


def test_a_crop_with_focus_holds_an_object(tmp_path):
    tables = oriented_tables(tmp_path, images=10, size=400)
    focused = AugmentConfig(scale=(1.0, 1.0), crop=(64, 64), focus=1.0)
    anywhere = AugmentConfig(scale=(1.0, 1.0), crop=(64, 64))
    found = {}
    for name, augment in (("focused", focused), ("anywhere", anywhere)):
        samples = [DetectionDataset(tables, (400, 400), augment)[(e, n)] for n in range(10) for e in range(5)]
        assert {s.pixels.shape for s in samples} == {(64, 64, 3)}
        found[name] = np.mean([len(s.boxes) > 0 for s in samples])
    assert found["focused"] == 1
    assert found["anywhere"] < 0.9


def test_crops_lie_around_what_people_corrected(tmp_path):
    tables = oriented_tables(tmp_path, 1, 256)
    corrected = Corrected(np.array([0]), np.array([[30.0, 220.0]]), gain=3.0)
    focused = AugmentConfig(scale=(1.0, 1.0), crop=(48, 48), focus=1.0, flip_horizontal=0.0)
    shares = []
    for own in (corrected, None):
        dataset = DetectionDataset(tables, (256, 256), focused, corrected=own)
        places = [transform_points(corrected.center, dataset[epoch, 0].matrix)[0] for epoch in range(200)]
        shares.append(np.mean([((place > 0) & (place < 48)).all() for place in places]))
    assert 0.65 < shares[0] < 0.9
    assert shares[1] < 0.4


def test_ignored_classes_become_regions_of_every_class(tmp_path):
    tables = small_tables(tmp_path)
    chosen, left_out = select_classes(tables, ["cat"], ["dog"])
    assert left_out == {}
    assert chosen.boxes["ignore"].to_list() == [False, True, False, True]
    assert (chosen.boxes["category_id"] == 0).all()
    both, _ = select_classes(oriented_tables(tmp_path), ["bright", "dark"])
    assert not both.boxes["ignore"].any()
    with pytest.raises(ConfigError, match="'dog' is both a class and ignored"):
        select_classes(tables, ["cat", "dog"], ["dog"])


def test_a_source_that_is_too_loose_is_tightened(tmp_path):
    tables = oriented_tables(tmp_path)
    formats.write(tables, tmp_path / "t.parquet")
    (tight,) = load_sources(SourceConfig(root=str(tmp_path / "t.parquet"), tightness=(0.9, 0.8)))
    own, new = tables.rotated(), tight.rotated()
    assert np.allclose(new[:, :2], own[:, :2])
    assert np.allclose(new[:, 2:4], own[:, 2:4] * [0.9, 0.8])
    assert np.allclose(tight.boxes["area"], tables.boxes["area"] * 0.72)
