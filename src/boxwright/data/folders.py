"""Folders of images that need no annotation: a folder a class, or nothing known at all.

An image becomes one box around all of it, of the class of its folder, or of a class of its own.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from boxwright.data.builder import TableBuilder
from boxwright.data.formats.finding import TRAIN, VAL
from boxwright.data.images import find_images, image_size
from boxwright.data.tables import Tables
from boxwright.errors import DataError
from boxwright.progress import track

VAL_SHARE = 0.1  # of the images, where the folder has no such part


def read_classes(folder: Path, seed: int) -> tuple[Tables, Tables]:
    """Images to train on and to judge by, of a folder a class; those two parts are folders of these names
    (`TRAIN`, `VAL`) around the classes, or a random split.

    Raises:
        DataError: no image, one that stands in no class's folder, or less than two classes.
    """
    inside = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    parts = [next((inside[name] for name in names if name in inside), None) for names in (TRAIN, VAL)]
    train = _of_folders(parts[0] or folder)
    names = train.categories["name"].to_list()
    if len(names) < 2:
        raise DataError(
            f"{parts[0] or folder}: one class, '{names[0]}'; expected a folder of images a class. Images"
            " without classes: --self-supervised."
        )
    if parts[0] is not None and parts[1] is not None:
        return train, _of_folders(parts[1])
    judged = _share_of_each(train.boxes["category_id"].to_numpy(), seed)
    return train.select_images(~judged), train.select_images(judged)


def _share_of_each(classes: np.ndarray, seed: int) -> np.ndarray:
    """(N,) bool: a random `VAL_SHARE` of each class, one at least where it has two."""
    rank = np.zeros(len(classes), dtype=np.int64)
    order = np.random.default_rng(seed).permutation(len(classes))
    order = order[np.argsort(classes[order], kind="stable")]
    counts = np.bincount(classes)
    rank[order] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    wanted = np.where(counts > 1, np.maximum(1, np.rint(VAL_SHARE * counts)), 0)
    return rank < wanted[classes]


def read_unlabelled(folder: Path, most: int, seed: int) -> Tables:
    """Images below a folder, each a class of its own; a random choice of `most` where there are more.

    Raises:
        DataError: less than two images.
    """
    paths = find_images(folder)
    if len(paths) > most:
        chosen = np.random.default_rng(seed).choice(len(paths), most, replace=False)
        paths = [paths[n] for n in sorted(chosen.tolist())]
    tables = _whole_images(folder, paths, [str(path.relative_to(folder)) for path in paths])
    if len(tables.images) < 2:
        raise DataError(f"{folder}: one usable image; it is told from others, so two at least are needed.")
    return tables


def _of_folders(root: Path) -> Tables:
    paths = find_images(root)
    loose = next((path for path in paths if path.parent == root), None)
    if loose is not None:
        raise DataError(
            f"{loose}: in no class's folder; expected {root.name}/CLASS/{loose.name}. Images without classes:"
            " --self-supervised."
        )
    return _whole_images(root, paths, [path.relative_to(root).parts[0] for path in paths])


def _whole_images(root: Path, paths: Sequence[Path], classes: Sequence[str]) -> Tables:
    """A box around each image; what can't be read is left out, and among the faults."""
    builder = TableBuilder(root.name)
    for path, name in zip(track("look at images", paths), classes):
        try:
            width, height, _ = image_size(path)
        except DataError as error:
            builder.error("image", str(path), str(error), dropped=True)
            continue
        image_id = builder.image(str(path.relative_to(root)), str(path), width, height)
        builder.box((str(path), 0), image_id, builder.category(name), (0.0, 0.0, float(width), float(height)))
    tables = builder.build()
    if not len(tables.images):
        raise DataError(f"{root}: none of {len(paths):,} images can be read; first: {tables.faults[0]}")
    return tables
