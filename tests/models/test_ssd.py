"""SSD, whose maps want images of its own size."""

import pytest
import torch

from boxwright.assign.samplers import hard_negatives
from boxwright.config import check_config
from boxwright.errors import ConfigError
from boxwright.models import build_detector
from tests.models.test_detectors import targets

SMALL_DSSD = {"name": "dssd", "backbone": {"name": "resnet18", "pretrained": False}, "channels": 16}


def make(**model):
    source = {"root": "nowhere"}
    config = check_config(
        {"data": {"train": source, "val": source}, "model": {"name": "ssd"} | model}, "test"
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


@pytest.mark.parametrize(("size", "maps"), [(320, (40, 20, 10, 5, 3, 1)), (512, (64, 32, 16, 8, 4, 2, 1))])
def test_dssd_has_eight_anchors_in_every_cell_of_every_map(size, maps):
    model = make(**SMALL_DSSD, input_size=size).eval()
    with torch.no_grad():
        outputs = model(torch.zeros(1, 3, size, size))
    assert outputs["level_sizes"].tolist() == [8 * side**2 for side in maps]
    assert outputs["cls_logits"].shape == (1, int(outputs["level_sizes"].sum()), 3)
    # Centres of the first and the last cell of a map lie half a cell from the border.
    start = 0
    for count in outputs["level_sizes"].tolist():
        anchors = outputs["anchors"][start : start + count]
        centers = (anchors[:, :2] + anchors[:, 2:]) / 2
        assert torch.allclose(centers[0] + centers[-1], torch.full((2,), float(size)), atol=1e-3)
        start += count


@pytest.mark.parametrize("options", [{}, SMALL_DSSD], ids=["ssd", "dssd"])
def test_losses_and_gradients_are_finite_on_odd_batches(options):
    model = make(**options)
    outputs = model(torch.rand(2, 3, 320, 320) * 255)
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
