"""When and where a picture was taken, as Pillow writes it into files."""

from datetime import datetime

import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from boxwright.data.exif import Taken, parse_time, read_taken
from boxwright.errors import DataError

TIME, OWN, PLACE = 0x9003, 0x8769, 0x8825  # EXIF's numbers of DateTimeOriginal and of its two blocks


def picture(path, place=None, time=None, changed=None):
    image = Image.new("RGB", (8, 6))
    exif = image.getexif()
    exif[0x010F] = "a camera"  # without a tag of the first block Pillow writes none into a PNG
    if changed:
        exif[0x0132] = changed
    if time:
        exif.get_ifd(OWN)[TIME] = time
    if place:
        north, degrees, east, other = place
        exif.get_ifd(PLACE).update({1: north, 2: degrees, 3: east, 4: other})
    image.save(path, exif=exif)
    return path


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_time_and_place_of_each_format(tmp_path, suffix):
    path = picture(tmp_path / f"a.{suffix}", ("S", (33, 51, 24.5), "W", (70, 40, 0)), "2021:03:04 05:06:07")
    taken = read_taken(path)
    assert taken.time == datetime(2021, 3, 4, 5, 6, 7)
    assert taken.latitude == pytest.approx(-(33 + 51 / 60 + 24.5 / 3600), abs=1e-5)
    assert taken.longitude == pytest.approx(-(70 + 40 / 60), abs=1e-5)


def test_a_file_that_was_changed_tells_when_it_was_taken(tmp_path):
    both = picture(tmp_path / "a.jpg", None, "2020:01:01 00:00:00", "2024:01:01 00:00:00")
    assert read_taken(both).time == datetime(2020, 1, 1)
    assert read_taken(picture(tmp_path / "b.jpg", changed="2024:01:01 00:00:00")).time == datetime(2024, 1, 1)


@pytest.mark.parametrize(
    "place",
    [
        ("N", (91, 0, 0), "E", (10, 0, 0)),
        ("N", (50, 0, 0), "E", (181, 0, 0)),
        ("N", (50, 0, IFDRational(0, 0)), "E", (10, 0, 0)),
        ("", (50, 0, 0), "E", (10, 0, 0)),
        ("N", (50, 0), "E", (10, 0)),
    ],
)
def test_a_place_that_is_none_is_not_told(tmp_path, place):
    assert read_taken(picture(tmp_path / "a.jpg", place)) == Taken()


def test_files_that_tell_nothing_or_are_none(tmp_path):
    assert read_taken(picture(tmp_path / "a.png")) == Taken()
    (tmp_path / "no.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match="not an image"):
        read_taken(tmp_path / "no.jpg")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2021-03-04T05:06:07Z", datetime(2021, 3, 4, 5, 6, 7)),
        ("2013-11-14 17:02:52", datetime(2013, 11, 14, 17, 2, 52)),
        ("20210120", datetime(2021, 1, 20)),
        ("2021-01-20", datetime(2021, 1, 20)),
        ("0000:00:00 00:00:00", None),
        ("soon", None),
        (None, None),
    ],
)
def test_times_as_they_are_written(text, wanted):
    assert parse_time(text) == wanted
