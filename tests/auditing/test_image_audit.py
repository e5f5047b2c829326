"""Doubles, leaks and pictures of little use among images that were made so."""

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageFilter

from boxwright.auditing import duplicates
from boxwright.auditing.duplicates import find_duplicates
from boxwright.auditing.fingerprints import ORIENTATIONS, fingerprint, oriented, oriented_hashes
from boxwright.auditing.images import audit_images
from boxwright.data.builder import TableBuilder


def picture(seed, size=(96, 72)):
    """Some blobs under noise: no two seeds alike."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize(size, Image.Resampling.BICUBIC), dtype=int)
    noise = rng.integers(-20, 21, smooth.shape)
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))


TURNS = (
    None,
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.ROTATE_180,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,  # counterclockwise
    Image.Transpose.ROTATE_90,
    Image.Transpose.TRANSVERSE,
)


def looked_at(folder, pictures):
    paths = []
    for n, one in enumerate(pictures):
        paths.append(str(folder / f"{n:03d}.png"))
        one.save(paths[-1])
    return fingerprint(paths, [None] * len(paths))


@pytest.mark.parametrize("turn", range(len(TURNS)), ids=ORIENTATIONS)
def test_turned_pictures_are_found_and_named(tmp_path, turn):
    first = picture(0)
    moved = first if TURNS[turn] is None else first.transpose(TURNS[turn])
    second = moved.resize((moved.width * 2, moved.height * 2)).filter(ImageFilter.GaussianBlur(1))
    prints = looked_at(tmp_path, [first, *(picture(n) for n in range(1, 20)), second])
    found = find_duplicates(prints)
    assert found.select("first", "second", "exact").rows() == [(0, 20, False)]
    assert found["orientation"][0] == ORIENTATIONS[turn]
    assert found["similarity"][0] > 0.98


def test_hashes_of_turned_pictures_are_turned_hashes(tmp_path):
    prints = looked_at(tmp_path, [picture(0)])
    for turn in range(8):
        moved = Image.fromarray(oriented(prints.thumbnails[0], turn))
        again = looked_at(tmp_path, [moved])
        apart = int(again.hashes[0]) ^ int(oriented_hashes(prints.hashes)[0, turn])
        assert apart.bit_count() <= 1


def test_the_same_file_is_exact(tmp_path):
    prints = looked_at(tmp_path, [picture(0), picture(1), picture(0)])
    assert find_duplicates(prints).rows() == [(0, 2, True, "same", 1.0)]


@pytest.mark.parametrize("count", [0, 1, 400])
def test_near_hashes_are_those_of_a_loop(count):
    rng = np.random.default_rng(0)
    centers = rng.integers(0, 2**63, 30, dtype=np.uint64)
    hashes = centers[rng.integers(0, 30, count)]
    for _ in range(4):
        hashes = hashes ^ (np.uint64(1) << rng.integers(1, 64, count).astype(np.uint64))
    every = oriented_hashes(hashes)
    expected = {
        (a, b, turn)
        for b in range(count)
        for a in range(b)
        for turn in range(8)
        if (int(every[b, turn]) ^ int(every[a, 0])).bit_count() <= duplicates.BITS
    }
    found = duplicates._near(np.ascontiguousarray(every))
    assert len(found) == len(expected)
    assert {tuple(row) for row in found.tolist()} == expected


def tables(folder, name, pictures, names=None, boxes=True):
    builder = TableBuilder(name)
    builder.category("thing")
    (folder / name).mkdir()
    for n, one in enumerate(pictures):
        path = folder / name / (names[n] if names else f"{n:03d}.png")
        if one is not None:
            one.save(path)
        image = builder.image(path.name, str(path), *((96, 72) if one is None else one.size))
        if boxes:
            builder.box((name, n), image, 0, (5, 5, 20, 20))
    return builder.build()


def test_parts_are_compared(tmp_path):
    train = [picture(n) for n in range(12)]
    train[3] = train[3].filter(ImageFilter.GaussianBlur(9))
    train[4] = train[4].point(lambda value: value // 14)
    train[5] = Image.new("RGB", (96, 72), (90, 90, 90))
    train[6] = train[7].copy()
    val = [picture(100 + n) for n in range(5)] + [train[1].transpose(TURNS[1]), None]
    parts = {"train": tables(tmp_path, "train", train), "val": tables(tmp_path, "val", val)}
    (tmp_path / "val" / "000.png").write_bytes(b"no picture")
    found = audit_images(parts)
    by_kind = {
        kind: own.select("part", "file_name").rows()
        for (kind,), own in found.group_by("kind", maintain_order=True)
    }
    assert by_kind == {
        "unreadable": [("val", "000.png"), ("val", "006.png")],
        "leak": [("val", "005.png")],
        "duplicate": [("train", "007.png")],
        "blurred": [("train", "003.png")],
        "flat": [("train", "005.png")],
        "dark": [("train", "004.png")],
    }
    leak = found.row(by_predicate=pl.col("kind") == "leak", named=True)
    assert (leak["other_part"], leak["other"], leak["severity"]) == ("train", "001.png", "error")
    assert leak["detail"].startswith("mirrored left to right as 001.png of train, similarity 0.99") or (
        leak["detail"].startswith("mirrored left to right as 001.png of train, similarity 1.0")
    )


def test_sizes_and_empty_images_are_told(tmp_path):
    own = tables(tmp_path, "all", [picture(n) for n in range(6)], boxes=False)
    wrong = own.images.with_columns(
        width=pl.when(pl.col("image_id") == 2).then(50).otherwise("width").cast(pl.Int32)
    )
    found = audit_images({"all": type(own)(wrong, own.boxes, own.categories)})
    assert found["kind"].to_list() == ["unreadable"] + ["empty"] * 6
    assert "96 x 72, its annotation says 50 x 72" in found["detail"][0]


def test_cut_sequences_are_told(tmp_path):
    base = np.asarray(picture(0, (200, 72)))
    frames = [Image.fromarray(base[:, 3 * n : 3 * n + 96]) for n in range(20)]
    names = [f"flight-{n:02d}.png" for n in range(20)]
    train = tables(tmp_path, "train", frames[::2], names[::2])
    val = tables(tmp_path, "val", frames[1::2], names[1::2])
    found = audit_images({"train": train, "val": val}).filter(pl.col("kind") == "cut sequence")
    assert found["detail"].to_list() == [
        "19 of 19 neighbours of the sequence flight-* are in different parts"
    ]
    apart = [picture(n) for n in range(20)]  # numbered, but no sequence
    other = tmp_path / "other"
    other.mkdir()
    parts = {
        "train": tables(other, "train", apart[::2], names[::2]),
        "val": tables(other, "val", apart[1::2], names[1::2]),
    }
    assert not len(audit_images(parts))
