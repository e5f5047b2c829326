"""What a detector trains on: padded, masked, deterministic, and never at the cost of the tables."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from polars.testing import assert_frame_equal

from boxwright.config.augment import AugmentConfig
from boxwright.data.dataset import DetectionDataset, collate
from boxwright.data.sampling import EpochSampler
from boxwright.data.transforms import invert, transform_boxes
from boxwright.errors import DataError
from boxwright.geometry.conventions import corners
from tests.scenes import oriented_tables, small_tables, square_tables

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


PLAIN = {"brightness": 0.0, "contrast": 0.0, "color": 0.0, "rotate": 20.0, "quarter_turn": 0.5}


def brightness_inside(sample) -> list[tuple[int, float]]:
    """Of each whole object of an image, its label and how bright it is inside."""
    found = []
    for box, label, ignore in zip(sample.rotated, sample.labels, sample.ignore):
        if ignore or min(box[2:4]) < 4:
            continue
        inner = corners(np.array([[*box[:2], *(0.6 * box[2:4]), box[4]]]))[0]
        mask = np.zeros(sample.pixels.shape[:2], dtype=np.uint8)
        cv2.fillConvexPoly(mask, np.rint(inner - 0.5).astype(np.int32), 1)
        found.append((int(label), float(sample.pixels[mask > 0].mean())))
    return found


@pytest.mark.parametrize("tiles", [(2, 2), (3, 1), (2, 4)])
def test_objects_of_a_mosaic_lie_where_their_boxes_are(tmp_path, tiles):
    tables = oriented_tables(tmp_path, images=6)
    augment = AugmentConfig(mosaic=1.0, mosaic_tiles=tiles, min_visible=0.9, **PLAIN)
    dataset = DetectionDataset(tables, (96, 96), augment)
    alone = DetectionDataset(tables, (96, 96), AugmentConfig(min_visible=0.9, **PLAIN))
    bright, counts = [], []
    for epoch in range(10):
        sample = dataset[epoch, 0]
        assert sample.pixels.shape == (96, 96, 3)
        assert len(sample.boxes) == len(sample.labels) == len(sample.landmarks)
        assert (sample.boxes >= 0).all()
        assert (sample.boxes <= 96).all()
        bright += brightness_inside(sample)
        counts.append(len(sample.labels))
    assert len(bright) > 20
    # A bar's front is marked by a grey spot.
    assert all(value > 190 if label == 0 else value < 70 for label, value in bright)
    assert np.mean(counts) > 1.5 * np.mean([len(alone[epoch, 0].labels) for epoch in range(10)])


def test_a_mosaic_has_as_many_images_as_tiles(tmp_path):
    tables = square_tables(tmp_path, images=9)
    for tiles in ((1, 2), (2, 2), (3, 2), (4, 4)):
        augment = AugmentConfig(mosaic=1.0, mosaic_tiles=tiles, pipeline="none", min_visible=0.0)
        dataset = DetectionDataset(tables, (128, 128), augment)
        drawn = []
        honest = dataset._augmented
        dataset._augmented = lambda index, size, *rest, own=drawn, make=honest: (
            own.append(size) or make(index, size, *rest)
        )
        dataset[0, 0]
        assert len(drawn) == tiles[0] * tiles[1]
        assert sum(w * h for w, h in drawn) == 128 * 128
        assert {w for w, _ in drawn} == {w for w, _ in drawn[: tiles[0]]}
    with pytest.raises(ValueError, match="expected at least two tiles"):
        AugmentConfig(mosaic=1.0, mosaic_tiles=(1, 1))


def test_a_batch_of_another_size_has_its_boxes_where_objects_are(tmp_path):
    dataset = DetectionDataset(oriented_tables(tmp_path, images=6), (96, 96))
    batch = collate([dataset[i] for i in range(6)])
    for factor, side in ((0.5, 64), (1.0, 96), (1.4, 160)):
        scaled = batch.scaled(factor, 32, 0)
        assert scaled.images.shape == (6, 3, side, side)
        assert scaled.images.dtype == torch.uint8
        assert scaled.sizes.tolist() == [[round(96 * factor)] * 2] * 6
        checked = 0
        for n, pixels in enumerate(scaled.images):
            sample = replace(
                dataset[n],
                pixels=pixels.permute(1, 2, 0).numpy(),
                rotated=scaled.targets.rotated[n].double().numpy(),
                ignore=~scaled.targets.mask[n].numpy(),
            )
            for label, value in brightness_inside(sample):
                assert value > 190 if label == 0 else value < 70
                checked += 1
        assert checked >= 6
        back = torch.from_numpy(np.stack([invert(m) for m in scaled.matrices.numpy()]))
        home = torch.from_numpy(np.stack([invert(m) for m in batch.matrices.numpy()]))
        at = [
            torch.einsum("nij,ngj->ngi", m[..., :2], t.rotated[..., :2].double()) + m[:, None, :, 2]
            for m, t in ((back, scaled.targets), (home, batch.targets))
        ]
        assert torch.allclose(*at, atol=1e-4)
    least = batch.scaled(0.5, 32, 128)
    assert least.images.shape[-2:] == (128, 128)
    assert (least.images[..., 48:] == 114).all()


def test_two_images_are_seen_through_each_other(tmp_path):
    tables = square_tables(tmp_path, images=6)
    sample = DetectionDataset(tables, (64, 64), AugmentConfig(mixup=1.0, scale=(1.0, 1.0), **PLAIN))[3, 0]
    assert len(sample.labels) == 4
    plain = DetectionDataset(tables, (64, 64), AugmentConfig(scale=(1.0, 1.0), **PLAIN))[3, 0]
    assert np.allclose(sample.boxes[:2], plain.boxes)
    away = np.abs(sample.pixels.astype(float) - plain.pixels)
    assert away.max() < 0.6 * 255
    assert away.mean() > 5


def test_the_last_epochs_are_plain(tmp_path):
    tables = square_tables(tmp_path, images=4)
    mixed = DetectionDataset(tables, (64, 64), AugmentConfig(mosaic=1.0, mixup=1.0, **PLAIN), mixed_epochs=3)
    plain = DetectionDataset(tables, (64, 64), AugmentConfig(**PLAIN))
    assert len(mixed[2, 0].labels) > 2
    for index in range(4):
        assert np.array_equal(mixed[3, index].pixels, plain[3, index].pixels)


def test_processes_share_an_epoch_without_overlap_in_the_order_of_one():
    alone = list(EpochSampler(10, seed=1))
    first, second = (list(EpochSampler(10, seed=1, rank=r, world=2)) for r in (0, 1))
    assert [pair for both in zip(first, second) for pair in both] == alone
    sampler = EpochSampler(10, seed=1)
    sampler.set_epoch(0, start=4)
    assert list(sampler) == alone[4:]
