"""A classifier of whole images, from which a detector's backbone learns before there are boxes.

An image is one object, the box around all of it; so training, judging and reports are those of detectors.
With as many classes as images, and cosines for logits, it learns without labels: Dosovitskiy et al.,
Discriminative Unsupervised Feature Learning with Exemplar CNNs, TPAMI 2016; Cao et al., Parametric Instance
Classification for Unsupervised Visual Feature Learning, NeurIPS 2020, section 3.1.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.assign import BACKGROUND, Assignment
from boxwright.config.detectors import ClassifierConfig
from boxwright.data.targets import Targets
from boxwright.losses.normalizer import mean_over_processes
from boxwright.models import build_detector
from boxwright.models.detections import Scored, Selection
from boxwright.models.detector import Detector
from boxwright.models.points import one_hot
from boxwright.models.sets import count_of_queries


class Classifier(Detector):
    """See the module's docstring.

    Args:
        normalize, backbone: of a detector; the backbone's last map is averaged.
        classes: weights (C, channels) and biases of the classes.
        temperature: that divides the cosines of features and classes; None: plain logits.
        stride, least_side: of the batches; the latter so that no image's average depends on those beside it.
    """

    selection = Selection(score_threshold=0.0)

    def __init__(
        self,
        normalize: nn.Module,
        backbone: nn.Module,
        classes: nn.Linear,
        temperature: float | None,
        stride: int,
        least_side: int,
    ):
        super().__init__()
        self.normalize, self.backbone, self.classes = normalize, backbone, classes
        self.temperature, self.stride, self.least_side = temperature, stride, least_side

    @classmethod
    def from_config(cls, config: ClassifierConfig, num_classes: int) -> "Classifier":
        """The backbone of the detector that a checked config describes, with one output a class."""
        detector = build_detector(config.detector, 1)
        normalize, backbone = detector.normalize, cast(Any, detector.backbone)
        classes = nn.Linear(backbone.channels[-1], num_classes, bias=config.temperature is None)
        return cls(
            cast(nn.Module, normalize),
            backbone,
            classes,
            config.temperature,
            detector.stride,
            max(config.canvas, detector.least_side),
        )

    def forward(self, images: Tensor, targets: Targets | None = None) -> dict[str, Tensor]:
        """Images (B, 3, H, W) in 0..255 to cls_logits (B, C) and anchors (1, 4), xyxy of the whole input."""
        features = self.backbone(self.normalize(images))[-1].mean(dim=(2, 3))
        if self.temperature is None:
            logits = self.classes(features)
        else:
            logits = F.linear(F.normalize(features), F.normalize(self.classes.weight)) / self.temperature
        height, width = images.shape[-2:]
        anchors = torch.tensor([[0, 0, width, height]], dtype=torch.float32, device=images.device)
        return {"cls_logits": logits, "anchors": anchors}

    def assign(self, outputs: dict[str, Tensor], targets: Targets) -> Assignment:
        """The first object of each image is what the image shows."""
        batch, device = outputs["cls_logits"].shape[0], outputs["cls_logits"].device
        none = torch.zeros(batch, 1, dtype=torch.bool, device=device)
        there = targets.mask[:, :1] if targets.mask.shape[1] else none
        return Assignment(torch.where(there, 0, BACKGROUND), none)

    def candidates(self, outputs: dict[str, Tensor], targets: Targets) -> Tensor:
        """One an image."""
        return count_of_queries(1, targets)

    def loss(self, outputs: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        """The cross-entropy `cls`, averaged over the images that have a class."""
        logits = outputs["cls_logits"]
        there = self.assign(outputs, targets).matched_gt[:, 0] >= 0
        labels = targets.labels[:, 0] if targets.labels.shape[1] else there.long()
        losses = F.cross_entropy(logits, labels, reduction="none")
        return {"cls": (losses * there).sum() / mean_over_processes(there.sum())}

    def scored(self, outputs: dict[str, Tensor], image_sizes: Tensor) -> Scored:
        """The likeliest class of each image, whose box is the whole image."""
        scores = outputs["cls_logits"].softmax(-1)
        likeliest = scores * one_hot(scores.argmax(-1), scores.shape[-1])
        whole = torch.cat([torch.zeros_like(image_sizes), image_sizes], dim=1).to(scores.dtype)
        return Scored(whole[:, None], likeliest[:, None], one_each=True)
