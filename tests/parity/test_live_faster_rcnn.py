"""Faster R-CNN beside torchvision's on the same weights: proposals, losses of equal samples, detections."""

import pytest
import torch
from torch import Tensor
from torchvision.models import detection as torchvision_models

from boxwright.models import faster_rcnn
from tests.parity.test_live import BOXES, CLASSES, LABELS, ours_of, same_detections, shaken, truth

SIDE = 256
PROPOSALS = 600
CONFIG = {
    "name": "faster_rcnn",
    "backbone": {"name": "resnet50", "pretrained": False},
    "neck": {"channels": 256},
    "anchors": {"rounded": True},
    "rpn": {
        "assigner": {"peak_to": "best", "least_peak": 0.0}, "smooth_l1_beta": 1 / 9, "proposals": PROPOSALS,
        "candidates": 500, "train_candidates": 500,
    },
    "regions": {"sampling_ratio": 2, "aligned": False, "smooth_l1_beta": 1 / 9},
    "selection": {
        "score_threshold": 0.05, "iou_threshold": 0.5, "max_detections": 100, "candidates": 100_000,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def pair():
    """Theirs, ours, an image in 0..255 and the same as their transform makes it."""
    torch.manual_seed(0)
    theirs = torchvision_models.fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=CLASSES + 1, min_size=SIDE, max_size=SIDE,
        rpn_pre_nms_top_n_train=500, rpn_pre_nms_top_n_test=500,
        rpn_post_nms_top_n_train=PROPOSALS, rpn_post_nms_top_n_test=PROPOSALS,
    )  # fmt: skip
    theirs = shaken(theirs)
    with torch.no_grad():
        theirs.rpn.head.bbox_pred.weight.mul_(0.02)
        # Regions of several classes, and boxes that move a little.
        theirs.roi_heads.box_predictor.cls_score.weight.mul_(0.1)
        theirs.roi_heads.box_predictor.bbox_pred.weight.mul_(0.1)
    image = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    mean, std = (
        torch.tensor(v)[:, None, None] for v in (theirs.transform.image_mean, theirs.transform.image_std)
    )
    return theirs, ours_of("faster_rcnn", theirs, "torchvision", CONFIG), image * 255, (image - mean) / std


def first_of(positive: Tensor, negative: Tensor, count: int, positive_share: float) -> Tensor:
    """A sample without chance: the first positives and negatives."""
    hits = positive & (positive.cumsum(1) <= int(count * positive_share))
    return hits | (negative & (negative.cumsum(1) <= count - hits.sum(1, keepdim=True)))


class First:
    """The same in the place of torchvision's sampler."""

    def __init__(self, count: int, positive_share: float):
        self.sizes = count, positive_share

    def __call__(self, matched: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        chosen = [first_of((m >= 1)[None], (m == 0)[None], *self.sizes)[0] for m in matched]
        return [c & (m >= 1) for c, m in zip(chosen, matched)], [
            c & (m == 0) for c, m in zip(chosen, matched)
        ]


def images_of(normalized: Tensor):
    from torchvision.models.detection.image_list import ImageList

    return ImageList(normalized, [tuple(normalized.shape[-2:])])


def test_proposals_are_the_same(pair):
    theirs, ours, image, normalized = pair
    with torch.no_grad():
        (expected,), _ = theirs.rpn(images_of(normalized), theirs.backbone(normalized))
        found = ours(image)
    own = found["regions"][0, 0][found["region_mask"][0, 0]]
    assert len(own) == len(expected) > 100
    distances = (own[:, None] - expected).abs().amax(-1)  # scores that all but tie may change places
    assert distances.amin(0).max() < 1e-2
    assert distances.amin(1).max() < 1e-2


def test_losses_and_gradients_on_the_same_samples(pair, monkeypatch):
    theirs, ours, image, normalized = pair
    monkeypatch.setattr(faster_rcnn, "random_sample", first_of)
    monkeypatch.setattr(theirs.rpn, "fg_bg_sampler", First(256, 0.5))
    monkeypatch.setattr(theirs.roi_heads, "fg_bg_sampler", First(512, 0.25))
    wanted = [{"boxes": BOXES, "labels": LABELS + 1}]
    theirs.rpn.train()
    theirs.roi_heads.train()
    features = theirs.backbone(normalized)
    proposals, expected = theirs.rpn(images_of(normalized), features, wanted)
    _, region_losses = theirs.roi_heads(features, proposals, [(SIDE, SIDE)], wanted)
    expected |= region_losses
    theirs.eval()
    losses = ours.loss(ours(image, truth()), truth())
    names = {"loss_objectness": "rpn_cls", "loss_rpn_box_reg": "rpn_box"}
    names |= {"loss_classifier": "cls", "loss_box_reg": "box"}
    assert {names[key] for key in expected} == losses.keys()
    for key, value in expected.items():
        assert losses[names[key]].item() == pytest.approx(value.item(), rel=1e-4), key
    for model, total in ((theirs, sum(expected.values())), (ours, sum(losses.values()))):
        model.zero_grad()
        total.backward()
    for mine, other in (
        ("backbone.body.conv1", "backbone.body.conv1"),
        ("rpn_head.conv", "rpn.head.conv.0.0"),
    ):
        norms = [float(m.get_submodule(n).weight.grad.norm()) for m, n in ((ours, mine), (theirs, other))]
        assert norms[0] == pytest.approx(norms[1], rel=1e-3), mine


def test_detections_are_the_same(pair):
    theirs, ours, image, normalized = pair
    with torch.no_grad():
        features = theirs.backbone(normalized)
        proposals, _ = theirs.rpn(images_of(normalized), features)
        (expected,), _ = theirs.roi_heads(features, proposals, [(SIDE, SIDE)])
        outputs = ours(image)
        (found,) = ours.decode(outputs, torch.tensor([[SIDE, SIDE]], dtype=torch.float32))
    same_detections(found, expected["boxes"], expected["scores"], expected["labels"] - 1)
