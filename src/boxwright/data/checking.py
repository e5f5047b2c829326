"""`boxwright data check`: faults of the annotations, and of the images they speak of."""

from concurrent.futures import ThreadPoolExecutor

from boxwright.data.images import image_size, load_image
from boxwright.data.tables import Tables
from boxwright.errors import DataError, Fault
from boxwright.progress import progress_bar

THREADS = 4


def check(tables: Tables, pixels: bool = True) -> list[Fault]:
    """Every fault of a data set, those met while reading it first.

    Args:
        tables: as a reader gave them.
        pixels: decode every image, which finds truncated ones; else images are not looked at.
    """
    faults = list(tables.faults)
    if not pixels:
        return faults
    rows = list(tables.images.select("file_name", "path", "width", "height").iter_rows())
    with progress_bar("decode images", len(rows)) as tell, ThreadPoolExecutor(THREADS) as pool:
        for fault in pool.map(_check_image, rows):
            tell(1)
            if fault is not None:
                faults.append(fault)
    return faults


def _check_image(row: tuple) -> Fault | None:
    name, path, width, height = row
    if path is None:
        return Fault("missing-image", "error", str(name), "no file is known for it.")
    try:
        shown_width, shown_height, swapped = image_size(path)
        load_image(path, None if width is None else (width, height))
    except DataError as error:
        missing = "no such file" in str(error)
        return Fault("missing-image" if missing else "unreadable-image", "error", str(name), str(error))
    if swapped and (width, height) == (shown_height, shown_width):
        message = f"boxes lie on the {width} x {height} pixels before the EXIF turn; so they are read."
        return Fault("exif-turn", "warning", str(name), message)
    return None
