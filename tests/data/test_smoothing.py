"""Angles along tracks: flips of the spelling go, fronts follow the way, noise is averaged."""

import numpy as np
import polars as pl
import pytest

import boxwright
from boxwright.data.builder import TableBuilder, pack
from boxwright.data.smoothing import smooth_angles
from boxwright.errors import ConfigError, DataError
from tests.cli.test_cli import run


def drive(seed: int = 0, noise: float = 0.08, speed: float = 6.0):
    """A car on a bend as a detector of rectangles sees it, noisy, in any spelling; and its true headings."""
    rng = np.random.default_rng(seed)
    heading = np.linspace(0.3, 2.6, 40)
    way = np.cumsum(speed * np.stack([np.cos(heading), np.sin(heading)], 1), axis=0) + 300
    builder = TableBuilder("drive", "radians", headings=True)
    category = builder.category("car")
    for n, (place, angle) in enumerate(zip(way, heading)):
        image = builder.image(f"clip/{n:03d}.jpg", None, 800, 800)
        quarters = int(rng.integers(0, 4))
        sides = (40.0, 18.0) if quarters % 2 == 0 else (18.0, 40.0)
        spelled = (*place, *sides, angle + quarters * np.pi / 2 + rng.normal(0, noise))
        builder.box(("frame", n), image, category, spelled, attributes={"track_id": 7})
        builder.box(("frame", n), image, category, (10.0, 10.0, 5.0, 5.0))  # parked, without angle or track
    return builder.build(), heading


def errors(tables, heading: np.ndarray) -> np.ndarray:
    angle = tables.boxes["angle"].drop_nulls().to_numpy()
    return np.abs((angle - heading + np.pi) % (2 * np.pi) - np.pi)


@pytest.mark.parametrize("seed", range(5))
def test_flips_go_and_noise_is_less(seed):
    tables, heading = drive(seed)
    smooth = smooth_angles(tables, 2.0)
    assert errors(tables, heading).max() > 1.4
    assert errors(smooth, heading).max() < 0.2
    spelled = smooth_angles(tables, 0)
    assert errors(spelled, heading).max() < 0.4
    assert errors(smooth, heading).mean() < 0.7 * errors(spelled, heading).mean()
    oriented = smooth.boxes.filter(smooth.boxes["angle"].is_not_null())
    assert oriented["w"].unique().to_list() == [40.0]
    # Centres, and boxes without a track, are left alone.
    assert np.allclose(smooth.rotated()[:, :2], tables.rotated()[:, :2])
    assert smooth.boxes.filter(smooth.boxes["angle"].is_null()).equals(
        tables.boxes.filter(tables.boxes["angle"].is_null())
    )


def test_a_car_that_stands_still_keeps_its_side():
    tables, heading = drive(1, speed=0.0)
    smooth = smooth_angles(tables)
    off = errors(smooth, heading)
    assert np.minimum(off, np.pi - off).max() < 0.2
    assert smooth_angles(tables, headings=False).boxes["angle"].abs().max() <= np.pi / 2


def test_tracks_of_two_videos_and_classes_are_apart():
    first, heading = drive(2)
    names = pl.Series(
        [n.replace("clip", "other") if k % 2 else n for k, n in enumerate(first.images["file_name"])]
    )
    apart = boxwright.data.tables.Tables(
        first.images.with_columns(file_name=names), first.boxes, first.categories
    )
    assert errors(smooth_angles(apart), heading).max() < 0.35


def test_what_has_no_track_is_told():
    tables, _ = drive()
    with pytest.raises(ConfigError, match="window -1"):
        smooth_angles(tables, -1)
    none = pl.Series([pack({"colour": "red"})] * len(tables.boxes), dtype=pl.String)
    with pytest.raises(DataError, match="no oriented box has an attribute 'track_id'"):
        smooth_angles(tables.with_boxes(tables.boxes.with_columns(attributes=none)))


def test_smoothing_from_the_command_line(tmp_path):
    tables, heading = drive(3)
    boxwright.write(tables, tmp_path / "a.parquet")
    run("data", "smooth", tmp_path / "a.parquet", tmp_path / "b.parquet", "--window", "2")
    assert errors(boxwright.read(tmp_path / "b.parquet"), heading).max() < 0.2
