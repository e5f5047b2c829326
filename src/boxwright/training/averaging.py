"""`boxwright average`: one detector whose weights are the mean of several checkpoints'.

Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization, UAI 2018; of several runs
that started from the same weights, Wortsman et al., Model Soups, ICML 2022.
"""

import copy
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from boxwright.config.experiment import View
from boxwright.data.dataset import DetectionDataset
from boxwright.data.tables import Tables
from boxwright.errors import CheckpointError, ConfigError
from boxwright.evaluation.evaluate import Evaluation, evaluate
from boxwright.evaluation.operating import fit_operating
from boxwright.models.checkpoint import LoadedDetector, load_detector, save_detector
from boxwright.models.detector import Detector, collate_for
from boxwright.prediction.detect import detect, to_tables
from boxwright.progress import console, progress_bar
from boxwright.training.norms import draws_that_tell, gather_statistics
from boxwright.training.opening import open_experiment

JUDGED = ("AP", "AP50", "AP75")


@dataclass(frozen=True)
class Average:
    """The mean of checkpoints.

    Attributes:
        rows: checkpoint, AP, AP50 and AP75 of each that was given, then of the mean.
        used: the checkpoints that the mean is of.
    """

    rows: list[dict[str, Any]]
    used: list[str]


def average(
    checkpoints: Sequence[str | os.PathLike],
    output: str | os.PathLike | None = None,
    greedy: bool = False,
    views: Sequence[View] = ("plain",),
) -> Average:
    """Average weights, and judge each checkpoint and the mean on the first one's validation data.

    Statistics of batch norms are gathered anew, from the first one's training images (`training.norms`).

    Args:
        checkpoints: run folders or .safetensors files of one architecture and class list; of one run
            (`train.keep`), or of runs from the same weights.
        output: where to write the mean, .safetensors, with the thresholds that fit it.
        greedy: begin with the best, and keep a further one where the mean gets no worse by it. The
            validation data have then chosen.
        views: flips that an image is judged in.

    Raises:
        ConfigError: fewer than two checkpoints.
        CheckpointError: one can't be used, or isn't like the others.
        DataError: the data can't be read.

    Example:
        >>> epochs = sorted(Path("runs/bccd/checkpoints").glob("epoch-*.safetensors"))
        >>> boxwright.average(epochs, "runs/bccd/mean.safetensors").rows
    """
    if len(checkpoints) < 2:
        raise ConfigError(f"{len(checkpoints)} checkpoint, expected two at least.")
    loaded = [load_detector(place) for place in checkpoints]
    names = [str(place) for place in checkpoints]
    for name, other in zip(names[1:], loaded[1:]):
        _check_alike(names[0], loaded[0], name, other)
    truth = open_experiment(checkpoints[0], "val").tables
    judge = _Judge(truth, loaded[0], views)
    evaluations = [judge(one.model, name) for name, one in zip(names, loaded)]
    rows = [_row(name, evaluation) for name, evaluation in zip(names, evaluations)]
    states = [one.model.state_dict() for one in loaded]
    chosen = list(range(len(states)))
    mean_of = _Means(loaded[0], open_experiment(checkpoints[0], "train").tables, judge.device)
    if greedy:
        chosen = _chosen(states, rows, mean_of, judge)
    model = mean_of([states[n] for n in chosen])
    evaluation = judge(model, "the mean")
    if output is not None:
        operating = fit_operating(truth, evaluation.predictions, loaded[0].config.train.wanted_precision)
        first = loaded[0]
        save_detector(model, first.config, first.categories, Path(output), first.statistics, operating)
    return Average([*rows, _row("mean", evaluation)], [names[n] for n in chosen])


def _check_alike(name: str, first: LoadedDetector, other_name: str, other: LoadedDetector) -> None:
    if first.categories != other.categories:
        raise CheckpointError(f"{other_name} finds {other.categories}, {name} finds {first.categories}.")
    shapes, others = ({n: t.shape for n, t in m.model.state_dict().items()} for m in (first, other))
    for key in sorted({*shapes, *others}):
        if shapes.get(key) != others.get(key):
            found, expected = (tuple(s[key]) if key in s else "nothing" for s in (others, shapes))
            raise CheckpointError(f"{other_name}: {key} is {found}, and {expected} in {name}.")


class _Judge:
    """Evaluates a model on tables."""

    def __init__(self, truth: Tables, like: LoadedDetector, views: Sequence[View]):
        self.truth, self.views, self.categories = truth, views, like.categories
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dataset = DetectionDataset(truth, like.config.image_size)
        self.loader = DataLoader(dataset, like.config.train.batch_size, collate_fn=collate_for(like.model))

    def __call__(self, model: Detector, name: str) -> Evaluation:
        with progress_bar(f"judge {name}", len(self.truth.images)) as tell:
            moved = model.eval().to(self.device)
            rows = detect(moved, self.loader, self.device, self.views, tell=tell)
        return evaluate(self.truth, to_tables(rows, self.truth.images, self.categories, name))


def _row(name: str, evaluation: Evaluation) -> dict[str, Any]:
    return {"checkpoint": name} | {key: evaluation.coco[key] for key in JUDGED}


def _chosen(
    states: list[dict[str, Tensor]], rows: list[dict[str, Any]], mean_of: "_Means", judge: _Judge
) -> list[int]:
    """Places of the greedy soup's ingredients, best first (Wortsman et al., recipe 1)."""
    best, *others = sorted(range(len(rows)), key=lambda n: -rows[n]["AP"])
    chosen, reached = [best], rows[best]["AP"]
    for n in others:
        tried = judge(mean_of([states[m] for m in [*chosen, n]]), rows[n]["checkpoint"]).coco["AP"]
        console.print(f"with {rows[n]['checkpoint']}: AP {tried:.4f}, before {reached:.4f}")
        if tried >= reached:
            chosen, reached = [*chosen, n], tried
    return chosen


class _Means:
    """Makes means of states, in one model."""

    def __init__(self, like: LoadedDetector, tables: Tables, device: torch.device):
        self.device = device
        self.model = copy.deepcopy(like.model)  # states are the loaded models' own tensors
        config, settings = like.config, like.config.train
        tight = config.data.sampling.alike == "shape"
        dataset = DetectionDataset(
            tables, config.image_size, config.augment, settings.seed, mixed_epochs=0, tight=tight
        )
        self.draws = draws_that_tell(len(dataset), settings.batch_size, settings.seed)
        collate = collate_for(like.model)
        self.loader = DataLoader(dataset, settings.batch_size, sampler=self.draws, collate_fn=collate)

    def __call__(self, states: list[dict[str, Tensor]]) -> Detector:
        """The model with the mean of the states; of whole numbers the first's."""
        mean = {}
        for key, first in states[0].items():
            same = [state[key] for state in states]
            mean[key] = torch.stack(same).mean(0) if first.is_floating_point() else first
        self.model.load_state_dict(mean)
        moved = self.model.to(self.device)
        gather_statistics(moved, _as_trained(moved, states), self._images())
        return moved

    def _images(self) -> Iterator[Tensor]:
        with progress_bar("statistics of the mean's norms", len(self.draws)) as tell:
            for batch in self.loader:
                yield batch.images.to(self.device)
                tell(len(batch.images))


def _as_trained(model: Detector, states: list[dict[str, Tensor]]) -> Detector:
    """A copy whose norms are in training mode where their statistics differ: frozen ones are alike in all."""
    like = copy.deepcopy(model).eval()
    for name, module in like.named_modules():
        own = [state[f"{name}.running_mean"] for state in states if f"{name}.running_mean" in state]
        module.training = any(not torch.equal(own[0], other) for other in own[1:])
    return like
