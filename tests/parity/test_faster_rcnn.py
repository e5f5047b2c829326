"""Faster R-CNN's numbers: proposals, what is sampled of them, losses, detections."""

import pytest
import torch

from boxwright.geometry.torch_boxes import pairwise_iou
from boxwright.models import faster_rcnn
from tests.parity.originals import (
    REGIONS,
    build_counterpart,
    cases_of,
    check_detections,
    check_gradients,
    check_sample,
    input_image,
    read_original,
)

TIE = 1e-5  # of objectness; what threads and processors sum in another order differs by up to 7e-6


@pytest.fixture(scope="module", params=cases_of(REGIONS))
def case(request):
    original = read_original(request.param)
    model, name, targets = build_counterpart(original)
    with torch.no_grad():
        outputs = model(input_image(original))
    return original, model, name, outputs, targets


@pytest.fixture
def sampled(case, monkeypatch):
    """What the model computes in training on the original's samples; each region's place among proposals."""
    original, model, _, _, targets = case
    anchors, regions = [part for part in original["assignment"] if "sampler" in part]
    truth = targets.boxes.shape[1]

    def draw(positive, negative, count, positive_share):
        proposals = positive.shape[1] - truth
        chosen = torch.zeros_like(positive)
        for name, among in (("positive", positive), ("negative", negative)):
            if positive.shape[1] == len(case[3]["anchors"]):
                places = torch.tensor(anchors[name])
            else:  # the truth stands before the proposals there, behind them here
                places = torch.tensor(regions[name])
                places = torch.where(places < truth, places + proposals, places - truth)
            assert among[0, places].all(), name
            chosen[0, places] = True
        return chosen

    monkeypatch.setattr(faster_rcnn, "random_sample", draw)
    return model(input_image(original), targets)


def test_parameters_are_as_many(case):
    original, model, *_ = case
    assert sum(p.numel() for p in model.parameters()) == original["parameters"]


def test_features(case):
    original, model, *_ = case
    with torch.no_grad():
        pyramid = model.neck(model.backbone(input_image(original)))
    for found, sample in zip(pyramid, original["features"], strict=True):
        check_sample(found, sample)


def test_outputs(case):
    original, model, _, outputs, _ = case
    logits, deltas = original["outputs"]
    scores = scores_of_regions(original, model, outputs)
    check_ranked(outputs["cls_logits"][0, 0], logits, scores)
    check_ranked(outputs["box_deltas"][0, 0].flatten(1), deltas, scores)


def scores_of_regions(original, model, outputs) -> torch.Tensor:
    """(R,) objectness of each region: that of the anchor which it was made of."""
    height, width = original["size_hw"]
    limit = torch.tensor([[width, height]], dtype=torch.float32)
    made = model.kind.propose(outputs["anchors"], outputs["rpn_deltas"], limit)[0]
    exact = "donot_use_mm_for_euclid_dist"
    distance, anchor = torch.cdist(outputs["regions"][0, 0], made, compute_mode=exact).min(1)
    assert distance.max() < 1e-3
    return outputs["rpn_logits"][0, anchor].sigmoid()


def check_ranked(found: torch.Tensor, sample: dict, scores: torch.Tensor) -> None:
    """As `check_sample`, of rows in the order of scores: neighbours that tie may have changed places."""
    assert list(found.shape) == sample["shape"]
    index = torch.tensor(sample["index"])
    places, column = index // found.shape[1], index % found.shape[1]
    near = (places[:, None] + torch.tensor([0, -1, 1])).clamp(0, len(found) - 1)
    expected = torch.tensor(sample["value"], dtype=torch.float64)
    right = (found[near, column[:, None]].double() - expected[:, None]).abs() <= 1e-4 * sample["absmax"]
    tied = (scores[near] - scores[places, None]).abs() < TIE
    assert (right & tied).any(1).all(), sample["path"]


def test_assignment(case, sampled):
    original, model, _, _, targets = case
    anchors, regions = [part for part in original["assignment"] if "assigner" in part]
    found = model.assign(sampled, targets)
    assert int(found.ignored.sum()) == anchors["num_ignored"]
    positive = torch.nonzero(found.matched_gt[0] >= 0)[:, 0]
    assert positive.tolist() == anchors["positive"]
    assert found.matched_gt[0][positive].tolist() == anchors["gt"]
    # Regions beside the truth itself, which is positive too.
    matched, own = sampled["matched_gt"][0, 0], sampled["regions"][0, 0]
    iou = pairwise_iou(own, targets.boxes[0]).amax(1)
    assert sorted(matched[(matched >= 0) & (iou < 1)].tolist()) == sorted(regions["gt"])


def test_losses_and_gradients(case, sampled):
    original, model, detector, _, targets = case
    losses = model.loss(sampled, targets)
    names = {"loss_rpn_cls": "rpn_cls", "loss_rpn_bbox": "rpn_box", "loss_cls": "cls", "loss_bbox": "box"}
    wanted = {name: value for name, value in original["losses"].items() if name != "acc"}
    assert {names[name] for name in wanted} == losses.keys()
    for name, value in wanted.items():
        assert losses[names[name]].item() == pytest.approx(torch.tensor(value).sum().item(), rel=1e-4), name
    model.zero_grad()
    torch.stack(list(losses.values())).sum().backward()
    check_gradients(model, original, detector)
    model.zero_grad()


def test_detections(case):
    original, model, _, outputs, _ = case
    height, width = original["size_hw"]
    (found,) = model.decode(outputs, torch.tensor([[width, height]], dtype=torch.float32))
    check_detections(found, original["detections"])
