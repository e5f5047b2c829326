"""Every kind of image file has a defined reading. The oracle is what was written."""

import numpy as np
import pytest
from PIL import Image

from boxwright.data.images import image_size, load_image
from boxwright.errors import DataError

GREY = np.tile(np.arange(0, 240, 10, dtype=np.uint8), (16, 1))  # (16, 24)
RGB = np.stack([GREY, GREY // 2, 255 - GREY], axis=2)


def test_grey_is_repeated_to_three_channels(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    assert np.array_equal(load_image(tmp_path / "a.png"), np.repeat(GREY[..., None], 3, axis=2))


def test_sixteen_bits_are_scaled_to_eight(tmp_path):
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "a.png")
    assert np.array_equal(load_image(tmp_path / "a.png")[..., 0], GREY)


def test_a_dark_sixteen_bit_image_stays_dark(tmp_path):
    Image.fromarray(np.full((4, 4), 200, dtype=np.uint16)).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png").max() == 1


def test_alpha_is_left_out(tmp_path):
    Image.fromarray(np.dstack([RGB, GREY])).save(tmp_path / "a.png")
    assert np.array_equal(load_image(tmp_path / "a.png"), RGB)


def test_a_palette_is_looked_up(tmp_path):
    flat = Image.fromarray(RGB).quantize(256)
    flat.save(tmp_path / "a.png")
    assert np.array_equal(load_image(tmp_path / "a.png"), np.asarray(flat.convert("RGB")))


def _save_oriented(path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: shown after a quarter turn
    Image.fromarray(RGB).save(path, exif=exif)


def test_an_exif_turn_is_applied_as_viewers_do(tmp_path):
    _save_oriented(tmp_path / "a.png")
    assert image_size(tmp_path / "a.png") == (16, 24, True)
    assert np.array_equal(load_image(tmp_path / "a.png"), np.rot90(RGB, k=-1))


def test_boxes_drawn_before_the_exif_turn_get_those_pixels(tmp_path):
    _save_oriented(tmp_path / "a.png")
    assert np.array_equal(load_image(tmp_path / "a.png", size=(24, 16)), RGB)


def test_a_size_other_than_the_annotations_is_an_error(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: the image is 24 x 16, its annotation says 30 x 16"):
        load_image(tmp_path / "a.png", size=(30, 16))


def test_a_truncated_jpeg_is_an_error(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="truncated"):
        load_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_what_is_no_image_is_an_error(content, tmp_path):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png"):
        load_image(tmp_path / "a.png")


def test_an_image_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("boxwright.data.images.MAX_PIXELS", 100)
    Image.fromarray(RGB).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="more than 100 pixels"):
        load_image(tmp_path / "a.png")
