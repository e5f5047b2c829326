"""Labels that are to be drawn from nothing: the images of a folder, and classes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from boxwright.data.builder import TableBuilder
from boxwright.data.images import find_images, image_size
from boxwright.data.tables import CATEGORY_SCHEMA, Tables, frame
from boxwright.errors import ConfigError
from boxwright.progress import track


def blank_labels(folder: Path) -> Tables:
    """The images below a folder with their sizes, sorted by name, without boxes or classes.

    Raises:
        DataError: there is none, or one can't be read.
    """
    builder = TableBuilder(folder.name)
    for path in track("look at images", find_images(folder)):
        width, height, _ = image_size(path)
        builder.image(str(path.relative_to(folder)), str(path), width, height)
    return builder.build()


def with_classes(labels: Tables, names: Sequence[str]) -> Tables:
    """The labels with those of the classes that they don't have yet behind their own.

    Raises:
        ConfigError: a name is empty, or stands there twice.
    """
    if any(not name for name in names) or len(set(names)) < len(names):
        raise ConfigError(f"classes {', '.join(names)}: expected different names, such as car,truck.")
    own = labels.categories["name"].to_list()
    new = [name for name in names if name not in own]
    blank = {"category_id": np.arange(len(own), len(own) + len(new)), "name": new}
    return Tables(
        labels.images, labels.boxes, labels.categories.vstack(frame(CATEGORY_SCHEMA, blank)), labels.faults
    )
