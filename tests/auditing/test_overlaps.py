"""Pieces of one place, cut out of a large picture with a known shift, turn and scale, are found as that."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from boxwright.auditing import overlaps
from boxwright.auditing.fingerprints import fingerprint
from boxwright.auditing.images import audit_images
from boxwright.auditing.overlaps import find_overlaps, find_places
from boxwright.data import formats
from boxwright.data.splitting import split
from tests.auditing.test_image_audit import tables
from tests.cli.test_cli import run

SIZE = (320, 240)


def ground(seed, size=(900, 900)):
    """A place from above: patches, roads and specks, no two seeds alike."""
    rng = np.random.default_rng(seed)
    pixels = cv2.resize(
        rng.integers(60, 180, (12, 12, 3), dtype=np.uint8), size, interpolation=cv2.INTER_CUBIC
    )
    for _ in range(260):
        x, y = rng.integers(0, size[0], 2).tolist()
        w, h = rng.integers(5, 40, 2).tolist()
        box = cv2.boxPoints(((x, y), (w, h), rng.uniform(0, 180)))
        cv2.fillPoly(pixels, [np.rint(box).astype(np.int32)], rng.integers(0, 256, 3).tolist())
    return pixels


def piece(pixels, x, y, turned=0.0, scale=1.0):
    """What is seen of a place: its point (x, y) in the middle, turned clockwise, so many times as large."""
    move = cv2.getRotationMatrix2D((x, y), -turned, scale)
    move[:, 2] += np.array(SIZE) / 2 - (x, y)
    return cv2.warpAffine(pixels, move, SIZE)


def saved(folder, pictures):
    paths = []
    for n, pixels in enumerate(pictures):
        paths.append(str(folder / f"{n}.png"))
        cv2.imwrite(paths[-1], pixels)
    return paths


def points(paths):
    return fingerprint(paths, [None] * len(paths), points=True).points


@pytest.mark.parametrize(
    ("moved", "turned", "scale", "share"),
    [
        ((160, 0), 0, 1.0, 0.5),
        ((100, 80), 0, 1.0, 220 / 320 * 160 / 240),
        ((0, 0), 90, 1.0, 1.0 * 240 / 320),
        ((0, 0), 0, 1.3, 1.0),
        ((0, 0), 0, 0.7, 0.49),
        ((40, 10), -35, 1.2, None),
    ],
)
def test_a_piece_of_a_place_is_found_as_it_was_moved(tmp_path, moved, turned, scale, share):
    place = ground(0)
    second = piece(place, 450 + moved[0], 450 + moved[1], turned, scale)
    others = [piece(ground(seed), 450, 450) for seed in range(1, 12)]
    paths = saved(tmp_path, [*others[:6], piece(place, 450, 450), *others[6:], second])
    found = find_overlaps(points(paths), [0] * 9 + [1] * (len(paths) - 9))
    assert found.select("first", "second").rows() == [(6, len(paths) - 1)]
    row = found.row(0, named=True)
    assert row["points"] >= overlaps.AGREED
    assert row["turned"] == pytest.approx(turned, abs=1)
    assert row["scale"] == pytest.approx(scale, rel=0.02)
    if share is not None:
        assert row["share"] == pytest.approx(share, abs=0.03)


def test_each_image_has_the_one_that_shows_most_of_it(tmp_path):
    place = ground(0)
    first = [piece(place, 300, 450), piece(place, 420, 450), piece(place, 700, 450)]
    paths = saved(tmp_path, [*first, piece(place, 450, 450), np.full((240, 320, 3), 90, np.uint8)])
    found = find_overlaps(points([*paths, None]), [0, 0, 0, 1, 1, 1])
    assert found.select("first", "second").rows() == [(1, 3)]
    assert not len(find_overlaps(points(paths), [0] * 5))
    assert not len(find_overlaps([], []))


@pytest.mark.parametrize("count", [0, 1, 2, 24])
def test_images_of_few_key_points_are_looked_at(tmp_path, count):
    known = points(saved(tmp_path, [piece(ground(0), 450, 450)]))[0]
    few = overlaps.Points(known.places[:count], known.descriptors[:count], known.size)
    for images in ([few, few], [known, few], [few, known]):
        assert not len(find_overlaps(images, [0, 1]))
    same = replace(known)
    assert find_overlaps([few, known, same], [0, 0, 1]).select("first", "second").rows() == [(1, 2)]


def test_images_of_other_parts_alone_are_told_and_leaks_are_leaks(tmp_path):
    place, other = ground(0), ground(1)
    seen = [piece(place, 300, 450), piece(place, 400, 450)]
    later = [piece(place, 480, 470, 10), piece(place, 300, 450), piece(other, 450, 450)]
    train = tables(tmp_path, "train", [Image.fromarray(pixels) for pixels in seen])
    val = tables(tmp_path, "val", [Image.fromarray(pixels) for pixels in later])
    found = audit_images({"train": train, "val": val})
    assert found.select("kind", "severity", "part", "file_name").rows() == [
        ("leak", "error", "val", "001.png"),
        ("overlap", "warning", "val", "000.png"),
    ]
    detail = found["detail"][1]
    assert " of it is in 001.png of train (turned by 10 degrees): " in detail
    assert detail.endswith(" key points agree")
    assert audit_images({"train": train, "val": val}, overlaps=False)["kind"].to_list() == ["leak"]


@pytest.mark.parametrize("block", [2000, 4])
def test_images_that_overlap_are_of_one_place_and_of_one_part(tmp_path, monkeypatch, block):
    monkeypatch.setattr(overlaps, "BLOCK", block)
    places = [ground(seed) for seed in range(6)]
    pictures = [piece(place, x, 450) for x in (370, 450, 530) for place in places]
    paths = [*saved(tmp_path, pictures), None]
    found = find_places(points(paths))
    assert len(set(found)) == 7
    for n in range(6):
        assert len(set(found[n:18:6])) == 1  # the first and the last by way of the second
    table = tables(tmp_path, "all", [Image.fromarray(pixels) for pixels in pictures])
    parts = split(table, {"train": 0.67, "val": 0.33}, groups=found[:18])
    names = [{int(name[:3]) % 6 for name in part.images["file_name"]} for part in parts.values()]
    assert [len(part.images) for part in parts.values()] == [12, 6]
    assert not names[0] & names[1]


def test_split_keeps_places_together_from_the_command_line(tmp_path):
    places = [ground(seed) for seed in range(3)]
    pictures = [Image.fromarray(piece(place, x, 450)) for x in (400, 500) for place in places]
    formats.write(tables(tmp_path, "all", pictures), tmp_path / "all.parquet")
    words = ["data", "split", tmp_path / "all.parquet", "-o", tmp_path / "parts", "--to", "parquet"]
    told = run(*words, "--shares", "train=0.7,val=0.3", "--together", "places").stdout
    assert "3 places of 6 images, 2 of one at most" in told
    val = formats.read(tmp_path / "parts/val.parquet").images["file_name"].to_list()
    assert len(val) == 2
    assert (int(val[1][:3]) - int(val[0][:3])) == 3
