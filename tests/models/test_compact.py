"""The compact detectors' losses, beside the same taken at every point of the picture."""

import pytest
import torch

from boxwright.config.loading import check_config
from boxwright.data.targets import Targets
from boxwright.geometry.torch_boxes import distances_to_boxes
from boxwright.losses.box import giou_loss
from boxwright.losses.rotated import rotated_iou_loss
from boxwright.models import build_detector

CROWDS = (0, 3, 60)  # of sixty boxes the greatest number of points is more than the picture has


def make(name: str):
    torch.manual_seed(0)
    data = {"train": {"format": "coco", "root": "x"}, "val": {"format": "coco", "root": "x"}}
    config = check_config({"data": data, "model": {"name": name, "width": 0.25}, "image_size": [96, 64]}, "-")
    return build_detector(config.model, 2)


def crowd(count: int) -> tuple[torch.Tensor, Targets]:
    draw = torch.Generator().manual_seed(count)
    images = torch.rand(2, 3, 64, 96, generator=draw) * 255
    start, sides = (torch.rand(2, count, 2, generator=draw) * 40 for _ in range(2))
    boxes = torch.cat([start, start + sides + 4], dim=-1)
    labels = torch.randint(0, 2, (2, count), generator=draw)
    mask = torch.rand(2, count, generator=draw) < 0.9
    return images, Targets.upright(boxes, labels, mask, ~mask)


@pytest.mark.parametrize("count", CROWDS)
def test_boxes_are_learnt_at_all_points_that_answer_for_them(count):
    model, (images, truth) = make("compact"), crowd(count)
    outputs = model(images, truth)
    matched_gt, quality = model._align(outputs, truth, model.boxes(outputs))
    reached = (matched_gt >= 0).sum()
    assert (reached > 0) == (count > 0)
    sides = (outputs["side_logits"].softmax(-1) * model.bins).sum(-1) * outputs["strides"][:, None]
    boxes = distances_to_boxes(outputs["points"], sides)
    expected = torch.zeros(())
    for image, point in (matched_gt >= 0).nonzero().tolist():
        gt_box = truth.boxes[image, matched_gt[image, point]]
        expected = expected + giou_loss(boxes[image, point], gt_box) * quality[image, point]
    expected = model.loss_weights["box"] * expected / quality.sum().clamp(min=1)
    found = model.loss(outputs, truth)["box"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    if reached:
        of = outputs["side_logits"]
        found, wanted = (torch.autograd.grad(v, of, retain_graph=True)[0] for v in (found, expected))
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("count", CROWDS)
def test_oriented_boxes_too(count):
    model, (images, truth) = make("compact_obb"), crowd(count)
    outputs = model(images, truth)
    boxes = model.boxes(outputs)
    matched_gt, quality = model._align(outputs, truth, boxes)
    expected = torch.zeros(())
    for image, point in (matched_gt >= 0).nonzero().tolist():
        gt_box = truth.rotated[image, matched_gt[image, point]]
        hull = boxes[image, point].clone()  # truth without angles: the hulls are compared
        w, h, angle = hull[2].clone(), hull[3].clone(), hull[4].clone()
        hull[2] = w * angle.cos().abs() + h * angle.sin().abs()
        hull[3] = w * angle.sin().abs() + h * angle.cos().abs()
        hull[4] = 0
        expected = expected + rotated_iou_loss(hull, gt_box) * quality[image, point]
    expected = model.recipe.loss_weights.iou * expected / quality.sum().clamp(min=1e-6)
    torch.testing.assert_close(model.loss(outputs, truth)["iou"], expected, rtol=1e-4, atol=1e-6)
