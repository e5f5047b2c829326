"""What becomes of a batch on the device before the model sees it: its size, and a teacher's boxes."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from boxwright.config import ExperimentConfig
from boxwright.data.targets import Batch
from boxwright.models.detector import Detector
from boxwright.training.teacher import Teacher


class Preparation:
    """Sizes and truth of the batches of a run, which seed, step and process decide.

    Args:
        config: the experiment.
        stride, least_side: of the detector.
        images: in training.
        weights: (images,) on their gradients; None: all count alike.
        unlabelled: (images,) bool, those whose boxes `train.teacher` finds; None: none.
        process: its number.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        stride: int,
        least_side: int,
        images: int,
        weights: Tensor | None,
        unlabelled: Tensor | None,
        process: int,
    ):
        self.augment, self.seed, self.process = config.augment.applied(), config.train.seed, process
        self.stride, self.least_side = stride, least_side
        self.weights = weights
        self.teacher = None
        if config.train.teacher is not None:
            none = torch.zeros(images, dtype=torch.bool)
            self.teacher = Teacher(config.train.teacher, none if unlabelled is None else unlabelled)

    def resized(self, batch: Batch, step: int, n: int, share: float) -> Batch:
        """The nth batch of a step at a size of its own.

        Small images first: Tan and Le, EfficientNetV2, ICML 2021, section 4.

        Args:
            batch: on the device.
            step, n: its place.
            share: of the run, that is done.
        """
        low, high = (math.log(factor) for factor in self.augment.batch_scale)
        factor = math.exp(self._rng(step, n).uniform(low, high)) * self.augment.growth(share)
        return batch if factor == 1 else batch.scaled(factor, self.stride, self.least_side)

    def taught(
        self,
        batch: Batch,
        step: int,
        n: int,
        share: float,
        average: AveragedModel | None,
        autocast: Callable[[], AbstractContextManager],
    ) -> tuple[Batch, Tensor | None]:
        """The same with the boxes of the teacher, where there is one, and weights of its images.

        Args:
            batch, step, n, share: see `resized`.
            average: of the weights: the teacher.
            autocast: makes the context of mixed precision.
        """
        weights = None if self.weights is None else self.weights[batch.indices]
        if self.teacher is None or average is None:
            return batch, weights
        if share < self.teacher.config.start:
            return batch, self.teacher.waits(batch, weights)
        model = cast(Detector, average.module.eval())
        return self.teacher.label(model, batch, autocast, self._rng(step, n, 1)), weights

    def _rng(self, step: int, n: int, *which: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, step, n, self.process, *which))
