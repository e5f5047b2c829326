"""Small cases worked out by hand."""

import pytest
import torch
from torchvision.ops import box_iou

from boxwright.assign import task_aligned
from boxwright.assign.atss import atss_assign
from boxwright.assign.fcos import fcos_assign
from boxwright.assign.max_iou import max_iou_assign
from boxwright.assign.task_aligned import choose_aligned, task_aligned_assign

POINTS = torch.tensor([[4.0, 4.0], [12.0, 4.0], [20.0, 4.0], [28.0, 4.0]])


def _one(boxes):
    boxes = torch.tensor([boxes]) if boxes else torch.zeros(1, 0, 4)
    return boxes, torch.ones(boxes.shape[:2], dtype=torch.bool)


def test_max_iou_takes_thresholds_and_low_quality_matches():
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 4.5], [50, 50, 60, 60]])
    gt_boxes, gt_mask = _one([[0.0, 0, 10, 10], [50, 50, 90, 90]])
    none = torch.zeros_like(gt_mask)
    assigned = max_iou_assign(anchors, gt_boxes, gt_mask, none, 0.5, 0.4)
    # IoU 1, 0.9, 0.45 (between the thresholds), and 1/16, the best the second box has.
    assert assigned.matched_gt.tolist() == [[0, 0, -1, 1]]
    assert assigned.ignored.tolist() == [[False, False, True, False]]
    strict = max_iou_assign(anchors, gt_boxes, gt_mask, none, 0.5, 0.4, low_quality=False)
    assert strict.matched_gt.tolist() == [[0, 0, -1, -1]]


def test_max_iou_leaves_a_box_without_overlap_or_area_unmatched():
    anchors = torch.tensor([[0.0, 0, 10, 10]])
    gt_boxes, gt_mask = _one([[50.0, 50, 60, 60], [5.0, 5, 5, 5]])
    assigned = max_iou_assign(anchors, gt_boxes, gt_mask, torch.zeros_like(gt_mask))
    assert assigned.matched_gt.tolist() == [[-1]]


def test_max_iou_ignores_background_inside_an_ignored_region():
    anchors = torch.tensor([[0.0, 0, 10, 10], [6, 0, 16, 10], [40, 40, 50, 50]])
    region, ignore = _one([[0.0, 0, 10, 10]])
    assigned = max_iou_assign(anchors, region, torch.zeros_like(ignore), ignore)
    # Coverage 1, 0.4 and 0.
    assert assigned.ignored.tolist() == [[True, False, False]]


def test_fcos_gives_a_point_under_two_boxes_to_the_smaller():
    gt_boxes, gt_mask = _one([[0.0, 0, 32, 8], [8.0, 0, 16, 8]])
    ranges = torch.tensor([[-1.0, 64.0]]).expand(4, 2)
    strides = torch.full((4,), 8.0)
    assert fcos_assign(POINTS, strides, ranges, gt_boxes, gt_mask, 0).tolist() == [[0, 1, 0, 0]]


def test_fcos_centre_sampling_and_ranges_bound_who_answers():
    gt_boxes, gt_mask = _one([[0.0, 0, 32, 8]])
    strides = torch.full((4,), 8.0)
    near = fcos_assign(POINTS, strides, torch.tensor([[-1.0, 64.0]]).expand(4, 2), gt_boxes, gt_mask, 1.0)
    assert near.tolist() == [[-1, 0, 0, -1]]  # 8 px about x = 16
    small = fcos_assign(POINTS, strides, torch.tensor([[-1.0, 21.0]]).expand(4, 2), gt_boxes, gt_mask, 0)
    assert small.tolist() == [[-1, 0, 0, -1]]  # farthest sides are 28, 20, 20, 28


def test_task_alignment_takes_the_best_points_and_scales_quality_by_the_best_iou():
    gt_boxes, gt_mask = _one([[0.0, 0, 32, 8]])
    boxes = torch.tensor(
        [[[0.0, 0, 32, 8], [0, 0, 16, 8], [0, 0, 24, 8], [0, 0, 8, 8]]]
    )  # IoU 1, .5, .75, .25
    scores = torch.tensor([[[0.5], [0.5], [0.5], [0.5]]])
    labels = torch.zeros(1, 1, dtype=torch.long)
    found = task_aligned_assign(scores, boxes, POINTS, gt_boxes, labels, gt_mask, topk=2, alpha=1, beta=2)
    assert found.matched_gt.tolist() == [[0, -1, 0, -1]]
    # Alignment 0.5 * 1 and 0.5 * 0.75^2; relative to the best, times the best IoU.
    assert found.quality[0].tolist() == [1.0, 0.0, 0.5625, 0.0]


def test_task_alignment_gives_a_contested_point_to_the_box_it_overlaps_more():
    gt_boxes, gt_mask = _one([[0.0, 0, 32, 8], [8.0, 0, 32, 8]])
    boxes = torch.tensor([[[0.0, 0, 32, 8]] * 4])
    labels, scores = torch.zeros(1, 2, dtype=torch.long), torch.full((1, 4, 1), 0.5)
    found = task_aligned_assign(scores, boxes, POINTS, gt_boxes, labels, gt_mask, topk=4)
    assert found.matched_gt.tolist() == [[0, 0, 0, 0]]


def test_points_near_a_box_between_them_answer_for_it_within_reach():
    gt_boxes, gt_mask = _one([[7.0, 3, 9, 5], [1.0, 0, 27, 8]])  # the second holds the first three points
    labels, scores = torch.zeros(1, 2, dtype=torch.long), torch.full((1, 4, 1), 0.5)
    boxes = gt_boxes[:, [0, 0, 1, 1]]
    found = task_aligned_assign(scores, boxes, POINTS, gt_boxes, labels, gt_mask)
    assert found.matched_gt.tolist() == [[1, 1, 1, -1]]
    found = task_aligned_assign(scores, boxes, POINTS, gt_boxes, labels, gt_mask, reach=6.0)
    assert found.matched_gt.tolist() == [[0, 0, 1, -1]]
    assert found.quality[0, :2].tolist() == [1.0, 1.0]


def aligned_by_hand(scores, places, iou, candidate, labels, topk, alpha, beta):
    """Matches and quality of one image, box by box and point by point."""
    wanted = {}  # alignment by box and place in `iou`
    for box, label in enumerate(labels):
        ranked = {
            k: scores[places[box][k]][label] ** alpha * iou[box][k] ** beta
            for k in range(len(places[box]))
            if candidate[box][k]
        }
        best = sorted(ranked, key=lambda k: -ranked[k])[:topk]
        wanted |= {(box, k): ranked[k] for k in best if ranked[k] > 0}
    owner = {}
    for box, k in wanted:
        point = places[box][k]
        if point not in owner or iou[box][k] > iou[owner[point][0]][owner[point][1]]:
            owner[point] = (box, k)
    matched, quality = [-1] * len(scores), [0.0] * len(scores)
    for point, (box, k) in owner.items():
        own = [pair for pair in owner.values() if pair[0] == box]
        peak, peak_iou = max(wanted[pair] for pair in own), max(iou[b][n] for b, n in own)
        matched[point], quality[point] = box, wanted[box, k] / peak * peak_iou
    return matched, quality


@pytest.mark.parametrize("seed", range(20))
def test_task_alignment_of_a_crowd_is_what_points_one_by_one_give(seed):
    draw = torch.Generator().manual_seed(seed)
    scores = torch.rand(2, 30, 3, generator=draw)
    places = torch.rand(2, 7, 30, generator=draw).argsort(2)[:, :, :12]
    iou = torch.rand(2, 7, 12, generator=draw) * (torch.rand(2, 7, 12, generator=draw) < 0.9)
    candidate = torch.rand(2, 7, 12, generator=draw) < 0.7
    labels = torch.randint(0, 3, (2, 7), generator=draw)
    found = choose_aligned(scores, places, iou, candidate, labels, 5, 1.0, 3.0)
    for n in range(2):
        given = (t[n].tolist() for t in (scores, places, iou, candidate, labels))
        matched, quality = aligned_by_hand(*given, 5, 1.0, 3.0)
        assert found.matched_gt[n].tolist() == matched
        assert found.quality[n].tolist() == pytest.approx(quality, rel=1e-4)


@pytest.mark.parametrize("pairs", [1, 130, 2**19])  # one box of an image at a time, two, all seven
def test_boxes_compared_some_at_a_time_get_what_points_one_by_one_give(pairs, monkeypatch):
    monkeypatch.setattr(task_aligned, "PAIRS", pairs)
    draw = torch.Generator().manual_seed(0)
    points, scores = torch.rand(30, 2, generator=draw) * 64, torch.rand(2, 30, 3, generator=draw)
    corner, size = torch.rand(2, 7, 2, generator=draw) * 32, 16 + torch.rand(2, 7, 2, generator=draw) * 16
    gt_boxes = torch.cat([corner, corner + size], dim=-1)
    boxes = torch.cat([points - 10, points + 10], dim=-1).expand(2, -1, -1)
    labels, mask = torch.randint(0, 3, (2, 7), generator=draw), torch.rand(2, 7, generator=draw) < 0.8
    found = task_aligned_assign(scores, boxes, points, gt_boxes, labels, mask, 5, 1.0, 3.0)
    for n in range(2):
        inside = (points > gt_boxes[n, :, None, :2]) & (points < gt_boxes[n, :, None, 2:])
        candidate = (inside.all(-1) & mask[n, :, None]).tolist()
        iou = box_iou(gt_boxes[n], boxes[n]).tolist()
        every = [list(range(30))] * 7
        matched, quality = aligned_by_hand(
            scores[n].tolist(), every, iou, candidate, labels[n].tolist(), 5, 1.0, 3.0
        )
        assert max(matched) >= 5  # boxes beyond the first part
        assert found.matched_gt[n].tolist() == matched
        assert found.quality[n].tolist() == pytest.approx(quality, rel=1e-4)


def test_no_boxes_and_masked_boxes_leave_everything_background():
    ranges, strides = torch.tensor([[-1.0, 64.0]]).expand(4, 2), torch.full((4,), 8.0)
    scores, boxes = torch.full((1, 4, 1), 0.5), torch.tensor([[[0.0, 0, 32, 8]] * 4])
    for gt_boxes in (torch.zeros(1, 0, 4), torch.tensor([[[0.0, 0, 32, 8]]])):
        mask = torch.zeros(gt_boxes.shape[:2], dtype=torch.bool)
        labels = torch.zeros(mask.shape, dtype=torch.long)
        assert (fcos_assign(POINTS, strides, ranges, gt_boxes, mask) == -1).all()
        assert (max_iou_assign(boxes[0], gt_boxes, mask, mask).matched_gt == -1).all()
        aligned = task_aligned_assign(scores, boxes, POINTS, gt_boxes, labels, mask)
        assert (aligned.matched_gt == -1).all()
        assert (aligned.quality == 0).all()


def test_atss_sets_the_threshold_from_the_nearest_anchors():
    # One level of five 16 px anchors along a line; the box covers the second.
    centers = torch.tensor([8.0, 24, 40, 56, 72])
    anchors = torch.stack([centers - 8, torch.zeros(5), centers + 8, torch.full((5,), 16.0)], dim=1)
    gt_boxes, gt_mask = _one([[14.0, 0, 34, 16]])
    # IoU 2/34, 16/20, 2/34, 0, 0. Of the nearest three mean 0.306 and deviation 0.428: one is above 0.734.
    assert atss_assign(anchors, [5], gt_boxes, gt_mask, topk=3).tolist() == [[-1, 0, -1, -1, -1]]


def test_atss_wants_centres_inside_and_gives_a_contested_anchor_to_the_best():
    anchors = torch.tensor([[0.0, 0, 16, 16], [16, 0, 32, 16], [100, 0, 116, 16]])
    gt_boxes, gt_mask = _one([[2.0, 0, 16, 16], [0.0, 0, 12, 16], [12.0, 0, 15, 16]])
    # The first two boxes want the first anchor (IoU 0.875 and 0.75); the third holds no centre.
    assert atss_assign(anchors, [3], gt_boxes, gt_mask, topk=3).tolist() == [[0, -1, -1]]
    padded = torch.cat([gt_boxes, torch.zeros(1, 4, 4)], dim=1)
    mask = torch.cat([gt_mask, torch.zeros(1, 4, dtype=torch.bool)], dim=1)
    assert atss_assign(anchors, [3], padded, mask, topk=3).tolist() == [[0, -1, -1]]


def test_atss_of_no_box_and_of_a_box_without_area():
    anchors = torch.tensor([[0.0, 0, 16, 16], [16, 0, 32, 16]])
    assert atss_assign(anchors, [2], *_one([])).tolist() == [[-1, -1]]
    assert atss_assign(anchors, [2], *_one([[8.0, 8, 8, 8]])).tolist() == [[-1, -1]]
