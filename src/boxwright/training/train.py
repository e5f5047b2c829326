"""`boxwright.train`: an experiment in, a run folder out; what is wrong is told before torch is imported."""

import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from boxwright.config import ExperimentConfig, load_config
from boxwright.config.models import Oriented
from boxwright.config.zoo import ZOO
from boxwright.data.sources import load_parts, select_classes
from boxwright.data.tables import Tables, concat
from boxwright.errors import ConfigError, DataError, import_extra, nearest
from boxwright.progress import console
from boxwright.training.run_folder import CONFIG, choose_folder

if TYPE_CHECKING:
    from boxwright.training.loop import Trainer
    from boxwright.training.run import Run

MOMENTS = ("log", "epoch", "evaluation")  # at which a run calls functions of others
Callback = Callable[["Trainer", dict[str, float]], None]


def train(
    config: ExperimentConfig | str | os.PathLike,
    changes: list[str] | None = None,
    name: str | None = None,
    runs: str | os.PathLike = "runs",
    resume: bool = False,
    callbacks: Mapping[str, Callback] | None = None,
) -> "Run":
    """Train a detector, judge it on the validation data, and write a report.

    Args:
        config: an experiment or its YAML file.
        changes: `a.b.c=value` on top of a file.
        name: of the run folder; None: the file's name.
        runs: folder of run folders.
        resume: go on where the newest run of this name stopped, with its own config.
        callbacks: functions by the moment at which they are called, in every process, with the trainer and
            numbers, `step` and `epoch` (done so far) among them: "log", every `train.log_every` steps, with
            losses and rates; "epoch", after each one, before it is judged; "evaluation", with AP, AP50 and
            AP75. What they raise ends the run; `trainer.stop.requested = True` does so as Ctrl-C does.

    Raises:
        ConfigError, DataError: before anything heavy starts.
        NonFiniteError: the loss is no longer a number; the last good checkpoint stays.
        KeyboardInterrupt: stopped by the user, after a checkpoint.

    Example:
        >>> boxwright.train("configs/bccd.yaml", ["train.epochs=20"])
    """
    for moment in callbacks or ():
        if moment not in MOMENTS:
            raise ConfigError(f"callbacks: no moment '{moment}'. {nearest(moment, MOMENTS)}")
    if name is None:
        name = "run" if isinstance(config, ExperimentConfig) else Path(config).stem
    if resume and changes:
        raise ConfigError("a run resumes with its own config; drop --set, or start a new run.")
    if not isinstance(config, ExperimentConfig):
        config = load_config(config, changes)
    elif changes:
        raise ConfigError("changes apply to a file, not to a checked config.")
    folder = choose_folder(Path(runs), name, resume=True) if resume else None
    if folder is not None:
        config = load_config(folder / CONFIG)
    else:
        check_weights(config.model.weights)
        if config.train.distill is not None and not Path(config.train.distill.checkpoint).exists():
            raise ConfigError(
                f"train.distill.checkpoint: '{config.train.distill.checkpoint}' is no run and no checkpoint."
            )
    for tracker in config.train.trackers:
        if find_spec(tracker) is None:
            raise ConfigError(f"train.trackers: {tracker} needs pip install {tracker.replace('_', '-')}.")
    data = load_data(config)
    heavy = import_extra("boxwright.training.run", "train")
    return heavy.run(config, data, name, Path(runs), folder, callbacks or {})


class Loaded(NamedTuple):
    """Tables to learn from and to judge by, with the same classes, and the images of each training source."""

    train: Tables
    val: Tables
    sizes: list[int]


def load_data(config: ExperimentConfig) -> Loaded:
    """Training and validation data; what is left out is told.

    Raises:
        DataError: a source can't be read, or has no boxes to learn.
    """
    learnt, val_tables = load_parts(config.data)
    train_tables = concat(learnt)
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
    _tell_shared(*selected)
    usable = selected[0].boxes
    if not ((usable["w"] > 0) & (usable["h"] > 0) & ~usable["crowd"] & ~usable["ignore"]).any():
        raise DataError("the training data has no box to learn from.")
    if not isinstance(config.model, Oriented):
        # What finds upright boxes is judged by the hulls of oriented ones, as it is trained.
        selected[1] = selected[1].without_angles()
    return Loaded(selected[0], selected[1], [len(tables.images) for tables in learnt])


def _tell_shared(train: Tables, val: Tables) -> None:
    """Say which images are learnt and judged: what is found in those tells nothing of others."""
    learnt = set(map(os.path.abspath, train.images["path"].drop_nulls()))
    shared = [path for path in val.images["path"].drop_nulls() if os.path.abspath(path) in learnt]
    if shared:
        console.print(
            f"[yellow]{len(shared):,} of {len(val.images):,} images to judge by are trained on too[/],"
            f" first: {shared[0]}"
        )


def check_weights(place: str | None) -> None:
    """Refuse a name that is neither in the zoo nor a file, before anything heavy starts.

    Raises:
        ConfigError: it can't be meant.
    """
    if place is None or place in ZOO or "://" in place or Path(place).expanduser().exists():
        return
    raise ConfigError(
        f"model.weights: '{place}' is no file and no name of the zoo. {nearest(place, ZOO)} Others:"
        " hf://owner/repo, an address."
    )
