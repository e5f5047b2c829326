"""Kernels against pycocotools and torch."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask
from torchvision.ops import box_iou

from boxwright.geometry.kernels import iou_matrix
from boxwright.geometry.torch_boxes import pairwise_coverage, pairwise_iou


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_iou_is_pycocotools_to_the_last_bit(seed):
    rng = np.random.default_rng(seed)
    a, b = (
        np.concatenate([rng.uniform(0, 50, (9, 2)), rng.uniform(0.1, 40, (9, 2))], axis=1) for _ in range(2)
    )
    a[0] = b[0]
    assert np.array_equal(iou_matrix(a, b), mask.iou(a, b, [0] * 9))


def test_torch_twins_agree_with_torchvision_and_pycocotools():
    rng = np.random.default_rng(0)
    xywh = [
        np.concatenate([rng.uniform(0, 50, (20, 2)), rng.uniform(1, 40, (20, 2))], axis=1) for _ in range(2)
    ]
    a, b = (torch.from_numpy(np.concatenate([x[:, :2], x[:, :2] + x[:, 2:]], axis=1)) for x in xywh)
    assert torch.allclose(pairwise_iou(a, b), box_iou(a, b))
    crowd = mask.iou(xywh[0], xywh[1], [1] * 20)
    assert np.allclose(pairwise_coverage(a, b).numpy(), crowd)
