"""`boxwright sweep`: one experiment with many settings, each a run of its own."""

import hashlib
import itertools
import json
import multiprocessing
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
import yaml
from optuna.pruners import MedianPruner, NopPruner
from optuna.samplers import RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from boxwright.config import check_config, load_config
from boxwright.config.loading import apply_changes
from boxwright.errors import BoxwrightError, ConfigError, NonFiniteError
from boxwright.progress import console
from boxwright.training.loop import Trainer
from boxwright.training.run_folder import CONFIG
from boxwright.training.train import train

JOURNAL = "sweep.journal"  # of the trials, in the sweep's folder
RANGE = re.compile(r"^\s*(\S+?)\.\.(\S+?)\s*$")  # 1e-4..1e-2
DECADE = 10.0  # a range at least as wide is searched by its logarithm
LONGEST = 80  # characters of a run's name
SAMPLERS = ("grid", "random", "tpe")
DONE = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class Setting:
    """What a key may be: one of some values, or a number of a range."""

    key: str
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    whole: bool = False

    def suggest(self, trial: optuna.Trial) -> Any:
        """A value of a trial."""
        if self.values:
            return self.values[trial.suggest_categorical(self.key, list(range(len(self.values))))]
        log = self.low > 0 and self.high >= DECADE * self.low
        if self.whole:
            return trial.suggest_int(self.key, int(self.low), int(self.high), log=log)
        return trial.suggest_float(self.key, self.low, self.high, log=log)


def parse_setting(text: str) -> Setting:
    """`a.b=1,2,3` or `a.b=1e-4..1e-2`.

    Raises:
        ConfigError: it is neither.
    """
    key, equals, given = text.partition("=")
    span = RANGE.match(given)
    try:
        if not equals or not given.strip():
            raise ValueError("nothing is given")
        if span is None:
            return Setting(key, tuple(yaml.safe_load(f"[{given}]")))
        low, high = (float(side) for side in span.groups())
        if not low < high:
            raise ValueError(f"{low:g} is not below {high:g}")
        whole = all(side.lstrip("-").isdigit() for side in span.groups())
        return Setting(key, low=low, high=high, whole=whole)
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"--set {text}: {error}; expected a.b=1,2,3 or a.b=1e-4..1e-2.") from error


def sweep(
    config: str | os.PathLike,
    settings: list[str],
    sampler: str = "grid",
    trials: int | None = None,
    jobs: int = 1,
    prune: bool = False,
    name: str | None = None,
    runs: str | os.PathLike = "runs",
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Train an experiment with many settings; what is done stays done when it is started again.

    One sweep of a name at a time: what another had begun is taken for what a kill has left.

    Args:
        config: a YAML file.
        settings: `a.b=1,2,3` or, but for a grid, `a.b=1e-4..1e-2`.
        sampler: "grid" takes every combination, "random" draws, "tpe" draws where it was good before.
        trials: how many, of random and tpe.
        jobs: at a time, with a share of the processor's threads each.
        prune: end trials whose AP is below the median of the others' at the same epoch.
        name: of the folder of the runs; None: the file's, and "-sweep".
        runs: folder of run folders.
        seed: of what is drawn.

    Returns:
        A dict of each trial, best first: its settings, AP, state and run.

    Raises:
        ConfigError: a setting or sampler that can't be meant, or values that an experiment can't have.

    Example:
        >>> boxwright.sweep("configs/bccd.yaml", ["train.optimizer.lr=1e-3,2e-3", "model.width=0.5,1"])
    """
    own = [parse_setting(text) for text in settings]
    _check(config, own, sampler, trials)
    folder = Path(runs) / (name or f"{Path(config).stem}-sweep")
    folder.mkdir(parents=True, exist_ok=True)
    study = partial(_study, folder, [*settings, sampler], prune, seed)
    _requeue(study(0), own)
    wanted = trials or 0
    if sampler == "grid":
        places = list(itertools.product(*(range(len(setting.values)) for setting in own)))
        for place in places:
            study(0).enqueue_trial(dict(zip((s.key for s in own), place)), skip_if_exists=True)
        wanted = len(places)
    threads = max(1, torch.get_num_threads() // jobs)
    work = partial(
        _work, config=Path(config), own=own, folder=folder, make=study, wanted=wanted, threads=threads
    )
    if jobs == 1:
        work(0)
    else:
        _together(work, jobs)
    return _rows(study(0))


def _together(work: Callable[[int], None], jobs: int) -> None:
    """Several processes at work, until all have ended."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=work, args=(n,)) for n in range(jobs)]
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            worker.join()
    except KeyboardInterrupt:
        for worker in workers:  # which Ctrl-C has reached too, and which save what they have
            worker.join()
        raise
    if failed := [worker.exitcode for worker in workers if worker.exitcode]:
        raise BoxwrightError(f"{len(failed)} of {jobs} jobs ended with {failed[0]}; start again to go on.")


def _check(config: str | os.PathLike, own: list[Setting], sampler: str, trials: int | None) -> None:
    """Refuse what would fail after hours: every value is tried on the experiment."""
    if sampler not in SAMPLERS:
        raise ConfigError(f"sampler '{sampler}', expected one of {', '.join(SAMPLERS)}.")
    if not own:
        raise ConfigError("nothing varies; expected --set a.b=1,2,3.")
    if sampler == "grid" and trials is not None:
        raise ConfigError("a grid takes every combination; --trials is for random and tpe.")
    if sampler != "grid" and trials is None:
        raise ConfigError(f"sampler {sampler}: how many trials? Expected --trials 20.")
    content = load_config(config).model_dump()
    for setting in own:
        if sampler == "grid" and not setting.values:
            raise ConfigError(f"{setting.key}: a grid can't take all of a range; expected a list of values.")
        limit = int if setting.whole else float
        for value in setting.values or (limit(setting.low), limit(setting.high)):
            check_config(apply_changes(content, [_change(setting.key, value)]), str(config))


def _study(folder: Path, asked: list[str], prune: bool, seed: int, job: int) -> optuna.Study:
    """The trials of what is asked for, settings and sampler, those of earlier starts among them."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(folder / JOURNAL))),
        study_name=" ".join(asked),
        pruner=MedianPruner() if prune else NopPruner(),
        direction="maximize",
        load_if_exists=True,
    )
    # Neither another job nor a later start draws the same again.
    drawn = int(np.random.SeedSequence([seed, job, len(study.trials)]).generate_state(1)[0])
    study.sampler = TPESampler(seed=drawn) if asked[-1] == "tpe" else RandomSampler(seed=drawn)
    return study


def _requeue(study: optuna.Study, own: list[Setting]) -> None:
    """Trials that a killed sweep had begun are tried again; their runs go on where they stopped."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        if len(trial.params) == len(own):
            study.enqueue_trial(trial.params)


def _work(
    job: int,
    config: Path,
    own: list[Setting],
    folder: Path,
    make: Callable[[int], optuna.Study],
    wanted: int,
    threads: int,
) -> None:
    """Trials, one after the other, until there are as many as are wanted."""
    torch.set_num_threads(threads)
    study = make(job)
    while True:
        begun = [t for t in study.get_trials(deepcopy=False) if t.state in (*DONE, TrialState.RUNNING)]
        if len(begun) >= wanted:
            return
        trial = study.ask()
        try:
            study.tell(trial, _try(trial, config, own, folder))
        except optuna.TrialPruned:
            study.tell(trial, state=TrialState.PRUNED)
        except NonFiniteError as error:
            console.print(f"[yellow]{error}[/]")
            trial.set_user_attr("state", "diverged")
            study.tell(trial, state=TrialState.PRUNED)
        except KeyboardInterrupt:
            if multiprocessing.parent_process() is None:
                raise
            raise SystemExit(130) from None  # the first process says what there is to say
        row = _row(study.get_trials(deepcopy=False)[trial.number])
        ap = "" if row["AP"] is None else f", AP {row['AP']:.4f}"
        console.print(f"trial {trial.number + 1}: {row['run']}: {row['state']}{ap}", highlight=False)


def _try(trial: optuna.Trial, config: Path, own: list[Setting], folder: Path) -> float:
    """AP of a run with a trial's settings; one that is there already is taken, or goes on."""
    changes = [_change(setting.key, setting.suggest(trial)) for setting in own]
    name = _name(changes)
    trial.set_user_attr("run", name)
    trial.set_user_attr("changes", changes)

    def report(trainer: Trainer, numbers: dict[str, float]) -> None:
        trial.report(numbers["AP"], int(numbers["epoch"]))
        if trial.should_prune():
            raise optuna.TrialPruned

    begun = (folder / name / CONFIG).is_file()
    if begun and load_config(folder / name / CONFIG) != load_config(config, changes):
        raise ConfigError(f"{folder / name} is of an earlier {config}; give the sweep another --name.")
    if (folder / name / "evaluation.json").is_file():
        return float(json.loads((folder / name / "evaluation.json").read_text())["coco"]["AP"])
    if begun:
        run = train(config, name=name, runs=folder, resume=True, callbacks={"evaluation": report})
    else:
        run = train(config, changes, name, folder, callbacks={"evaluation": report})
    return float(run.evaluation.coco["AP"])


def _change(key: str, value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6).strip().removesuffix("...").strip()
    return f"{key}={text}"


def _name(changes: list[str]) -> str:
    """A folder's name that says what is set."""
    pairs = (change.partition("=") for change in changes)
    short = "_".join(f"{key.rpartition('.')[2]}={value}" for key, _, value in pairs)
    digest = hashlib.sha256("\n".join(changes).encode()).hexdigest()[:6]
    return re.sub(r"[^\w.=+-]+", "", short)[:LONGEST] + f"_{digest}"


def _rows(study: optuna.Study) -> list[dict[str, Any]]:
    """Best first; what was stopped early stands behind what was not."""
    rows = [_row(t) for t in study.get_trials(deepcopy=False) if t.state in DONE]
    return sorted(rows, key=lambda row: (row["state"] == "done", row["AP"] or 0.0), reverse=True)


def _row(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    pairs = (change.partition("=") for change in trial.user_attrs["changes"])
    early = trial.user_attrs.get("state", "stopped early")
    row: dict[str, Any] = {key: value for key, _, value in pairs}
    state = "done" if trial.state == TrialState.COMPLETE else early
    return row | {"AP": trial.value, "state": state, "run": trial.user_attrs["run"]}
