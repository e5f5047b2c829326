"""Predictions of every image by a detector that hasn't seen it: one is trained for each fold."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from boxwright.config import check_config, load_config
from boxwright.data import formats
from boxwright.data.tables import Tables, concat
from boxwright.errors import ConfigError, DataError
from boxwright.evaluation.pairing import align
from boxwright.progress import console
from boxwright.training.run_folder import CONFIG
from boxwright.training.train import train


def out_of_fold(
    labels: Tables,
    config: dict[str, Any],
    folder: str | os.PathLike,
    folds: int = 5,
    seed: int = 0,
    tell: Callable[[int], None] = lambda fold: None,
) -> Tables:
    """Train a detector on the images outside of each fold, and let it predict those inside.

    What is done stays done: the same call goes on with the fold that was stopped. Where the config has
    minutes, those of the first fold decide how many epochs all of them have.

    Args:
        labels: of all images; those of one video or folder stay together where there are as many as folds.
        config: of an experiment, whose data is replaced; what that ignores is neither learnt nor predicted.
        folder: of folds and runs.
        folds: how many.
        seed: of the folds.
        tell: called after each fold.

    Returns:
        Predictions over the images and categories of `labels`.

    Raises:
        ConfigError: fewer than two folds, or the folder holds those of other labels.
        DataError: fewer images than folds.
    """
    place = Path(folder)
    if folds < 2:
        raise ConfigError(f"folds is {folds}, expected two or more.")
    if len(labels.images) < folds:
        raise DataError(f"{len(labels.images)} images for {folds} folds.")
    fold_of = assign_folds(labels, folds, seed)
    names = _file_names(labels)
    found = []
    for fold in range(folds):
        parts = {"train": fold_of != fold, "val": fold_of == fold}
        console.print(f"[bold]fold {fold + 1} of {folds}[/]: {parts['val'].sum():,} images to predict")
        run = _train(names, parts, config, place, f"fold-{fold + 1}")
        epochs = load_config(run / CONFIG).train.epochs
        config = config | {"train": config["train"] | {"minutes": None, "epochs": epochs}}
        found.append(formats.read(run / "predictions.parquet"))
        tell(fold)
    return align(labels, align(names, concat(found)))


def assign_folds(labels: Tables, folds: int, seed: int) -> np.ndarray:
    """(I,) the fold of each image; images of a video, or folder, are of one fold where there are enough of
    these, as neighbours in time are nearly the same picture.
    """
    rng, groups = np.random.default_rng(seed), np.unique(labels.videos(), return_inverse=True)[1]
    count = groups.max() + 1
    if count < 2 * folds:
        groups, count = np.arange(len(labels.images)), len(labels.images)
    sizes = np.bincount(groups, minlength=count)
    order = rng.permutation(count)
    fold_of_group, filled = np.zeros(count, dtype=int), np.zeros(folds)
    for group in order[np.argsort(-sizes[order], kind="stable")]:
        fold_of_group[group] = filled.argmin()
        filled[filled.argmin()] += sizes[group]
    return fold_of_group[groups]


def _file_names(labels: Tables) -> Tables:
    """The same, with a name for images that have none: predictions come back by name."""
    names = [name or f"image-{n}" for n, name in enumerate(labels.images["file_name"])]
    return Tables(labels.images.with_columns(file_name=pl.Series(names)), labels.boxes, labels.categories)


def _train(
    labels: Tables, parts: dict[str, np.ndarray], config: dict[str, Any], folder: Path, name: str
) -> Path:
    """The run of a fold, which may have been done, or begun."""
    run = folder / name
    ignored = config["data"].get("ignore") or []
    data: dict[str, Any] = {"classes": [n for n in labels.categories["name"] if n not in ignored]}
    for part, wanted in parts.items():
        path = folder / f"{name}-{part}.parquet"
        own = labels.select_images(wanted)
        if path.is_file() and not formats.read(path).boxes.equals(own.boxes):
            raise ConfigError(f"{path} holds other labels: remove {folder}, or choose another folder.")
        formats.write(own, path)
        data[part] = {"root": str(path.resolve()), "format": "parquet"}
    if (run / "evaluation.json").is_file():
        console.print(f"{run}: done before")
        return run
    checked = check_config(config | {"data": config["data"] | data}, "fold")
    return train(checked, name=name, runs=folder, resume=(run / CONFIG).is_file()).folder
