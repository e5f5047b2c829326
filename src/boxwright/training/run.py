"""A run: from checked data to weights, numbers and a report in a folder."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from rich.table import Table

from boxwright.config import ExperimentConfig
from boxwright.config.data import SourceConfig
from boxwright.config.places import BEST
from boxwright.config.zoo import ZOO
from boxwright.data import formats
from boxwright.data.dataset import Corrected, DetectionDataset
from boxwright.data.formats.files import write_atomic
from boxwright.data.sampling import Draws, draws_of
from boxwright.data.tables import Tables
from boxwright.evaluation.evaluate import Evaluation
from boxwright.evaluation.operating import Operating, fit_operating
from boxwright.models import build_detector
from boxwright.models.checkpoint import load_detector, save_detector, without_pretrained
from boxwright.models.coverage import coverage
from boxwright.models.detector import Detector
from boxwright.models.weights import load_weights
from boxwright.progress import console, progress_bar
from boxwright.training.loop import ONE_VIEW, Trainer
from boxwright.training.machine import on_cpu, part_at_exit
from boxwright.training.pacing import pace
from boxwright.training.run_folder import choose_folder, start_folder
from boxwright.training.state import STATE
from boxwright.training.train import Callback, Loaded
from boxwright.training.weighing import groups_of_images, places_of_corrections, weigh_images

LOOKED_AT = 2000  # images, before training, for boxes without an assigned prior
TOLERATED = 0.01  # share of such boxes that isn't worth a warning


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, the evaluation of its best weights, and where their scores are cut in use
    (None: in a process that isn't the first).
    """

    folder: Path
    evaluation: Evaluation
    operating: Operating | None


def run(
    config: ExperimentConfig,
    data: Loaded,
    name: str,
    runs: Path,
    resumed: Path | None,
    callbacks: Mapping[str, Callback] | None = None,
) -> Run:
    """Train and judge.

    Args:
        config: a checked experiment.
        data: tables of training and validation.
        name, runs: of a new run's folder.
        resumed: the folder of a run to go on with; None: a new one.
        callbacks: see `train`.

    Raises:
        NonFiniteError, KeyboardInterrupt: see `train`.
    """
    began = time.monotonic()
    # One process chooses for all: a folder that another has just made would seem taken.
    first = PartialState(cpu=on_cpu()).is_main_process
    folder = broadcast_object_list([resumed or choose_folder(runs, name, False) if first else None])[0]
    assert isinstance(folder, Path)
    if first and resumed is None:
        start_folder(folder, config)
    console.print(
        f"[bold]{folder}[/]: {config.model.name}, {len(data.train.images):,} images to train on, "
        f"{len(data.val.images):,} to judge by, {len(data.train.categories)} classes"
    )
    trainer = make_trainer(config, data, folder, resumed is not None, callbacks)
    if config.train.minutes is not None:
        pace(trainer, 60 * config.train.minutes - (time.monotonic() - began))
    trainer.run()
    return _conclude(trainer, folder, data.val)


def make_trainer(
    config: ExperimentConfig,
    data: Loaded,
    folder: Path,
    resume: bool,
    callbacks: Mapping[str, Callback] | None = None,
) -> Trainer:
    """Decode what fits into memory, build the model, and tell what will be trained on.

    Args:
        config: a checked experiment.
        data: tables of training and validation.
        folder: of the run.
        resume: go on from its state, where there is one.
        callbacks: see `train`.
    """
    state = PartialState(cpu=on_cpu())
    categories = data.train.categories["name"].to_list()
    torch.manual_seed(config.train.seed)
    cache = int(config.train.cache_gib * 2**30)
    tight = config.data.sampling.alike == "shape"
    size, seed = config.image_size, config.train.seed
    sampling, corrected = config.data.sampling, None
    if sampling.corrected is not None:
        corrected = Corrected(*places_of_corrections(data.train, sampling.corrected), sampling.gain)
    train_set = DetectionDataset(
        data.train, size, config.augment, seed, cache, tight=tight, corrected=corrected
    )
    val_set = DetectionDataset(data.val, size, None, seed, cache)
    for what, dataset in (("train", train_set), ("val", val_set)) if cache else ():
        with progress_bar(f"decode {what} images", len(dataset)) as tell:
            held = dataset.fill_cache(tell)
        if held < len(dataset):
            console.print(
                f"{held:,} of {len(dataset):,} {what} images fit into {config.train.cache_gib} GiB."
            )
    going_on = resume and (folder / "checkpoints" / STATE).is_file()
    model, fresh = _make_model(config, categories, going_on)
    if state.is_main_process:
        _warn_of_lost_boxes(model, data.train, config)
        if model.finds_landmarks and not data.train.boxes["landmarks"].is_not_null().any():
            console.print("[yellow]the training data has no landmarks[/]: boxes alone are learnt.")
    sources = config.data.sources
    together = config.train.batch_size * state.num_processes
    often, hardness = weigh_images(data.train, config.data.sampling)
    groups = groups_of_images(train_set, data.sizes, config.data.sampling.alike)
    draws = draws_of(data.sizes, sources, config.train.epoch_images, together, often, hardness, groups)
    if often is not None and state.is_main_process:
        more = f"{(often != 1).sum():,} of {len(often):,} images are drawn more or less often than once"
        console.print(f"{more}, {often.min():.2g} to {often.max():.2g} times (data.sampling)")
    if config.data.sampling.curriculum and state.is_main_process:
        console.print(
            f"images come in from easy to hard in {config.data.sampling.curriculum:.0%} of the epochs"
        )
    if state.is_main_process:
        plan = _describe_steps(draws, config, state.num_processes)
        several = draws.virtual or len(sources) > 1
        console.print(_table_of_draws(draws, sources, plan) if several else plan)
    sizes = torch.tensor(data.sizes)
    unlabelled = torch.tensor([s.role == "unlabelled" for s in sources]).repeat_interleave(sizes)
    weights = None
    if any(source.weight != 1 for source in sources):
        own = torch.tensor([source.weight for source in sources])
        weights = own.repeat_interleave(sizes)
    return Trainer(
        model,
        config,
        folder,
        train_set,
        val_set,
        categories,
        resume,
        fresh,
        draws,
        weights,
        unlabelled,
        callbacks,
    )


def _describe_steps(draws: Draws, config: ExperimentConfig, processes: int) -> str:
    """How long, in which batches and at which rate."""
    settings = config.train
    together = settings.images_a_step(processes)
    length = f"{settings.epochs} epochs" if settings.minutes is None else f"{settings.minutes:g} minutes"
    batch = str(settings.batch_size)
    batch += f" x {processes} processes" if processes > 1 else ""
    batch += f", {settings.accumulate} of them a step" if settings.accumulate > 1 else ""
    steps = max(draws.total // together, 1)
    rate = settings.optimizer.describe(together)
    return f"{length}, batches of {batch}, about {steps:,} steps an epoch, {rate}"


def _table_of_draws(draws: Draws, sources: list[SourceConfig], caption: str) -> Table:
    """What an epoch takes of what is there, source by source."""
    table = Table("source", box=None, caption=caption, caption_justify="left")
    for column in ("images", "an epoch", "each"):
        table.add_column(column, justify="right")
    rows = [(source.root, size, rate) for source, size, rate in zip(sources, draws.sizes, draws.rates)]
    for name, size, rate in [*rows, ("all", sum(draws.sizes), draws.total)]:
        table.add_row(name, f"{size:,}", f"{rate:,.1f}", f"{rate / size:.2f}" if size else "")
    return table


def _make_model(
    config: ExperimentConfig, categories: list[str], going_on: bool
) -> tuple[Detector, list[str]]:
    """The model as training starts, and the parameters that start anew, in some rows at least, where weights
    give the others; a run that goes on has both in its state.
    """
    if config.model.weights is None:
        return build_detector(config.model, len(categories)), []
    model = build_detector(without_pretrained(config).model, len(categories))
    if going_on:
        return model, []
    if config.model.weights in ZOO:
        entry = ZOO[config.model.weights]
        console.print(f"{config.model.weights}: {entry.weights_licence}, published in {entry.source}")
    start = load_weights(model, config.model, categories)
    console.print(start.describe(), highlight=False, markup=False)
    if config.train.new_first and not start.fresh + start.mixed:
        console.print("[yellow]train.new_first changes nothing[/]: nothing starts anew.")
    return model, start.fresh + start.mixed


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


def _conclude(trainer: Trainer, folder: Path, truth: Tables) -> Run:
    """Fit the operating thresholds; write them, the predictions, numbers and report of the best weights."""
    trainer.accelerator.wait_for_everyone()
    evaluation, best, views = trainer.best_evaluation, folder / "checkpoints" / BEST, trainer.config.views
    if evaluation is None or views != ONE_VIEW:
        evaluation = trainer.judge(load_detector(best).model, views)
    operating = None
    if trainer.accelerator.is_main_process:
        operating = fit_operating(truth, evaluation.predictions, trainer.config.train.wanted_precision)
        loaded = load_detector(best)
        save_detector(loaded.model, loaded.config, loaded.categories, best, loaded.statistics, operating)
        formats.write(truth, folder / "truth.parquet")
        formats.write(operating.apply(evaluation.predictions), folder / "predictions.parquet")
        numbers = evaluation.to_dict() | {"operating": operating.to_dict()}
        write_atomic(folder / "evaluation.json", json.dumps(numbers, indent=2, ensure_ascii=False).encode())
        from boxwright.reporting.report import report  # which training doesn't wait for

        report(folder)
    trainer.accelerator.wait_for_everyone()
    part_at_exit()
    return Run(folder, evaluation, operating)
