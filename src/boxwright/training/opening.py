"""What commands that look at a model and its data open: a YAML file, a run folder or a checkpoint."""

import os
from dataclasses import dataclass
from pathlib import Path

from boxwright.config import ExperimentConfig, load_config
from boxwright.data.sources import load_parts, select_classes
from boxwright.data.tables import Tables, concat
from boxwright.errors import ConfigError
from boxwright.models import build_detector
from boxwright.models.checkpoint import load_detector, without_pretrained
from boxwright.models.detector import Detector
from boxwright.training.freezing import freeze


@dataclass(frozen=True)
class Opened:
    """An experiment, its model in eval mode, and the tables of a part of its data.

    Attributes:
        config: the experiment.
        model: of random weights where a YAML file was opened; what its config freezes gets no gradients.
        tables: with the model's categories.
        trained: whether the weights were trained.
    """

    config: ExperimentConfig
    model: Detector
    tables: Tables
    trained: bool


def open_experiment(
    experiment: str | os.PathLike, part: str = "train", changes: list[str] | None = None
) -> Opened:
    """Open an experiment's model and data.

    Args:
        experiment: a YAML file, a run folder or a checkpoint.
        part: "train" or "val".
        changes: `a.b.c=value` on top of a YAML file.

    Raises:
        ConfigError: an unknown part, changes of a run, or a part to freeze that isn't there.
        DataError: the data can't be read.
        CheckpointError: the checkpoint can't be used.
    """
    if part not in ("train", "val"):
        raise ConfigError(f"--data {part}: expected train or val.")
    if Path(experiment).suffix in (".yaml", ".yml"):
        config = load_config(experiment, changes)
        model, classes = None, config.data.classes
    elif changes:
        raise ConfigError("--set changes a YAML file; a run has its own config.")
    else:
        loaded = load_detector(experiment)
        config, model, classes = loaded.config, loaded.model, loaded.categories
    learnt, judged = load_parts(config.data)
    tables = concat(learnt) if part == "train" else judged
    ignored = config.data.ignore
    own = [name for name in tables.categories["name"] if name not in ignored]
    tables, _ = select_classes(tables, classes or own, ignored)
    trained = model is not None
    if model is None:
        model = build_detector(without_pretrained(config).model, len(tables.categories)).eval()
    freeze(model, config.model.freeze)
    return Opened(config, model, tables, trained)
