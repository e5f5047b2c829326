"""FreeAnchor: RetinaNet whose anchors are free to choose their boxes.

Zhang et al., FreeAnchor: Learning to Match Anchors for Visual Object Detection, NeurIPS 2019. Each box has a
bag of anchors, of which at least one must find it; which one, training decides.
"""

import torch
from torch import Tensor

from boxwright.assign import BACKGROUND, Assignment
from boxwright.config.models import FreeAnchorConfig
from boxwright.data.targets import Targets
from boxwright.geometry.torch_boxes import pairwise_iou
from boxwright.losses.box import smooth_l1_loss
from boxwright.losses.normalizer import mean_over_processes
from boxwright.models.box_coder import encode_deltas
from boxwright.models.points import assignment_of_points
from boxwright.models.retinanet import RetinaNet

TINY = 1e-12


class FreeAnchor(RetinaNet):
    """RetinaNet with another loss; see the module's docstring.

    Args:
        smooth_l1_beta: where the box loss turns linear.
        bag: anchors of greatest IoU that a box may choose from.
        box_iou: from which a predicted box begins to count as a match.
        alpha: weight of the positive bags against the negative.
        gamma: of the focal form of the negative bags.
        box_weight: of the box loss within a match's probability.
    """

    def __init__(
        self,
        *parts,
        smooth_l1_beta: float,
        bag: int,
        box_iou: float,
        alpha: float,
        gamma: float,
        box_weight: float,
    ):
        super().__init__(*parts, deviations=(0.1, 0.1, 0.2, 0.2))
        self.smooth_l1_beta = smooth_l1_beta
        self.bag, self.box_iou, self.alpha, self.gamma = bag, box_iou, alpha, gamma
        self.box_weight = box_weight

    @classmethod
    def from_config(cls, config: FreeAnchorConfig, num_classes: int) -> "FreeAnchor":
        """Build the parts that a checked config describes."""
        return cls(
            *cls.parts_of(config, num_classes),
            smooth_l1_beta=config.smooth_l1_beta,
            bag=config.bag,
            box_iou=config.box_iou,
            alpha=config.alpha,
            gamma=config.gamma,
            box_weight=config.box_weight,
        )

    def assign(self, outputs: dict[str, Tensor], targets: Targets) -> Assignment:
        """Anchors that are in a box's bag: of the box they overlap most. Training chooses among them."""
        anchors = outputs["anchors"]
        if targets.boxes.shape[1] == 0:
            none = torch.full((len(targets.boxes), len(anchors)), BACKGROUND, device=anchors.device)
            return assignment_of_points(anchors[:, :2], targets, none)
        iou, bag = self._bags(anchors, targets)
        offered = torch.full_like(iou, -1.0).scatter_(2, bag, iou.gather(2, bag))
        best, matched_gt = (offered * targets.mask[:, :, None]).max(dim=1)
        matched_gt = torch.where(best > 0, matched_gt, BACKGROUND)
        return assignment_of_points((anchors[:, :2] + anchors[:, 2:]) / 2, targets, matched_gt)

    def _bags(self, anchors: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """(B, G, A) IoUs, and (B, G, K) the anchors of greatest IoU."""
        iou = pairwise_iou(targets.boxes, anchors)
        return iou, iou.topk(min(self.bag, iou.shape[2]), dim=2).indices

    def loss(self, outputs: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        """The losses `positive` and `negative` of section 3.3, each a scalar."""
        probability = outputs["cls_logits"].float().sigmoid()  # (B, A, C)
        objects = mean_over_processes(targets.mask.float().sum())
        found = self._found(outputs, targets, probability.shape[-1])
        # Equation 9: what is likely an object of a class and matches none.
        wrong = (probability * (1 - found)).clamp(TINY, 1 - 1e-7)
        negative = (1 - self.alpha) * wrong.pow(self.gamma) * -torch.log1p(-wrong)
        centers = (outputs["anchors"][:, :2] + outputs["anchors"][:, 2:]) / 2
        matched_gt = (found > 0).any(-1).long() - 1
        counted = ~assignment_of_points(centers, targets, matched_gt).ignored
        return {
            "positive": self._positive(outputs, targets, probability).sum() / objects,
            "negative": (negative * counted[..., None]).sum() / (objects * self.bag),
        }

    def _positive(self, outputs: dict[str, Tensor], targets: Targets, probability: Tensor) -> Tensor:
        """(B, G) the loss of each box's bag, equation 6 and 7; 0 for padding."""
        if targets.boxes.shape[1] == 0:
            return probability.sum() * 0
        anchors, deltas = outputs["anchors"], outputs["box_deltas"].float()
        _, bag = self._bags(anchors, targets)
        flat = bag.flatten(1)
        of_label = targets.labels.repeat_interleave(bag.shape[2], dim=1)[..., None]  # (B, G * K, 1)
        chosen = probability.gather(1, flat[..., None].expand(-1, -1, probability.shape[2]))
        cls_probability = chosen.gather(2, of_label).view(bag.shape)
        predicted = deltas.gather(1, flat[..., None].expand(-1, -1, 4)).view(*bag.shape, 4)
        wanted = encode_deltas(anchors[bag], targets.boxes[:, :, None]) / self.deviations
        box_loss = self.box_weight * smooth_l1_loss(predicted, wanted, self.smooth_l1_beta)
        match = cls_probability * torch.exp(-box_loss)
        # Mean-max: the mean of a poor bag, the maximum of a good one.
        weight = 1 / (1 - match).clamp(min=TINY)
        likely = (weight * match).sum(2) / weight.sum(2)
        # Padding, whose bag can't find it, would have a slope of 0 times infinity.
        loss = -likely.clamp(min=torch.finfo(likely.dtype).tiny).log()
        return torch.where(targets.mask, self.alpha * loss, 0.0)

    @torch.no_grad()
    def _found(self, outputs: dict[str, Tensor], targets: Targets, classes: int) -> Tensor:
        """(B, A, C) the probability that each anchor's box is an object of each class, equation 8."""
        boxes = self.boxes(outputs)  # (B, A, 4)
        batch, count, _ = boxes.shape
        result = boxes.new_zeros(batch, classes, count)
        if targets.boxes.shape[1]:
            iou = pairwise_iou(targets.boxes, boxes)  # (B, G, A)
            greatest = iou.amax(2, keepdim=True).clamp(min=self.box_iou + TINY)
            match = ((iou - self.box_iou) / (greatest - self.box_iou)).clamp(0, 1) * targets.mask[..., None]
            label = targets.labels[..., None].expand_as(match)
            result.scatter_reduce_(1, label, match, "amax")
        return result.transpose(1, 2)
