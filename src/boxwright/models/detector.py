"""The interface of every detector: forward, assign, loss and decode."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from boxwright.assign import Assignment
from boxwright.data.dataset import collate
from boxwright.data.targets import Batch, Targets
from boxwright.errors import ConfigError
from boxwright.models.detections import Detections, Scored, Selection, select_detections
from boxwright.models.points import count_priors


class Detector(nn.Module, ABC):
    """Images to raw outputs, outputs and targets to losses, outputs to detections.

    Attributes:
        selection: thresholds and limits of `decode`.
        strides: of the maps that its places lie on, level by level, row by row; none where it has none.
        stride, least_side: pixels; batches are padded to a multiple of the one, to no less than the other.
        pads: it does so itself, and takes batches of any size.
        oriented: it finds oriented boxes.
        finds_landmarks: of faces.
        finds_headings: the angle of its oriented boxes is that of the front.
        follows_predictions: `assign` depends on the predictions, not on the priors alone.
    """

    selection: Selection
    strides: tuple[int, ...] = ()
    stride = 32
    least_side = 0
    pads = False
    oriented = False
    finds_landmarks = False
    finds_headings = False
    follows_predictions = False

    def padded(self, size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) that images fitted into `size` are padded to at most."""
        width, height = (-(-max(side, self.least_side) // self.stride) * self.stride for side in size)
        return width, height

    @abstractmethod
    def forward(self, images: Tensor, targets: Targets | None = None) -> dict[str, Tensor]:
        """Images to raw outputs by name.

        Args:
            images: (B, 3, H, W) in 0..255.
            targets: given in training. Where truth goes through the network (sampled regions of a two-stage
                detector, denoising queries), what is learnt from it is among the outputs then. Parameters
                are used here alone, not in `loss`, so that several processes share their gradients. Most
                detectors compute the same with and without.
        """

    @abstractmethod
    def assign(self, outputs: dict[str, Tensor], targets: Targets) -> Assignment:
        """Which prior is assigned to which object: what `loss` is taken of, and `boxwright assign` draws."""

    def candidates(self, outputs: dict[str, Tensor], targets: Targets) -> Tensor:
        """(B, G) how many priors could be assigned to each object, whatever is predicted."""
        return count_priors(self.assign(outputs, targets).matched_gt, targets)

    def boxes(self, outputs: dict[str, Tensor]) -> Tensor:
        """The boxes of all places, whose logits are the outputs' `cls_logits` (B, P, C) without a background;
        (B, P, 4) xyxy or (B, P, 5) oriented, pixels, in float32.

        Raises:
            ConfigError: its boxes are those of a set or of proposals, or scored otherwise.
        """
        raise ConfigError(f"{type(self).__name__}'s boxes have no places of their own.")

    @abstractmethod
    def loss(self, outputs: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        """Named scalars, to be summed."""

    @abstractmethod
    def scored(self, outputs: dict[str, Tensor], image_sizes: Tensor) -> Scored:
        """Boxes and scores of all places, within `image_sizes` (B, 2), width and height."""

    def decode(self, outputs: dict[str, Tensor], image_sizes: Tensor) -> list[Detections]:
        """Detections of each image after NMS, within `image_sizes` (B, 2), width and height."""
        return select_detections(self.scored(outputs, image_sizes), self.selection)


def full_precision(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Raw outputs in float32, whatever they were computed in; counts stay whole numbers."""
    return {name: t.float() if t.is_floating_point() else t for name, t in outputs.items()}


def weigh(outputs: dict[str, Tensor], weights: Tensor) -> None:
    """Multiply what each image teaches, the gradients of its outputs (B, ...), by its weight (B,).

    Losses are divided by the objects of the whole batch, whatever their weights.
    """
    for output in outputs.values():
        if output.requires_grad:
            factor = weights.view(-1, *[1] * (output.ndim - 1))
            output.register_hook(lambda gradient, factor=factor: gradient * factor.to(gradient.dtype))


def collate_for(model: Detector) -> Callable[..., Batch]:
    """What makes batches of the sizes that a detector takes; it travels to a loader's workers without it."""
    stride, least = (1, 0) if model.pads else (model.stride, model.least_side)
    return partial(collate, stride=stride, least=least)
