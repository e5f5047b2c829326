"""Assigners of YOLO and those that follow predictions: hand-worked cases, and slow twins."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from boxwright.assign.grid import grid_assign
from boxwright.assign.ota import ota_assign
from boxwright.assign.simota import classification_cost, simota_assign

ANCHORS = torch.tensor(
    [[-1.0, -1, 9, 9], [-6, -6, 14, 14], [7, -1, 17, 9], [2, -6, 22, 14]]  # two a cell, cells of 8 px
)
STRIDES = torch.full((4,), 8.0)
NO_BOXES = (torch.zeros(1, 0, 4), torch.zeros(1, 0, dtype=torch.bool))


def one(boxes):
    boxes = torch.tensor([boxes])
    return boxes, torch.ones(boxes.shape[:2], dtype=torch.bool)


def test_a_cell_answers_for_the_box_whose_centre_it_holds():
    gt_boxes, mask = one([[0.0, 0, 10, 9]])  # centre (5, 4.5): the first cell
    none = torch.zeros_like(mask)
    found = grid_assign(ANCHORS, STRIDES, gt_boxes, mask, none)
    assert found.matched_gt.tolist() == [[0, -1, -1, -1]]
    assert not found.ignored.any()
    # The second anchor of the cell overlaps by 90 / 400, enough for a lower threshold.
    assert grid_assign(ANCHORS, STRIDES, gt_boxes, mask, none, 0.2).matched_gt.tolist() == [[0, 0, -1, -1]]
    # An anchor elsewhere that overlaps well doesn't count: 27 of 163 for the third, 72 of 418 for the fourth.
    far = grid_assign(ANCHORS, STRIDES, gt_boxes, mask, none, 0.5, 0.165)
    assert far.ignored.tolist() == [[False, True, True, True]]


def test_of_two_boxes_in_one_cell_each_has_its_anchor_and_the_last_wins_a_common_one():
    gt_boxes, mask = one([[0.0, 0, 9, 9], [-5.0, -5, 13, 13], [0, 0, 8.5, 8.5]])
    found = grid_assign(ANCHORS, STRIDES, gt_boxes, mask, torch.zeros_like(mask))
    assert found.matched_gt.tolist() == [[2, 1, -1, -1]]


def test_grid_assignment_without_boxes_area_or_reach():
    assert (grid_assign(ANCHORS, STRIDES, *NO_BOXES, NO_BOXES[1]).matched_gt == -1).all()
    for box in ([5.0, 5, 5, 5], [100.0, 100, 120, 120]):
        gt_boxes, mask = one([box])
        assert (grid_assign(ANCHORS, STRIDES, gt_boxes, mask, torch.zeros_like(mask)).matched_gt == -1).all()
    region, ignore = one([[-1.0, -1, 9, 9]])
    found = grid_assign(ANCHORS, STRIDES, region, torch.zeros_like(ignore), ignore)
    assert found.ignored.tolist() == [[True, False, False, False]]


def scene(seed: int, boxes: int = 4, classes: int = 3):
    """Points of a 6 x 6 grid of 8 px cells with predictions, and boxes."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.rand(*shape, generator=generator)

    grid = (torch.arange(6) + 0.5) * 8
    points = torch.stack(torch.meshgrid(grid, grid, indexing="ij"), -1).flip(-1).reshape(-1, 2)
    sides = draw(2, 36, 4) * 15 + 1
    predicted = torch.cat([points - sides[..., :2], points + sides[..., 2:]], -1)
    corner, size = draw(2, boxes, 2) * 30, draw(2, boxes, 2) * 20 + 3
    truth = torch.cat([corner, corner + size], -1)
    labels = torch.randint(0, classes, (2, boxes), generator=generator)
    mask = draw(2, boxes) > 0.2
    return draw(2, 36, classes) * 0.98 + 0.01, predicted, points, torch.full((36,), 8.0), truth, labels, mask


def iou_of(a, b) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return width * height / (sum(areas) - width * height)


def slow_simota(scores, boxes, points, strides, truth, labels, mask, radius=2.5, topk=10, weight=3.0):
    """As section 2.1 of YOLOX and its code tell it, one image and box at a time."""
    result = torch.full(scores.shape[:2], -1)
    for b in range(len(scores)):
        objects = [g for g in range(truth.shape[1]) if mask[b, g]]
        inside, near = {}, {}
        for g in objects:
            x1, y1, x2, y2 = truth[b, g].tolist()
            for p, (x, y) in enumerate(points.tolist()):
                inside[p, g] = x1 < x < x2 and y1 < y < y2
                reach = radius * float(strides[p])
                near[p, g] = abs(x - (x1 + x2) / 2) < reach and abs(y - (y1 + y2) / 2) < reach
        valid = [p for p in range(len(points)) if any(inside[p, g] or near[p, g] for g in objects)]
        cost, wanted = {}, {}
        for g in objects:
            ious = {p: iou_of(boxes[b, p].tolist(), truth[b, g].tolist()) for p in valid}
            for p in valid:
                roots = scores[b, p].sqrt().tolist()
                entropy = -sum(
                    math.log(r) if c == labels[b, g] else math.log(1 - r) for c, r in enumerate(roots)
                )
                cost[p, g] = entropy - weight * math.log(ious[p] + 1e-7)
                cost[p, g] += 0 if inside[p, g] and near[p, g] else 1e5
            best = sum(sorted(ious.values(), reverse=True)[:topk])
            for p in sorted(valid, key=lambda p, g=g: cost[p, g])[: max(1, int(best))]:
                wanted.setdefault(p, []).append(g)
        for p, who in wanted.items():
            result[b, p] = min(who, key=lambda g, p=p: cost[p, g])
    return result


@pytest.mark.parametrize("seed", range(12))
def test_simota_is_its_slow_twin(seed):
    case = scene(seed)
    assert torch.equal(simota_assign(*case), slow_simota(*case))


def test_the_classes_cost_their_cross_entropy():
    scores, *_, labels, _ = scene(1)
    found = classification_cost(scores, labels)
    for b, g, p in ((0, 0, 0), (1, 3, 20), (0, 2, 35)):
        wanted = torch.nn.functional.one_hot(labels[b, g], 3).float()
        expected = torch.nn.functional.binary_cross_entropy(scores[b, p], wanted, reduction="sum")
        assert found[b, g, p] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("seed", range(8))
def test_ota_with_little_entropy_is_the_cheapest_plan(seed):
    """The plan of an exact solver, in which each label of a box is a supplier of its own."""
    scores, boxes, points, strides, truth, labels, mask = scene(seed, boxes=3)
    found = ota_assign(scores, boxes, points, strides, truth, labels, mask, epsilon=0.005, iterations=4000)
    for b in range(2):
        suppliers, rows = [], []
        for g in range(3):
            if not mask[b, g]:
                continue
            ious = np.array([iou_of(boxes[b, p].tolist(), truth[b, g].tolist()) for p in range(36)])
            x1, y1, x2, y2 = truth[b, g].tolist()
            px, py = points.numpy().T
            inside = (px > x1) & (px < x2) & (py > y1) & (py < y2)
            middle = ((x1 + x2) / 2, (y1 + y2) / 2)
            near = (abs(px - middle[0]) < 20) & (abs(py - middle[1]) < 20)
            entropy = classification_cost(scores, labels)[b, g].numpy()
            cost = entropy - 1.5 * np.log(ious + 1e-7) + 1e5 * ~(inside & near)
            count = max(1, int(np.sort(ious * inside)[::-1][:20].sum()))
            suppliers += [g] * count
            rows += [cost] * count
        background = -(1 - scores[b]).log().sum(-1).numpy()
        rest = 36 - len(rows)
        chosen = linear_sum_assignment(np.array(rows + [background] * rest))
        owner = np.array(suppliers + [-1] * rest)[chosen[0]]
        expected = np.full(36, -1)
        expected[chosen[1]] = owner
        for p, g in enumerate(expected):
            if g >= 0:
                x1, y1, x2, y2 = truth[b, g].tolist()
                x, y = points[p].tolist()
                if not (x1 < x < x2 and y1 < y < y2):
                    expected[p] = -1  # a box over no point supplies nobody
        assert found[b].tolist() == expected.tolist()


@pytest.mark.parametrize("assign", [simota_assign, ota_assign])
def test_no_boxes_no_area_and_many_boxes(assign):
    scores, boxes, points, strides, truth, labels, mask = scene(0)
    none = (truth[:, :0], labels[:, :0], mask[:, :0])
    assert (assign(scores, boxes, points, strides, *none) == -1).all()
    flat = truth.clone()
    flat[..., 2:] = flat[..., :2]
    found = assign(scores, boxes, points, strides, flat, labels, mask)
    assert found.max() < truth.shape[1]
    far = torch.tensor([[[500.0, 500, 520, 520]]]).expand(2, 1, 4)
    assert (assign(scores, boxes, points, strides, far, labels[:, :1], mask[:, :1] | True) == -1).all()
    many = scene(3, boxes=500)
    found = assign(*many)
    matched = found[found >= 0]
    assert len(matched) > 0
    image = torch.nonzero(found >= 0)[:, 0]
    assert many[-1][image, matched].all()  # padding is never answered for
