"""SSD, whose maps want images of its own size."""

import pytest
import torch

from boxwright.config import check_config
from boxwright.errors import ConfigError
from boxwright.losses.mining import hard_negatives
from boxwright.models import build_detector
from tests.models.test_detectors import targets


def make(**more):
    source = {"root": "nowhere"}
    config = check_config(
        {"data": {"train": source, "val": source}, "model": {"name": "ssd", **more}}, "test"
    )
    torch.manual_seed(0)
    return build_detector(config.model, 2)


@pytest.mark.parametrize(("size", "anchors"), [(300, 8732), (512, 24564)])
def test_anchors_are_as_many_as_the_paper_has(size, anchors):
    model = make(input_size=size).eval()
    with torch.no_grad():
        outputs = model(torch.zeros(1, 3, size, size))
    assert outputs["cls_logits"].shape == (1, anchors, 3)
    assert outputs["anchors"].shape == outputs["box_deltas"].shape[1:] == (anchors, 4)
    assert int(outputs["level_sizes"].sum()) == anchors


def test_losses_and_gradients_are_finite_on_odd_batches():
    model = make()
    outputs = model(torch.rand(2, 3, 300, 300) * 255)
    total = torch.tensor(0.0)
    for boxes in ([[], []], [[[8, 8, 40, 40]], []], [[[8, 8, 8, 8]], [[-50, -50, 400, 400]]]):
        losses = model.loss(outputs, targets(boxes))
        assert all(torch.isfinite(loss) for loss in losses.values())
        total = total + sum(losses.values())
    total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_small_images_are_refused_with_both_sizes():
    with pytest.raises(ConfigError, match="images of 64 x 96 px; SSD300"):
        make()(torch.zeros(1, 3, 96, 64))


def test_hard_negatives_are_three_for_each_positive_of_their_image():
    losses = torch.tensor([[5.0, 1, 2, 3, 4, 9], [1, 2, 3, 4, 5, 6]])
    positive = torch.tensor([[True, False, False, False, False, False], [False] * 6])
    negative = ~positive
    negative[0, 5] = False  # inside an ignored region
    hard = hard_negatives(losses, positive, negative)
    assert hard.tolist() == [[False, False, True, True, True, False], [False] * 6]
