"""Selection of detections against torchvision's NMS, class by class and image by image."""

from typing import get_args

import pytest
import torch
from torchvision.ops import box_iou, nms

from boxwright.config.experiment import View
from boxwright.models.box_coder import decode_deltas, encode_deltas
from boxwright.models.detections import Detections, Selection, select_detections
from boxwright.prediction.views import from_view, fuse_views, to_view


def _dense(points: int = 200, classes: int = 3):
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(2, points, 2, generator=generator) * 100
    boxes = torch.cat([corner, corner + torch.rand(2, points, 2, generator=generator) * 40 + 5], dim=-1)
    return boxes, torch.rand(2, points, classes, generator=generator)


def test_one_call_agrees_with_nms_of_each_class_and_image():
    boxes, scores = _dense()
    selection = Selection(score_threshold=0.3, iou_threshold=0.5, max_detections=1000, candidates=10_000)
    for n, found in enumerate(select_detections(boxes, scores, selection)):
        expected = set()
        for c in range(3):
            rows = (scores[n, :, c] > 0.3).nonzero()[:, 0]
            kept = rows[nms(boxes[n, rows], scores[n, rows, c], 0.5)]
            expected |= {(c, round(float(scores[n, k, c]), 6)) for k in kept}
        assert {(int(label), round(float(s), 6)) for label, s in zip(found.labels, found.scores)} == expected
        assert (found.scores.diff() <= 0).all()


def test_limits_hold():
    boxes, scores = _dense()
    found = select_detections(boxes, scores, Selection(0.0, 0.9, max_detections=7, candidates=50))
    assert [len(f.scores) for f in found] == [7, 7]
    assert all(len(f.scores) == 0 for f in select_detections(boxes, scores * 0, Selection(0.5)))


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("count", [1, 40, 150, 10_000])
def test_candidates_are_the_greatest_scores_of_each_level(count, classes):
    boxes, scores = _dense(classes=classes)
    sizes = torch.tensor([150, 40, 10])
    selection = Selection(0.0, 1.0, max_detections=10_000, candidates=count, per_level=True)
    for n, found in enumerate(select_detections(boxes, scores, selection, sizes)):
        expected = [s for level in scores[n].split(sizes.tolist()) for s in sorted(level.flatten())[-count:]]
        assert found.scores.tolist() == sorted(map(float, expected), reverse=True)
        for box, score, label in zip(found.boxes, found.scores, found.labels):
            assert (scores[n, (boxes[n] == box).all(-1), label] == score).all()


def test_deltas_come_back():
    boxes, _ = _dense()
    anchors = boxes[:, torch.randperm(200, generator=torch.Generator().manual_seed(1))]
    assert torch.allclose(decode_deltas(anchors, encode_deltas(anchors, boxes)), boxes, atol=1e-3)


def test_a_flipped_view_comes_back_to_where_its_boxes_were():
    images = torch.zeros(1, 1, 32, 64)
    images[0, 0, 3:9, 10:25] = 1
    sizes = torch.tensor([[50.0, 20.0]])  # the content; the rest is padding
    for view in get_args(View):
        seen, seen_sizes = to_view(images, sizes, view)
        ys, xs = seen[0, 0].nonzero(as_tuple=True)
        box = torch.stack([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]).float()[None]
        assert (box[0, 2:] <= seen_sizes[0]).all()
        back = from_view(Detections(box, torch.ones(1), torch.zeros(1)), sizes[0], view)
        assert back.boxes.tolist() == [[10, 3, 25, 9]]


def test_views_that_agree_are_averaged_and_what_one_sees_alone_is_doubted():
    first = Detections(
        torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]]), torch.tensor([0.9, 0.6]), torch.zeros(2)
    )
    second = Detections(torch.tensor([[0.0, 0, 11, 10]]), torch.tensor([0.3]), torch.zeros(1))
    assert box_iou(first.boxes[:1], second.boxes) > 0.7
    (found,) = fuse_views([[first], [second]], 0.6, 100)
    assert found.boxes[0].tolist() == [0, 0, 10.25, 10]  # weights 0.9 and 0.3
    assert torch.allclose(found.scores, torch.tensor([0.6, 0.3]))
    assert torch.allclose(found.boxes[1], torch.tensor([50.0, 50, 60, 60]))
