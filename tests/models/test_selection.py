"""Selection of detections against torchvision's NMS, class by class and image by image."""

import math
from dataclasses import replace
from typing import get_args

import pytest
import torch
from torchvision.ops import box_iou, nms

from boxwright.config.experiment import View
from boxwright.models.box_coder import decode_deltas, encode_deltas
from boxwright.models.detections import Detections, Scored, Selection, select_detections
from boxwright.prediction.views import from_view, fuse_views, to_view


def _dense(points: int = 200, classes: int = 3):
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(2, points, 2, generator=generator) * 100
    boxes = torch.cat([corner, corner + torch.rand(2, points, 2, generator=generator) * 40 + 5], dim=-1)
    return boxes, torch.rand(2, points, classes, generator=generator)


def test_one_call_agrees_with_nms_of_each_class_and_image():
    boxes, scores = _dense()
    selection = Selection(score_threshold=0.3, iou_threshold=0.5, max_detections=1000, candidates=10_000)
    for n, found in enumerate(select_detections(Scored(boxes, scores), selection)):
        expected = set()
        for c in range(3):
            rows = (scores[n, :, c] > 0.3).nonzero()[:, 0]
            kept = rows[nms(boxes[n, rows], scores[n, rows, c], 0.5)]
            expected |= {(c, round(float(scores[n, k, c]), 6)) for k in kept}
        assert {(int(label), round(float(s), 6)) for label, s in zip(found.labels, found.scores)} == expected
        assert (found.scores.diff() <= 0).all()


def test_limits_hold():
    boxes, scores = _dense()
    found = select_detections(Scored(boxes, scores), Selection(0.0, 0.9, max_detections=7, candidates=50))
    assert [len(f.scores) for f in found] == [7, 7]
    assert all(len(f.scores) == 0 for f in select_detections(Scored(boxes, scores * 0), Selection(0.5)))


def test_what_stays_takes_the_mean_of_the_candidates_on_it():
    boxes, _ = _dense(points=20)
    generator = torch.Generator().manual_seed(1)
    boxes = boxes.repeat(1, 10, 1) + torch.rand(2, 200, 4, generator=generator)
    scores = torch.rand(2, 200, 3, generator=generator)
    selection = Selection(0.3, 0.5, max_detections=30, candidates=10_000)
    chosen = select_detections(Scored(boxes, scores), selection)
    voted = select_detections(Scored(boxes, scores), replace(selection, vote=True))
    moved = 0
    for n, (before, after) in enumerate(zip(chosen, voted, strict=True)):
        assert torch.equal(before.scores, after.scores)
        assert torch.equal(before.labels, after.labels)
        for box, label, mean in zip(before.boxes, before.labels, after.boxes):
            own = scores[n, :, label]
            rows = (own > 0.3) & (box_iou(box[None], boxes[n])[0] >= 0.7)
            expected = (boxes[n, rows] * own[rows, None]).sum(0) / own[rows].sum()
            assert torch.allclose(mean, expected, atol=1e-4)
            moved += bool(rows.sum() > 1)
    assert moved > 10


def test_oriented_boxes_and_landmarks_vote_too():
    # The second is the first in another spelling and two pixels longer; the third is of another class.
    boxes = torch.tensor(
        [[[50.0, 50, 40, 20, 0.1], [50, 50, 20, 42, 0.1 + math.pi / 2], [50, 51, 40, 20, 0.1]]]
    )
    scores = torch.tensor([[[0.9, 0.0], [0.3, 0.0], [0.0, 0.8]]])
    (found,) = select_detections(Scored(boxes, scores), Selection(iou_threshold=0.5, vote=True))
    assert torch.allclose(found.boxes[0], torch.tensor([50, 50, 40.5, 20, 0.1]))
    assert torch.equal(found.boxes[1], boxes[0, 2])
    upright = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 11, 10]]])
    landmarks = torch.stack([torch.zeros(5, 2), torch.ones(5, 2)])[None]
    (found,) = select_detections(
        Scored(upright, torch.tensor([[[0.9], [0.3]]]), landmarks=landmarks), Selection(vote=True)
    )
    assert torch.allclose(found.landmarks, torch.full((1, 5, 2), 0.25))


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("count", [1, 40, 150, 10_000])
def test_candidates_are_the_greatest_scores_of_each_level(count, classes):
    boxes, scores = _dense(classes=classes)
    sizes = torch.tensor([150, 40, 10])
    selection = Selection(0.0, 1.0, max_detections=10_000, candidates=count, per_level=True)
    for n, found in enumerate(select_detections(Scored(boxes, scores, sizes), selection)):
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
