"""`boxwright.train`: an experiment in, a run folder out."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from boxwright.config import ExperimentConfig, load_config
from boxwright.data import formats
from boxwright.data.dataset import DetectionDataset
from boxwright.data.formats.files import write_atomic
from boxwright.data.sources import load_source, select_classes
from boxwright.data.tables import Tables
from boxwright.errors import ConfigError, DataError, nearest
from boxwright.evaluation.evaluate import Evaluation
from boxwright.models import DETECTORS, build_detector
from boxwright.models.checkpoint import BEST, load_detector
from boxwright.models.coverage import coverage
from boxwright.models.detector import Detector
from boxwright.progress import console, progress_bar
from boxwright.reporting.report import report
from boxwright.training.loop import Trainer, on_cpu
from boxwright.training.run_folder import CONFIG, choose_folder, start_folder

LOOKED_AT = 2000  # images, before training, for boxes without an assigned prior
TOLERATED = 0.01  # share of such boxes that isn't worth a warning


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and its last evaluation, by the best weights."""

    folder: Path
    evaluation: Evaluation


def train(
    config: ExperimentConfig | str | os.PathLike,
    changes: list[str] | None = None,
    name: str | None = None,
    runs: str | os.PathLike = "runs",
    resume: bool = False,
) -> Run:
    """Train a detector, judge it on the validation data, and write a report.

    Args:
        config: an experiment or its YAML file.
        changes: `a.b.c=value` on top of a file.
        name: of the run folder; None: the file's name.
        runs: folder of run folders.
        resume: go on where the newest run of this name stopped, with its own config.

    Raises:
        ConfigError, DataError: before anything heavy starts.
        NonFiniteError: the loss is no longer a number; the last good checkpoint stays.
        KeyboardInterrupt: stopped by the user, after a checkpoint.

    Example:
        >>> boxwright.train("configs/bccd.yaml", ["train.epochs=20"])
    """
    if name is None:
        name = "run" if isinstance(config, ExperimentConfig) else Path(config).stem
    if resume and changes:
        raise ConfigError("a run resumes with its own config; drop --set, or start a new run.")
    if not isinstance(config, ExperimentConfig):
        config = load_config(config, changes)
    elif changes:
        raise ConfigError("changes apply to a file, not to a checked config.")
    # One process chooses for all: a folder that another has just made would seem taken.
    state = PartialState(cpu=on_cpu())
    chosen = [choose_folder(Path(runs), name, resume) if state.is_main_process else None]
    folder = broadcast_object_list(chosen)[0]
    assert isinstance(folder, Path)
    if resume:
        config = load_config(folder / CONFIG)
    train_tables, val_tables = load_data(config)
    if not DETECTORS[config.model.name].oriented:
        # What finds upright boxes is judged by the hulls of oriented ones, as it is trained.
        val_tables = val_tables.without_angles()
    if state.is_main_process and not resume:
        start_folder(folder, config)
    categories = train_tables.categories["name"].to_list()
    console.print(
        f"[bold]{folder}[/]: {config.model.name}, {len(train_tables.images):,} images to train on, "
        f"{len(val_tables.images):,} to judge by, {len(categories)} classes"
    )
    torch.manual_seed(config.train.seed)
    cache = int(config.train.cache_gib * 2**30)
    train_set = DetectionDataset(train_tables, config.image_size, config.augment, config.train.seed, cache)
    val_set = DetectionDataset(val_tables, config.image_size, None, config.train.seed, cache)
    for what, dataset in (("train", train_set), ("val", val_set)):
        with progress_bar(f"decode {what} images", len(dataset)) as tell:
            held = dataset.fill_cache(tell)
        if held < len(dataset):
            console.print(
                f"{held:,} of {len(dataset):,} {what} images fit into {config.train.cache_gib} GiB."
            )
    model = build_detector(config.model, len(categories))
    if state.is_main_process:
        _warn_of_lost_boxes(model, train_tables, config)
    trainer = Trainer(model, config, folder, train_set, val_set, categories, resume)
    trainer.run()
    return _conclude(trainer, folder, val_tables)


def _warn_of_lost_boxes(model: Detector, tables: Tables, config: ExperimentConfig) -> None:
    """Say when objects have no anchor or point: they would be learnt as background."""
    found = coverage(model.eval(), DetectionDataset(tables, config.image_size), LOOKED_AT, possible=True)
    model.train()
    if found.none > TOLERATED * len(found.priors):
        lost = found.sizes[found.priors == 0]
        side = np.median(np.sqrt(lost.prod(axis=1)))
        console.print(
            f"[yellow]{found.none:,} of {len(found.priors):,} boxes get no anchor or point[/], half of them "
            f"smaller than {side:.0f} px at {config.image_size[0]} x {config.image_size[1]}: they are learnt "
            "as background. See boxwright assign show."
        )


def load_data(config: ExperimentConfig) -> tuple[Tables, Tables]:
    """Training and validation tables with the same classes; what is left out is told.

    Raises:
        DataError: a source can't be read, or has no boxes to learn.
    """
    train_tables, val_tables = load_source(config.data.train), load_source(config.data.val)
    ignored = config.data.ignore
    own = train_tables.categories["name"].to_list()
    unknown = [n for n in ignored if n not in own and n not in val_tables.categories["name"].to_list()]
    if unknown:
        raise ConfigError(
            f"data.ignore: '{unknown[0]}' is no category of the data. {nearest(unknown[0], own)}"
        )
    names = config.data.classes or [n for n in own if n not in ignored]
    selected = []
    for what, tables in (("train", train_tables), ("val", val_tables)):
        errors = [f for f in tables.faults if f.severity == "error"]
        if errors:
            console.print(f"[yellow]{what} data has {len(errors):,} faults[/], first: {errors[0]}")
        tables, left_out = select_classes(tables, names, ignored)
        for category, count in left_out.items():
            console.print(f"[yellow]{what}: {count:,} boxes of '{category}' are not learnt[/]")
        selected.append(tables)
    usable = selected[0].boxes
    if not ((usable["w"] > 0) & (usable["h"] > 0) & ~usable["crowd"] & ~usable["ignore"]).any():
        raise DataError("the training data has no box to learn from.")
    return selected[0], selected[1]


def _conclude(trainer: Trainer, folder: Path, truth: Tables) -> Run:
    """Write the predictions, numbers and report of the best weights."""
    trainer.accelerator.wait_for_everyone()
    evaluation = trainer.best_evaluation
    if evaluation is None:
        evaluation = trainer.judge(load_detector(folder / "checkpoints" / BEST).model)
    if trainer.accelerator.is_main_process:
        formats.write(truth, folder / "truth.parquet")
        formats.write(evaluation.predictions, folder / "predictions.parquet")
        numbers = evaluation.to_dict()
        write_atomic(folder / "evaluation.json", json.dumps(numbers, indent=2, ensure_ascii=False).encode())
        report(folder)
    trainer.accelerator.wait_for_everyone()
    return Run(folder, evaluation)
