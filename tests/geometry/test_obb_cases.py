"""Geometry against the shared cases: 50-digit IoU, other toolboxes' spellings, suppression and fusion."""

import gzip
import json

import numpy as np
import pytest
import torch

from boxwright.geometry.conventions import corners, from_convention, from_corners, to_convention
from boxwright.geometry.fusion import weighted_box_fusion
from boxwright.geometry.iou import aligned_iou, pairwise_iou
from boxwright.geometry.nms import adaptive_nms, matrix_nms, nms, soft_nms
from boxwright.geometry.torch_rotated import pairwise_rotated_iou, rotated_intersection, rotated_iou
from tests.shared_data import shared_path

COLUMN_OF = {
    "radians": "box",
    "degrees-ccw": "torchvision_cxcywhr_deg",
    "le90": "le90",
    "le135": "le135",
    "oc": "oc",
    "opencv-new": "opencv_new_deg",
    "opencv-old": "opencv_old_deg",
    "torchvision": "torchvision_cxcywhr_deg",
    "detectron2": "detectron2_deg",
    "ultralytics": "ultralytics_regularized",
}


def cases(name: str):
    return json.loads(gzip.decompress(shared_path(f"obb_cases/{name}.json.gz").read_bytes()))


def xywh(corner_boxes) -> np.ndarray:
    boxes = np.asarray(corner_boxes, dtype=np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def test_rotated_iou_is_that_of_50_digits():
    case = cases("rotated_iou")
    a, b = np.array(case["a"]), np.array(case["b"])
    assert np.abs(aligned_iou(a, b) - case["iou"]).max() < 1e-12
    assert np.abs(aligned_iou(a, b, "coverage") - case["iof"]).max() < 1e-12
    matrix = case["matrix"]
    found = pairwise_iou(np.array(matrix["a"]), np.array(matrix["b"]))
    assert np.abs(found - matrix["iou"]).max() < 1e-12


def test_torch_twin_is_that_of_50_digits():
    case = cases("rotated_iou")
    a, b = torch.tensor(case["a"], dtype=torch.float64), torch.tensor(case["b"], dtype=torch.float64)
    iou = torch.tensor(case["iou"], dtype=torch.float64)
    assert (rotated_iou(a, b) - iou).abs().max() < 1e-12
    iof = torch.tensor(case["iof"], dtype=torch.float64)
    assert (rotated_intersection(a, b) / (a[:, 2] * a[:, 3]).clamp(min=1e-300) - iof).abs().max() < 1e-12
    exact = torch.tensor(case["float32_exact"], dtype=torch.bool)
    in_float32 = rotated_iou(a[exact].float(), b[exact].float())
    assert (in_float32 - iou[exact]).abs().max() < 1e-5
    matrix = {k: torch.tensor(v, dtype=torch.float64) for k, v in case["matrix"].items()}
    assert (pairwise_rotated_iou(matrix["a"], matrix["b"]) - matrix["iou"]).abs().max() < 1e-12


@pytest.mark.parametrize("name", COLUMN_OF)
def test_conventions(name):
    rows = cases("conventions")
    boxes = np.array([row["box"] for row in rows])
    spelled = np.array([row[COLUMN_OF[name]] for row in rows])
    assert np.abs(to_convention(boxes, name) - spelled).max() < 1e-9
    assert aligned_iou(from_convention(spelled, name), boxes).min() > 1 - 1e-9


def test_corners_and_back():
    rows = cases("conventions")
    boxes = np.array([row["box"] for row in rows])
    assert np.abs(corners(boxes) - np.array([row["corners"] for row in rows])).max() < 1e-9
    assert aligned_iou(from_corners(corners(boxes)), boxes).min() > 1 - 1e-9


def test_rotated_nms():
    for case in cases("rotated_nms"):
        boxes, scores = np.array(case["boxes"]), np.array(case["scores"])
        assert nms(boxes, scores, case["iou_thr"]).tolist() == case["keep_agnostic"]
        kept = nms(boxes, scores, case["iou_thr"], np.array(case["labels"]))
        assert kept.tolist() == case["keep_per_class"]


def test_soft_nms():
    for case in cases("soft_nms"):
        kept, scores = soft_nms(
            xywh(case["boxes"]),
            np.array(case["scores"]),
            case["method"],
            case["iou_thr"],
            case["sigma"],
            case["min_score"],
            np.array(case["labels"]),
        )
        assert kept.tolist() == [row["index"] for row in case["expected"]]
        assert np.allclose(scores, [row["score"] for row in case["expected"]], atol=1e-6)


def test_weighted_box_fusion():
    for case in cases("wbf"):
        boxes, scores, labels, _ = weighted_box_fusion(
            [xywh(b) for b in case["boxes"]],
            case["scores"],
            case["labels"],
            case["weights"],
            case["iou_thr"],
            case["skip_box_thr"],
            case["conf_type"],
        )
        expected = case["expected"]
        assert labels.tolist() == [int(x) for x in expected["labels"]]
        assert np.allclose(scores, expected["scores"], atol=1e-5)
        assert np.allclose(boxes, xywh(expected["boxes"]), atol=1e-5)


def test_adaptive_and_matrix_nms():
    for case in cases("adaptive_matrix_nms"):
        boxes, scores = xywh(case["boxes"]), np.array(case["scores"])
        kept = adaptive_nms(boxes, scores, np.array(case["density"]), case["nt"])
        assert kept.tolist() == case["adaptive_keep"]
        assert np.allclose(matrix_nms(boxes, scores, "linear"), case["matrix_linear_scores"], atol=1e-9)
        gaussian = matrix_nms(boxes, scores, "gaussian", case["matrix_gaussian_sigma"])
        assert np.allclose(gaussian, case["matrix_gaussian_scores"], atol=1e-9)
