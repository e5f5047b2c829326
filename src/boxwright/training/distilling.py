"""A trained detector as a teacher: its scores and boxes at every place are learnt beside the labels."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from boxwright.config.experiment import View
from boxwright.config.teaching import DistillConfig
from boxwright.errors import ConfigError
from boxwright.losses.box import giou_loss
from boxwright.losses.classification import quality_focal_loss
from boxwright.losses.normalizer import mean_over_processes
from boxwright.losses.rotated import prob_iou_loss
from boxwright.models.checkpoint import load_detector
from boxwright.models.detections import Detections
from boxwright.models.detector import Detector, full_precision
from boxwright.prediction.views import from_view, to_view


class Distiller:
    """A teacher, and the losses of a student beside it.

    Scores as in Li et al., Generalized Focal Loss, NeurIPS 2020, equation 4, with the teacher's in place of a
    quality: where both agree nothing is learnt. Boxes count by the teacher's best score at their place, as in
    Zheng et al., Localization Distillation, CVPR 2022, section 3.3, where the labels alone would choose the
    places. Both are divided by the sum of these scores.

    Args:
        config: which teacher, and what its losses count.
        student: the detector that is trained.
        categories: its classes.
        device: where it is trained.

    Raises:
        ConfigError: teacher and student have other classes or places, or mirror images have other places.
        CheckpointError: the checkpoint can't be used.
    """

    def __init__(self, config: DistillConfig, student: Detector, categories: list[str], device: torch.device):
        loaded = load_detector(config.checkpoint)
        self.config, self.student = config, student
        self.teacher = loaded.model.to(device).requires_grad_(False)
        if loaded.categories != categories:
            raise ConfigError(
                f"train.distill: the classes of {config.checkpoint} are {', '.join(loaded.categories)}; "
                f"expected {', '.join(categories)}, in this order."
            )
        self._check_places(device)

    def losses(
        self,
        outputs: dict[str, Tensor],
        images: Tensor,
        autocast: Callable[[], AbstractContextManager],
    ) -> dict[str, Tensor]:
        """`taught_cls` and `taught_box`, scalars.

        Args:
            outputs: of the student, in float32.
            images: (B, 3, H, W) what it saw, padding included.
            autocast: makes the context of mixed precision.
        """
        looked = [self._look(images, view, autocast) for view in self.config.views]
        scores = torch.stack([scores for scores, _ in looked]).mean(0)
        total = mean_over_processes(scores.amax(-1).sum())
        own = self.student.boxes(outputs)
        compare = prob_iou_loss if own.shape[-1] == 5 else giou_loss
        apart = [(compare(own, boxes) * each.amax(-1)).sum() for each, boxes in looked]
        cls_loss = quality_focal_loss(outputs["cls_logits"], scores).sum() / total
        box_loss = torch.stack(apart).mean() / total
        return {"taught_cls": self.config.weight * cls_loss, "taught_box": self.config.weight * box_loss}

    @torch.no_grad()
    def _look(
        self, images: Tensor, view: View, autocast: Callable[[], AbstractContextManager]
    ) -> tuple[Tensor, Tensor]:
        """Scores (B, P, C) and boxes (B, P, 4 or 5) of a mirror image, at the places of the image."""
        height, width = images.shape[-2:]
        size = images.new_tensor([width, height], dtype=torch.float32)
        # With the padding, so that the places of the mirror image are the mirror images of the places.
        mirrored, _ = to_view(images, size.expand(len(images), 2), view)
        with autocast():
            outputs = full_precision(self.teacher(mirrored))
        scores, boxes = outputs["cls_logits"].sigmoid(), self.teacher.boxes(outputs)
        if view == "plain":
            return scores, boxes
        order = self._order(height, width, view, scores.shape[1], images.device)
        flat = boxes[:, order].flatten(0, 1)
        back = from_view(Detections(flat, flat[:, 0], flat[:, 0].long()), size, view).boxes
        return scores[:, order], back.view_as(boxes)

    def _order(self, height: int, width: int, view: View, places: int, device: torch.device) -> Tensor:
        """(P,) of each place its mirror image's; those of a level lie row by row, its anchors at each."""
        shapes = [(height // stride, width // stride) for stride in self.teacher.strides]
        anchors = places // sum(h * w for h, w in shapes)
        axes = {"horizontal": [1], "vertical": [0], "both": [0, 1]}[view]
        parts, done = [], 0
        for h, w in shapes:
            own = torch.arange(done, done + h * w * anchors, device=device)
            parts.append(own.view(h, w, anchors).flip(axes).flatten())
            done += h * w * anchors
        return torch.cat(parts)

    @torch.no_grad()
    def _check_places(self, device: torch.device) -> None:
        """Compare both on an image of one colour."""
        side = max(64, *(model.stride for model in (self.student, self.teacher)))
        blank = torch.zeros(1, 3, side, 2 * side, device=device)
        shapes = []
        for model in (self.student.to(device), self.teacher):
            training = model.training
            outputs = model.eval()(blank)
            model.train(training)
            shapes.append((tuple(outputs["cls_logits"].shape[1:]), model.boxes(outputs).shape[-1]))
        if shapes[0] != shapes[1]:
            described = [f"{p:,} places of {c} classes, {n} numbers a box" for (p, c), n in shapes]
            raise ConfigError(
                f"train.distill: {self.config.checkpoint} has {described[1]} on {2 * side} x {side} px;"
                f" expected the student's {described[0]}."
            )
        uneven = [s for s in self.teacher.strides if self.student.stride % s]
        if self.config.views != ("plain",) and uneven:
            raise ConfigError(
                f"train.distill.views: batches are padded to {self.student.stride} px, so that at stride"
                f" {uneven[0]} a mirror image has other places; expected [plain]."
            )
