"""`boxwright assign show`: an experiment's assigner on its own data."""

import os
from collections.abc import Sequence

import numpy as np
import torch

from boxwright.data.dataset import DetectionDataset
from boxwright.errors import ConfigError, nearest
from boxwright.models.coverage import Coverage, coverage, priors_of
from boxwright.models.detector import Detector, collate_for
from boxwright.reporting.assignment import Assigned, draw_assignment, save_assignments
from boxwright.training.opening import open_experiment


def show_assignment(
    experiment: str | os.PathLike,
    output: str | os.PathLike,
    images: Sequence[str] | None = None,
    count: int = 2,
    part: str = "train",
    limit: int | None = None,
    changes: list[str] | None = None,
) -> Coverage:
    """Draw the label assignment of some images, and count over the data the boxes without any prior.

    Args:
        experiment: a YAML file, or a run folder or checkpoint, which assigners that follow predictions need.
        output: picture to write.
        images: file names; None: those with the most boxes that get no prior.
        count: of images, where none is named.
        part: "train" or "val".
        limit: images counted; None: all.
        changes: `a.b.c=value` on top of a YAML file.

    Raises:
        ConfigError: an unknown part or image, or weights are needed and there are none.
        DataError: the data or an image can't be read.
    """
    opened = open_experiment(experiment, part, changes)
    config, model, tables = opened.config, opened.model, opened.tables
    if model.follows_predictions and not opened.trained:
        raise ConfigError(
            f"the assigner of {config.model.name} follows what is predicted: give a run folder or a "
            "checkpoint in place of the YAML file."
        )
    dataset = DetectionDataset(tables, config.image_size)
    found = coverage(model, dataset, limit)
    names = tables.images["file_name"].to_list()
    unknown = [name for name in images or [] if name not in names]
    if unknown:
        raise ConfigError(f"--image {unknown[0]}: no such image. {nearest(unknown[0], names)[:300]}")
    if images:
        chosen = [names.index(name) for name in images]
    else:
        lost = np.bincount(found.images[found.priors == 0], minlength=len(names))
        boxes = np.bincount(found.images, minlength=len(names))
        chosen = np.lexsort((-boxes, -lost))[:count].tolist()
    pictures = [draw_assignment(tables, n, _assigned(model, dataset, n)) for n in chosen]
    save_assignments(pictures, output)
    return found


def _assigned(model: Detector, dataset: DetectionDataset, index: int) -> Assigned:
    """The boxes and priors of one image, back in its own pixels."""
    batch = collate_for(model)([dataset[index]])
    with torch.no_grad():
        outputs = model(batch.images)
        matched_gt = model.assign(outputs, batch.targets).matched_gt[0].numpy()
    factor = np.diag(batch.matrices[0].numpy())  # the image is only scaled
    answering = matched_gt >= 0
    return Assigned(
        boxes=batch.targets.boxes[0].numpy() / np.tile(factor, 2),
        labels=batch.targets.labels[0].numpy(),
        priors=priors_of(outputs)[answering] / np.tile(factor, 2),
        matched=matched_gt[answering],
        ignored=batch.targets.ignore[0].numpy(),
    )
