"""Geometry against pycocotools, torchvision, shapely and finite differences."""

import os
import subprocess
import sys

import numpy as np
import pytest
import shapely
import torch
from ensemble_boxes import weighted_boxes_fusion
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask
from torchvision import ops

from boxwright.errors import ConfigError
from boxwright.geometry.conventions import corners, min_area_rectangle, respell, respell_like
from boxwright.geometry.fusion import weighted_box_fusion
from boxwright.geometry.iou import aligned_iou, pairwise_iou
from boxwright.geometry.nms import nms
from boxwright.geometry.torch_boxes import pairwise_coverage
from boxwright.geometry.torch_boxes import pairwise_iou as torch_pairwise_iou
from boxwright.geometry.torch_rotated import rotated_intersection, rotated_iou

SEEDS = st.integers(0, 2**32 - 1)


def upright(rng, count, extent=50.0, side=40.0) -> np.ndarray:
    return np.concatenate([rng.uniform(0, extent, (count, 2)), rng.uniform(0.1, side, (count, 2))], axis=1)


def oriented(rng, count, extent=50.0, side=40.0) -> np.ndarray:
    return np.column_stack([upright(rng, count, extent, side), rng.uniform(-7, 7, count)])


def xyxy(boxes) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


@given(seed=SEEDS)
@settings(max_examples=50, deadline=None)
def test_iou_is_pycocotools_to_the_last_bit(seed):
    rng = np.random.default_rng(seed)
    a, b = upright(rng, 9), upright(rng, 9)
    a[0] = b[0]
    assert np.array_equal(pairwise_iou(a, b), mask.iou(a, b, [0] * 9))
    assert np.array_equal(pairwise_iou(a, b, "coverage"), mask.iou(a, b, [1] * 9))


@pytest.mark.parametrize(
    ("kind", "theirs"),
    [
        ("giou", ops.generalized_box_iou),
        ("diou", ops.distance_box_iou),
        ("ciou", ops.complete_box_iou),
    ],
)
def test_penalized_iou_is_torchvisions(kind, theirs):
    rng = np.random.default_rng(0)
    a, b = upright(rng, 30), upright(rng, 40)
    a[0] = b[0]
    expected = theirs(*(torch.from_numpy(xyxy(x)) for x in (a, b))).numpy()
    assert np.allclose(pairwise_iou(a, b, kind), expected, atol=1e-6)
    assert np.array_equal(aligned_iou(a, b[:30], kind), np.diag(pairwise_iou(a, b[:30], kind)))


def test_torch_twins_agree_with_torchvision_and_pycocotools():
    rng = np.random.default_rng(0)
    a, b = upright(rng, 20), upright(rng, 20)
    pair = [torch.from_numpy(xyxy(x)) for x in (a, b)]
    assert torch.allclose(torch_pairwise_iou(*pair), ops.box_iou(*pair))
    assert np.allclose(pairwise_coverage(*pair).numpy(), mask.iou(a, b, [1] * 20))


@given(seed=SEEDS)
@settings(max_examples=50, deadline=None)
def test_rotated_iou_is_shapelys(seed):
    rng = np.random.default_rng(seed)
    a, b = oriented(rng, 20), oriented(rng, 20)
    p, q = shapely.polygons(corners(a)), shapely.polygons(corners(b))
    expected = shapely.area(shapely.intersection(p, q)) / shapely.area(shapely.union(p, q))
    assert np.allclose(aligned_iou(a, b), expected, atol=1e-9)
    twin = rotated_iou(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    assert np.allclose(twin, aligned_iou(a, b), atol=1e-12)


@given(seed=SEEDS, turns=st.integers(-9, 9))
@settings(max_examples=50, deadline=None)
def test_rotated_iou_of_a_box_with_itself_however_spelled_is_one(seed, turns):
    rng = np.random.default_rng(seed)
    boxes = oriented(rng, 10, extent=1e5)
    boxes[:5, 2] *= 100
    again = boxes.copy()
    again[:, 4] += turns * np.pi / 2
    if turns % 2:
        again[:, [2, 3]] = again[:, [3, 2]]
    # What the rounding of the turned angle alone does to a box of 20,000:1 is more than that.
    rounded = np.spacing(np.abs(again[:, 4])) * boxes[:, 2:4].max(axis=1) / boxes[:, 2:4].min(axis=1)
    assert (np.abs(aligned_iou(boxes, again) - 1) <= 1e-11 + rounded).all()
    assert aligned_iou(boxes, respell(boxes)) == pytest.approx(1, abs=1e-11)


@given(seed=SEEDS)
@settings(max_examples=50, deadline=None)
def test_boxes_spelled_like_others_stay_where_they_are(seed):
    rng = np.random.default_rng(seed)
    boxes, others = oriented(rng, 10), oriented(rng, 10)
    again = respell_like(boxes, others)
    assert aligned_iou(boxes, again) == pytest.approx(1, abs=1e-11)
    assert (np.abs(again[:, 4] - others[:, 4]) <= np.pi / 4 + 1e-12).all()


def test_boxes_that_touch_or_have_no_area():
    a = np.array([[0, 0, 2, 2, 0], [0, 0, 2, 2, np.pi / 4], [0, 0, 0, 5, 1], [0, 0, 0, 0, 0]])
    b = np.array([[2, 0, 2, 2, 0], [2**1.5, 0, 2, 2, np.pi / 4], [0, 0, 4, 4, 0], [0, 0, 0, 0, 0]])
    assert aligned_iou(a, b) == pytest.approx(0, abs=1e-15)
    for bad in (np.zeros((2, 3)), np.array([[0, 0, -1, 1]]), np.array([[0, np.nan, 1, 1]])):
        with pytest.raises(ConfigError):
            pairwise_iou(bad, bad)


def test_gradients_are_finite_differences():
    rng = np.random.default_rng(1)
    a, b = (torch.tensor(oriented(rng, 12, extent=15, side=30), requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(rotated_iou, (a, b), eps=1e-6, atol=1e-6)


def test_gradients_of_special_pairs_are_finite():
    box = torch.tensor([[5.0, 5, 4, 2, 0], [5, 5, 4, 2, np.pi / 2], [5, 5, 0, 0, 0], [5, 5, 400, 1, 9]])
    for other in (box, box + torch.tensor([4.0, 0, 0, 0, 0]), box.roll(1, 0)):
        a, b = box.clone().requires_grad_(), other.clone().requires_grad_()
        rotated_iou(a, b).sum().backward()
        assert a.grad.isfinite().all()
        assert b.grad.isfinite().all()


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("spread", [60.0, 3000.0])
def test_nms_is_torchvisions(threshold, spread):
    rng = np.random.default_rng(0)
    boxes = upright(rng, 600, extent=spread)
    boxes[::7] *= [1, 1, 12, 0.2]  # few sizes are alike
    boxes[:40] = boxes[40:80]
    scores = rng.permutation(600) / 600.0
    expected = ops.nms(torch.from_numpy(xyxy(boxes)), torch.from_numpy(scores), threshold)
    assert nms(boxes, scores, threshold).tolist() == expected.tolist()
    labels = rng.integers(0, 3, 600)
    # Classes far apart instead of torchvision's own offset, whose rounding moves the boxes.
    apart = xyxy(boxes) + labels[:, None] * 8192.0
    expected = ops.nms(torch.from_numpy(apart), torch.from_numpy(scores), threshold)
    assert set(nms(boxes, scores, threshold, labels).tolist()) == set(expected.tolist())


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.5, 0.8])
def test_rotated_nms_with_a_grid_is_the_greedy_one(threshold):
    rng = np.random.default_rng(0)
    boxes, scores = oriented(rng, 300, extent=200), rng.permutation(300) / 300.0
    boxes[::9, 2] *= 20
    iou = pairwise_iou(boxes, boxes)
    expected = []
    for i in np.argsort(-scores):
        if all(iou[j, i] <= threshold for j in expected):
            expected.append(int(i))
    assert nms(boxes, scores, threshold).tolist() == expected


def test_nms_of_nothing_and_of_what_cannot_be_meant():
    assert nms(np.zeros((0, 4)), np.zeros(0), 0.5).tolist() == []
    with pytest.raises(ConfigError, match="scores"):
        nms(np.zeros((2, 4)), np.zeros(3), 0.5)
    with pytest.raises(ConfigError, match="threshold"):
        nms(np.zeros((2, 4)), np.zeros(2), 50)


@pytest.mark.parametrize("confidence", ["avg", "max", "box_and_model_avg", "absent_model_aware_avg"])
def test_fusion_is_that_of_ensemble_boxes(confidence):
    rng = np.random.default_rng(3)
    found = []
    for _ in range(3):
        boxes = np.clip(xyxy(upright(rng, 60, 0.7, 0.3)), 0, 1)
        found.append((boxes, rng.uniform(0.01, 0.99, 60), rng.integers(0, 2, 60)))
    boxes, scores, labels = zip(*found)
    weights = [2.0, 1.0, 1.5]
    expected = weighted_boxes_fusion(
        list(boxes), list(scores), list(labels), weights, iou_thr=0.5, conf_type=confidence
    )
    ours = weighted_box_fusion(
        [np.concatenate([b[:, :2], b[:, 2:] - b[:, :2]], axis=1) for b in boxes],
        scores,
        labels,
        weights,
        iou_threshold=0.5,
        confidence=confidence,
    )
    assert np.allclose(ours[1], expected[1], atol=1e-5)
    assert np.allclose(xyxy(ours[0]), expected[0], atol=1e-5)
    assert ours[2].tolist() == expected[2].astype(int).tolist()


def test_fusion_of_oriented_boxes_ignores_how_they_are_spelled():
    box = np.array([[50, 40, 30, 10, 0.3]])
    other = np.array([[52, 40, 10, 30, 0.34 + np.pi / 2]])
    fused, score, _, best = weighted_box_fusion([box, other], [[0.6], [0.6]], [[0], [0]], iou_threshold=0.5)
    assert fused == pytest.approx(np.array([[51, 40, 30, 10, 0.32]]))
    assert score == pytest.approx([0.6])
    assert best.tolist() == [0]


@given(seed=SEEDS)
@settings(max_examples=50, deadline=None)
def test_min_area_rectangle_is_shapelys(seed):
    rng = np.random.default_rng(seed)
    points = rng.normal(0, 30, (rng.integers(3, 12), 2)) + 1e4
    box = min_area_rectangle(points)
    expected = shapely.minimum_rotated_rectangle(shapely.MultiPoint(points)).area
    assert box[2] * box[3] == pytest.approx(expected, rel=1e-6)
    around = shapely.Polygon(corners(box)[0]).buffer(1e-6)
    assert around.contains(shapely.MultiPoint(points))
    assert box[2] >= box[3]


def test_kernels_compile_where_no_folder_can_be_written():
    script = (
        "from numba.core.caching import _CacheLocator\n"
        "def refuse(self): raise OSError('read-only')\n"
        "_CacheLocator.ensure_cache_path = refuse\n"
        "import numpy as np\n"
        "from boxwright.geometry.iou import aligned_iou\n"
        "print(aligned_iou(np.array([[0., 0, 2, 2]]), np.array([[1., 0, 2, 2]])))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[0.33333333]"
    assert done.stderr.startswith("compiling boxwright.geometry.iou")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("angle", [1e-300, 1e-16, 1.6030588143794226e-14, 1e-13, 1e-12, 1e-10])
def test_boxes_that_are_all_but_parallel_lose_nothing(angle):
    # Edges far outside, whose rise is rounding: the quarter of a small box at the corner of a large one.
    small, large = [[0.0, 0.0, 1.0, 0.75, angle]], [[50.0, 30.0, 100.0, 60.0, 0.0]]
    assert aligned_iou(np.array(small), np.array(large), "coverage")[0] == pytest.approx(0.25, abs=1e-9)
    shared = rotated_intersection(torch.tensor(small).double(), torch.tensor(large).double())
    assert shared.item() == pytest.approx(0.25 * 0.75, abs=1e-9)


def test_compiling_is_told_and_what_is_cached_is_silent(tmp_path):
    code = (
        "import numpy as np\nfrom boxwright.geometry.iou import pairwise_iou\n"
        "pairwise_iou(np.ones((1, 4)), np.ones((1, 4)))"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    told = [
        subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True).stderr
        for _ in range(2)
    ]
    assert told == ["compiling boxwright.geometry.iou, once after an install: about 5 s\n", ""]
