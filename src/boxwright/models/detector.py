"""What every detector is: three verbs, and who answers for whom."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from boxwright.assign import Assignment
from boxwright.data.targets import Targets
from boxwright.models.detections import Detections, Selection
from boxwright.models.points import count_priors


class Detector(nn.Module, ABC):
    """Images to raw outputs, outputs and targets to losses, outputs to detections.

    Attributes:
        selection: thresholds and limits of `decode`.
        follows_predictions: `assign` looks at what is predicted, not at the priors alone.
    """

    selection: Selection
    follows_predictions = False

    @abstractmethod
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images (B, 3, H, W) in 0..255 to raw outputs by name."""

    @abstractmethod
    def assign(self, outputs: dict[str, Tensor], targets: Targets) -> Assignment:
        """Which prior answers for which object: what `loss` is taken of, and `boxwright assign` draws."""

    def candidates(self, outputs: dict[str, Tensor], targets: Targets) -> Tensor:
        """(B, G) how many priors could answer for each object, whatever is predicted."""
        return count_priors(self.assign(outputs, targets).matched_gt, targets)

    @abstractmethod
    def loss(self, outputs: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        """Named scalars, to be summed."""

    @abstractmethod
    def decode(self, outputs: dict[str, Tensor], image_sizes: Tensor) -> list[Detections]:
        """Detections of each image after NMS, within `image_sizes` (B, 2), width and height."""
