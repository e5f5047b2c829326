"""`boxwright pretrain`: a detector's backbone learns from images without boxes."""

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from boxwright.config import ExperimentConfig, apply_changes, check_config, load_config
from boxwright.config.models import CompactConfig
from boxwright.config.part import ModelPart
from boxwright.data import formats
from boxwright.data.cifar import find_cifar, unpack_cifar
from boxwright.data.folders import read_classes, read_unlabelled
from boxwright.data.tables import Tables
from boxwright.errors import ConfigError, DataError
from boxwright.progress import console
from boxwright.training.run_folder import CONFIG, choose_folder
from boxwright.training.train import train

if TYPE_CHECKING:
    from boxwright.training.run import Run

DATA = "pretraining-data"  # folder beside the runs
BATCH = 32
STEPS, EPOCHS = 3000, (20, 300)  # of a run, unless it is told otherwise
SIDES = (64, 224)  # px, least and greatest of the input
STRIDE = 32
JUDGED = 500  # images that are told from the others, without labels
TEMPERATURE = 0.2
# Without labels what stays the same under these changes is all there is to learn.
AUGMENT = {
    "scale": [0.8, 2.0], "aspect": 0.3, "rotate": 15.0, "min_visible": 0.0, "brightness": 0.4,
    "contrast": 0.4, "color": 0.2,
}  # fmt: skip


def pretrain(
    folder: str | os.PathLike,
    experiment: str | os.PathLike | None = None,
    self_supervised: bool = False,
    side: int | None = None,
    most: int = 5000,
    changes: list[str] | None = None,
    name: str | None = None,
    runs: str | os.PathLike = "runs",
    resume: bool = False,
) -> "Run":
    """Train a detector's backbone to classify images; `model.weights` takes the run folder.

    Without labels each image is a class of its own, told from all others however it is cut, turned and
    coloured (see `models/classifier.py`). That needs neither large batches nor a second network, can't
    collapse, and learns from a few hundred images.

    Args:
        folder: a folder of images a class, in parts train and val or not; CIFAR-10's files; without labels
            any images.
        experiment: YAML file of the detector whose backbone it is; None: compact's. Of its model what it
            starts from and freezes isn't meant here.
        self_supervised: learn without labels.
        side: of the input, px; None: that of the usual image, within 64 and 224.
        most: images, without labels; a random choice of more.
        changes: `a.b.c=value` on top of what is chosen for the data.
        name: of the run folder; None: pretrained- and the folder's.
        runs: folder of run folders; its pretraining-data holds tables, and CIFAR-10's images.
        resume: go on where the newest run of this name stopped, with its own config.

    Raises:
        ConfigError, DataError: before anything heavy starts.
        NonFiniteError, KeyboardInterrupt: as `train`.

    Example:
        >>> boxwright.pretrain("frames/", "configs/bccd.yaml", self_supervised=True)
    """
    place, runs = Path(folder), Path(runs)
    name = name or f"pretrained-{place.resolve().name}"
    if resume:
        if changes:
            raise ConfigError("a run resumes with its own config; drop --set, or start a new run.")
        return train(load_config(choose_folder(runs, name, True) / CONFIG), None, name, runs, resume=True)
    if not place.is_dir():
        raise DataError(f"{place}: expected a folder of images.")
    detector = CompactConfig() if experiment is None else load_config(experiment).model
    tables = read_images(place, runs / DATA, self_supervised, most)
    config = draft(tables, detector, runs / DATA, self_supervised, side, changes or [])
    return train(config, None, name, runs)


def read_images(place: Path, data: Path, self_supervised: bool, most: int) -> tuple[Tables, Tables]:
    """What to learn from and what to judge by, each image one box."""
    cifar = find_cifar(place)
    if cifar is not None:
        place = data / f"cifar-{_digest(str(cifar.resolve()))}"
        unpack_cifar(cifar, place)
    if self_supervised:
        train_tables = read_unlabelled(place, most, seed=0)
        count = len(train_tables.images)
        judged = np.zeros(count, dtype=bool)
        judged[np.linspace(0, count - 1, min(count, JUDGED)).astype(int)] = True
        val_tables = train_tables.select_images(judged)
    else:
        train_tables, val_tables = read_classes(place, seed=0)
    for tables in {id(t): t for t in (train_tables, val_tables)}.values():
        left_out = [fault for fault in tables.faults if fault.dropped]
        if left_out:
            console.print(f"[yellow]{len(left_out):,} images are left out[/], first: {left_out[0]}")
    return train_tables, val_tables


def draft(
    tables: tuple[Tables, Tables],
    detector: ModelPart,
    data: Path,
    self_supervised: bool,
    side: int | None,
    changes: list[str],
) -> ExperimentConfig:
    """The experiment for these images, whose tables are written below `data`."""
    written = data / _digest("\n".join(line for t in tables for line in _lines(t)))
    for part, part_tables in zip(("train", "val"), tables):
        formats.write(part_tables, written / f"{part}.parquet")
    count = len(tables[0].images)
    side = side or _usual_side(tables[0])
    own = {"weights", "weights_from", "class_map", "freeze"}
    content: dict[str, Any] = {
        "data": {part: {"root": str(written / f"{part}.parquet")} for part in ("train", "val")},
        "model": {
            "name": "classifier",
            "detector": detector.model_dump(mode="json", exclude=own),
            "temperature": TEMPERATURE if self_supervised else None,
        },
        "image_size": [side, side],
        "augment": AUGMENT if self_supervised else {},
        "train": {"epochs": int(np.clip(round(STEPS * BATCH / count), *EPOCHS)), "batch_size": BATCH},
    }
    content = apply_changes(content, changes)
    if isinstance(content["model"], dict) and isinstance(content["image_size"], list):
        content["model"].setdefault("canvas", max(content["image_size"]))
    return check_config(content, "pretrain")


def _lines(tables: Tables) -> list[str]:
    names = tables.categories["name"].to_list()
    labels = [names[n] for n in tables.boxes["category_id"]]
    return [f"{path}\t{label}" for path, label in zip(tables.images["path"], labels)]


def _usual_side(tables: Tables) -> int:
    """The longer side of the usual image, a multiple of the stride within `SIDES`."""
    longer = np.maximum(tables.images["width"].to_numpy(), tables.images["height"].to_numpy())
    return int(np.clip(STRIDE * round(float(np.median(longer)) / STRIDE), *SIDES))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
