"""When and where a picture was taken, as its camera wrote it into the file."""

import math
import os
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from PIL import ExifTags

from boxwright.data.images import exif_faults, may_have_exif, open_image

FORMATS = ("%Y:%m:%d %H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d", "%Y%m%d")


@dataclass(frozen=True)
class Taken:
    """Of one picture; None: not told.

    Attributes:
        time: of the camera's own clock.
        longitude, latitude: degrees, east and north.
    """

    time: datetime | None = None
    longitude: float | None = None
    latitude: float | None = None


def read_taken(path: str | os.PathLike) -> Taken:
    """What the EXIF block of a picture tells, from its header alone.

    Raises:
        DataError: the picture or its EXIF block can't be read.
    """
    with open_image(path) as image, exif_faults(path):
        if not may_have_exif(image):
            return Taken()
        exif = image.getexif()
        own, place = exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.GPSInfo)
    told = own.get(ExifTags.Base.DateTimeOriginal) or exif.get(ExifTags.Base.DateTime)
    gps = ExifTags.GPS
    longitude = _degrees(place.get(gps.GPSLongitude), place.get(gps.GPSLongitudeRef), "EW", 180)
    latitude = _degrees(place.get(gps.GPSLatitude), place.get(gps.GPSLatitudeRef), "NS", 90)
    if longitude is None or latitude is None:
        longitude = latitude = None
    return Taken(parse_time(told), longitude, latitude)


def parse_time(text: Any) -> datetime | None:
    """A time or a day as EXIF, COCO or ISO write it; None where it is none."""
    if not isinstance(text, str):
        return None
    for form in FORMATS:
        try:
            return datetime.strptime(text.strip("\0 ")[:19], form)
        except ValueError:
            continue
    return None


def _degrees(parts: Any, side: Any, sides: str, most: float) -> float | None:
    """Degrees, minutes and seconds as degrees; None where they are none."""
    try:
        degrees, minutes, seconds = (float(part) for part in parts)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    value = degrees + minutes / 60 + seconds / 3600
    if not math.isfinite(value) or abs(value) > most or side not in tuple(sides):
        return None
    return -value if side == sides[1] else value
