"""`boxwright train --ray 8`: the processes of a run as workers of a Ray cluster."""

import logging
import os
from pathlib import Path

import ray
import torch.distributed as dist
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError, WorkerGroupError
from ray.train.torch import TorchTrainer

from boxwright.config import check_config, load_config
from boxwright.errors import BoxwrightError, ConfigError, DataError
from boxwright.training.machine import on_cpu
from boxwright.training.run import run
from boxwright.training.run_folder import CONFIG, choose_folder
from boxwright.training.train import load_data, train

NOTES = ".ray"  # what Ray writes down for itself, in the folder of run folders


def train_on_ray(
    experiment: str | os.PathLike,
    workers: int,
    changes: list[str] | None = None,
    name: str | None = None,
    runs: str | os.PathLike = "runs",
    resume: bool = False,
    restarts: int = 3,
) -> Path:
    """`train` with so many processes: one for each GPU, or for each core where the cluster has no GPU.

    When a worker dies, all of them start again from the last checkpoint.

    Args:
        experiment: a YAML file.
        workers: how many.
        changes, name, resume: see `train`.
        runs: folder of run folders, on a disk that all machines see, as the data must be.
        restarts: a further death ends the run.

    Returns:
        The run's folder.

    Raises:
        ConfigError: the experiment can't be meant, or the cluster is too small.
        DataError: the run could not go on, and why; its last checkpoint stays.
    """
    if resume and changes:
        raise ConfigError("a run resumes with its own config; drop --set, or start a new run.")
    folder = choose_folder(Path(runs).resolve(), name or Path(experiment).stem, resume)
    config = load_config(folder / CONFIG if resume else experiment, changes)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not ray.is_initialized():
        ray.init(logging_level=logging.WARNING)  # the cluster of RAY_ADDRESS, or one of this machine
    kind = "GPU" if ray.cluster_resources().get("GPU") and not on_cpu() else "CPU"
    there = int(ray.cluster_resources().get(kind, 0))
    if not 1 <= workers <= there:
        raise ConfigError(f"--ray {workers}: the cluster has {there} {kind}s, expected 1 to {there} workers.")
    task = {"config": config.model_dump(mode="json"), "folder": str(folder), "kind": kind}
    trainer = TorchTrainer(
        _work,
        train_loop_config=task,
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=kind == "GPU"),
        run_config=RunConfig(
            name=folder.name,
            storage_path=str(folder.parent / NOTES),
            failure_config=FailureConfig(max_failures=restarts),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        failures = error.worker_failures.values() if isinstance(error, WorkerGroupError) else []
        reason = next((e for e in failures if isinstance(e, BoxwrightError)), error)
        raise DataError(f"{folder}: {reason}") from error
    return folder


def _work(task: dict) -> None:
    """One worker's part, when Ray has joined it to the others."""
    if task["kind"] == "CPU":
        os.environ["ACCELERATE_USE_CPU"] = "1"
    folder = Path(task["folder"])
    begun = (folder / CONFIG).is_file()  # before the driver came, or before a worker died
    dist.barrier()  # the first one writes it
    if begun:  # this very folder, whatever runs of its name have begun since
        config = load_config(folder / CONFIG)
        run(config, load_data(config), folder.name, folder.parent, folder)
    else:
        config = check_config(task["config"], "the experiment")
        train(config, name=folder.name, runs=folder.parent)
