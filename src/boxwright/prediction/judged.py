"""The images with truth that a trained detector is judged by."""

import os

import numpy as np

from boxwright.data import formats
from boxwright.data.sources import load_parts, select_classes
from boxwright.data.tables import Tables
from boxwright.errors import ConfigError
from boxwright.models.checkpoint import LoadedDetector
from boxwright.models.foreign import ForeignDetector


def truth_of(loaded: LoadedDetector, data: Tables | str | os.PathLike | None, images: int) -> Tables:
    """The first images of the data, or of those that the detector's experiment judges by, with its classes.

    Args:
        loaded: the detector.
        data: tables or a path; None: the experiment's.
        images: at most.

    Raises:
        DataError: they can't be read.
        ConfigError: none of its classes is in them, or it is somebody else's, which knows of no images.
    """
    if data is None and isinstance(loaded.model, ForeignDetector):
        raise ConfigError("an ONNX file of others knows of no images to judge by; expected --data with it.")
    if data is None:
        tables = load_parts(loaded.config.data)[1]
    else:
        tables = data if isinstance(data, Tables) else formats.read(data)
    tables, _ = select_classes(tables, loaded.categories, loaded.config.data.ignore)
    if not loaded.model.oriented:
        tables = tables.without_angles()
    return tables.select_images(np.arange(len(tables.images)) < images)
