"""DETR's numbers: outputs of every layer, their matches, losses, detections."""

import pytest
import torch

from tests.parity.originals import (
    SETS,
    build_counterpart,
    cases_of,
    check_detections,
    check_gradients,
    check_sample,
    input_image,
    read_original,
)


@pytest.fixture(scope="module", params=cases_of(SETS))
def case(request):
    original = read_original(request.param)
    model, name, targets = build_counterpart(original)
    return original, model, name, model(input_image(original), targets), targets


def test_parameters_are_as_many(case):
    original, model, *_ = case
    assert sum(p.numel() for p in model.parameters()) == original["parameters"]


def test_features(case):
    original, model, *_ = case
    with torch.no_grad():
        features = model.project(model.backbone(input_image(original))[0])
    (sample,) = original["features"]
    check_sample(features, sample)


def test_outputs_of_every_layer(case):
    original, _, _, outputs, _ = case
    for name, sample in zip(("cls_logits", "boxes"), original["outputs"], strict=True):
        check_sample(outputs[name].transpose(0, 1), sample)


def test_matches_of_every_layer(case):
    original, model, _, outputs, targets = case
    matched_gt = model._match(outputs, targets)[0]
    for layer, wanted in zip(matched_gt, original["assignment"], strict=True):
        queries = torch.nonzero(layer >= 0)[:, 0]
        assert queries.tolist() == wanted["positive"]
        assert layer[queries].tolist() == wanted["gt"]


def test_losses_and_gradients(case):
    original, model, detector, _, targets = case
    losses = model.loss(model(input_image(original), targets), targets)
    for ours, theirs in (("cls", "loss_cls"), ("l1", "loss_bbox"), ("giou", "loss_iou")):
        wanted = sum(v for name, v in original["losses"].items() if name.split(".")[-1] == theirs)
        assert losses[ours].item() == pytest.approx(wanted, rel=1e-4), ours
    model.zero_grad()
    torch.stack(list(losses.values())).sum().backward()
    check_gradients(model, original, detector)
    model.zero_grad()


def test_detections(case):
    original, model, _, outputs, _ = case
    height, width = original["size_hw"]
    with torch.no_grad():
        (found,) = model.decode(outputs, torch.tensor([[width, height]], dtype=torch.float32))
    check_detections(found, original["detections"])
