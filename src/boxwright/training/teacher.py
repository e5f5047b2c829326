"""The moving average of the weights as a teacher: it finds boxes in images that have none, or too few."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from boxwright.config.augment import PIPELINES
from boxwright.config.teaching import TeacherConfig
from boxwright.data.degrading import HOLE
from boxwright.data.targets import Batch, Targets
from boxwright.geometry.torch_boxes import pairwise_iou
from boxwright.geometry.torch_rotated import as_hulls
from boxwright.models.detections import Detections
from boxwright.models.detector import Detector
from boxwright.models.set_boxes import to_centers, to_corners
from boxwright.prediction.detect import detect_images

SAME = 0.5  # IoU from which a box that the teacher finds is one that is labelled
HOLES = (0, 4)  # cut out of what the student sees, the last not included


class Teacher:
    """Adds boxes to batches; the student sees their images with stronger changes of colour and holes.

    Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017; for detection Liu et al.,
    Unbiased Teacher, ICLR 2021, section 3. With `labelled` it is Xu et al., MixTraining for Object Detection,
    2021, section 3.1.

    Args:
        config: from when on, and which boxes.
        unlabelled: (images,) bool, training images without labels.
    """

    def __init__(self, config: TeacherConfig, unlabelled: Tensor):
        self.config, self.unlabelled = config, unlabelled

    def waits(self, batch: Batch, weights: Tensor | None) -> Tensor:
        """(B,) weights of a batch's images before it starts: those without labels teach nothing."""
        known = (~self.unlabelled[batch.indices]).float()
        return known if weights is None else known * weights

    def label(
        self,
        model: Detector,
        batch: Batch,
        autocast: Callable[[], AbstractContextManager],
        rng: np.random.Generator,
    ) -> Batch:
        """A batch with what the teacher, a model in eval mode, has found in its images.

        Args:
            model: the average.
            batch: on the model's device.
            autocast: makes the context of mixed precision.
            rng: of the changes that the student sees.
        """
        rows = self.unlabelled[batch.indices] | self.config.labelled
        if not rows.any():
            return batch
        places = rows.nonzero()[:, 0]
        on_device = places.to(batch.images.device)
        found = detect_images(model, batch.images[on_device], batch.sizes[on_device], autocast=autocast)
        each: list[Detections | None] = [None] * len(rows)
        for place, detections in zip(places.tolist(), found):
            each[place] = detections
        targets = self._with(batch.targets, each, batch.sizes)
        images = batch.images.clone()
        images[on_device] = stronger(batch.images[on_device], rng)
        return replace(batch, images=images, targets=targets)

    def _with(self, targets: Targets, found: Sequence[Detections | None], sizes: Tensor) -> Targets:
        """Targets and, behind them, what was found (None: image not looked at) and isn't there yet."""
        width = 5 if any(d is not None and d.boxes.shape[1] == 5 for d in found) else 4
        nothing = sizes.new_zeros(0)
        pad = partial(pad_sequence, batch_first=True)
        boxes = pad([nothing.view(0, width) if d is None else d.boxes for d in found])
        scores = pad([nothing if d is None else d.scores for d in found])
        labels = pad([nothing.long() if d is None else d.labels for d in found])
        oriented = torch.full_like(labels, width == 5, dtype=torch.bool)
        hulls = to_corners(as_hulls(boxes)[..., :4]) if width == 5 else boxes
        hulls = torch.minimum(hulls.clamp(min=0), sizes.repeat(1, 2)[:, None])
        upright = to_centers(hulls)
        rotated = boxes if width == 5 else torch.cat([upright, torch.zeros_like(upright[..., :1])], dim=-1)
        known = (targets.mask | targets.ignore)[..., None]
        new = ((pairwise_iou(targets.boxes, hulls) >= SAME) & known).sum(1) == 0
        new &= (hulls[..., 2:] > hulls[..., :2]).all(-1)
        mask = new & (scores >= self.config.score)
        ignore = new & ~mask & (scores >= self.config.doubt)
        marks = targets.landmarks.new_full((*labels.shape, *targets.landmarks.shape[2:]), torch.nan)
        added = Targets(hulls, labels, mask, ignore, rotated, oriented, marks)
        names = [name for name, value in vars(added).items() if isinstance(value, Tensor)]
        both = {n: torch.cat([getattr(targets, n), getattr(added, n)], dim=1) for n in names}
        return Targets(**both, any_ignored=True)


def stronger(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Images (B, 3, H, W) uint8 under the colours of `pipeline: strong`, with holes of their mean colour."""
    strong, (count, _, height, width) = PIPELINES["strong"], images.shape
    change = rng.uniform(-1, 1, (count, 5))
    gains = (1 + change[:, :1] * strong["brightness"]) * (1 + change[:, 1:4] * strong["color"])
    factors = np.concatenate([gains, 1 + change[:, 4:] * strong["contrast"]], axis=1)
    own = torch.from_numpy(factors).to(images.device, torch.float32)[..., None, None]
    changed = ((images * own[:, :3] - 128) * own[:, 3:] + 128).round_().clamp_(0, 255)
    means = changed.mean((2, 3), keepdim=True).round_()
    for image, mean in zip(changed, means):
        for _ in range(rng.integers(*HOLES)):
            h, w = np.maximum(1, np.array([height, width]) * rng.uniform(*HOLE, 2)).astype(int)
            y, x = (int(rng.integers(side - own_side + 1)) for side, own_side in ((height, h), (width, w)))
            image[:, y : y + h, x : x + w] = mean
    return changed.to(torch.uint8)
