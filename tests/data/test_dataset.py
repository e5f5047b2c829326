"""What a detector trains on: padded, masked, deterministic, and never at the cost of the tables."""

import numpy as np
import pytest
import torch
from polars.testing import assert_frame_equal

from boxwright.config.experiment import AugmentConfig
from boxwright.data.dataset import DetectionDataset, EpochSampler, collate
from boxwright.data.transforms import invert, transform_boxes
from boxwright.errors import DataError
from tests.scenes import small_tables

AUGMENT = AugmentConfig(flip_vertical=0.5, quarter_turn=0.5, rotate=10, scale=(0.5, 1.5))


def test_two_epochs_leave_the_tables_bit_for_bit_the_same(tmp_path):
    tables = small_tables(tmp_path)
    before = [t.clone() for t in (tables.images, tables.boxes, tables.categories)]
    numbers = tables.boxes.select("x", "y", "w", "h", "area").to_numpy().copy()
    dataset = DetectionDataset(tables, (64, 64), AUGMENT, cache_bytes=1 << 20)
    dataset.fill_cache()
    for epoch in range(2):
        for index in range(len(dataset)):
            dataset[epoch, index]
    for table, copy in zip((tables.images, tables.boxes, tables.categories), before):
        assert_frame_equal(table, copy, check_exact=True)
    assert numbers.tobytes() == tables.boxes.select("x", "y", "w", "h", "area").to_numpy().tobytes()


def test_boxes_come_home_by_the_sample_s_matrix(tmp_path):
    tables = small_tables(tmp_path)
    sample = DetectionDataset(tables, (50, 50))[0]
    home = transform_boxes(sample.boxes, invert(sample.matrix))
    assert home == pytest.approx(np.array([[10, 12, 30, 28], [40.5, 8.25, 53, 38.25]]), abs=1e-3)


def test_a_sample_depends_on_seed_epoch_and_image_alone(tmp_path):
    tables = small_tables(tmp_path)
    one, two = (DetectionDataset(tables, (64, 64), AUGMENT, seed=3) for _ in range(2))
    one[0, 0], one[5, 1]  # what came before doesn't matter
    a, b = one[2, 1], two[2, 1]
    assert np.array_equal(a.pixels, b.pixels)
    assert np.array_equal(a.boxes, b.boxes)
    assert not np.array_equal(a.pixels, one[3, 1].pixels)


def test_the_cache_changes_nothing_and_keeps_its_budget(tmp_path):
    tables = small_tables(tmp_path)
    plain, cached = DetectionDataset(tables, (64, 64), AUGMENT), DetectionDataset(tables, (64, 64), AUGMENT)
    cached.cache_bytes = 2 * 64 * 43 * 3
    assert cached.fill_cache() == 2
    for index in range(3):
        assert np.array_equal(plain[1, index].pixels, cached[1, index].pixels)


def test_every_broken_image_is_counted_and_named(tmp_path):
    tables = small_tables(tmp_path)
    for name in ("000.png", "002.png"):
        (tmp_path / "images" / name).write_bytes(b"broken")
    with pytest.raises(DataError, match=r"(?s)2 images.*000\.png.*002\.png"):
        DetectionDataset(tables, (64, 64), cache_bytes=1 << 20).fill_cache()


def test_a_batch_is_padded_and_masked(tmp_path):
    tables = small_tables(tmp_path)
    dataset = DetectionDataset(tables, (96, 96))
    batch = collate([dataset[i] for i in range(3)])
    assert batch.images.shape == (3, 3, 64, 96)
    assert batch.images.dtype == torch.uint8
    assert batch.targets.boxes.shape == (3, 2, 4)
    assert batch.targets.mask.tolist() == [[True, True], [True, True], [False, False]]
    assert batch.sizes.tolist() == [[96, 64]] * 3


def test_a_box_that_a_crop_leaves_little_of_is_ignored_not_background(tmp_path):
    tables = small_tables(tmp_path)
    zoom = AugmentConfig(scale=(3.0, 3.0), min_visible=0.6)
    ignored = kept = 0
    for epoch in range(30):
        sample = DetectionDataset(tables, (96, 64), zoom)[epoch, 1]
        for box, ignore in zip(sample.boxes, sample.ignore):
            ignored, kept = ignored + ignore, kept + (not ignore)
            assert (box >= 0).all()
            assert (box <= [96, 64, 96, 64]).all()
    assert ignored > 0
    assert kept > 0


def test_processes_share_an_epoch_without_overlap_in_the_order_of_one():
    alone = list(EpochSampler(10, seed=1))
    first, second = (list(EpochSampler(10, seed=1, rank=r, world=2)) for r in (0, 1))
    assert [pair for both in zip(first, second) for pair in both] == alone
    sampler = EpochSampler(10, seed=1)
    sampler.set_epoch(0, start=4)
    assert list(sampler) == alone[4:]
