"""`boxwright data augment`: training images as an experiment changes them, before a night is spent on it."""

import os

import numpy as np
from PIL import Image, ImageDraw

from boxwright.data.dataset import DetectionDataset
from boxwright.data.samples import Sample
from boxwright.geometry.conventions import corners
from boxwright.reporting.gallery import PALETTE, draw_box, save_picture, sheet_of
from boxwright.training.opening import open_experiment


def show_augmented(
    experiment: str | os.PathLike,
    output: str | os.PathLike,
    count: int = 4,
    variants: int = 3,
    seed: int = 0,
    changes: list[str] | None = None,
) -> None:
    """Draw training images as they are, and as they are trained on, with their boxes.

    Args:
        experiment: a YAML file, a run folder or a checkpoint.
        output: picture to write, .jpg or .png: a row an image.
        count: of images; those with boxes come first.
        variants: of each.
        seed: chooses the images and the changes.
        changes: `a.b.c=value` on top of a YAML file.

    Raises:
        ConfigError, DataError, CheckpointError: as `open_experiment`.

    Example:
        >>> boxwright.show_augmented("configs/bccd.yaml", "changed.jpg", changes=["augment.mosaic=1"])
    """
    opened = open_experiment(experiment, changes=changes)
    plain = DetectionDataset(opened.tables, opened.config.image_size)
    changed = DetectionDataset(opened.tables, opened.config.image_size, opened.config.augment, seed)
    filled = set(opened.tables.boxes["image_id"].unique())
    order = np.random.default_rng(seed).permutation(len(plain)).tolist()
    order.sort(key=lambda index: index not in filled)
    tiles = []
    for index in order[:count]:
        variations = [_draw(changed[epoch, index]) for epoch in range(variants)]
        whole = _draw(plain[index])
        whole.thumbnail(variations[0].size)  # where a crop is trained on
        tiles += [whole, *variations]
    save_picture(sheet_of(tiles, variants + 1), output)


def _draw(sample: Sample) -> Image.Image:
    picture = Image.fromarray(sample.pixels)
    draw = ImageDraw.Draw(picture)
    for box, label, ignored, oriented in zip(
        sample.rotated, sample.labels, sample.ignore, sample.oriented, strict=True
    ):
        color = PALETTE[int(label) % len(PALETTE)]
        front_first = np.roll(corners(box[None])[0], -1, axis=0)
        draw_box(draw, front_first, color, dashed=bool(ignored), ahead=bool(oriented))
    return picture
