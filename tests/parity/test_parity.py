"""The same function as the original on the same weights: from raw outputs to detections."""

import numpy as np
import pytest
import torch

from tests.parity.originals import (
    DENSE,
    as_maps,
    build_counterpart,
    cases_of,
    check_detections,
    check_gradients,
    check_sample,
    input_image,
    read_original,
)

OUTPUTS = ("cls_logits", "box_deltas", "side_logits", "distances", "centerness_logits", "objectness_logits")
YOLO_OUTPUTS = ("box_deltas", "objectness_logits", "cls_logits")  # one map there


@pytest.fixture(scope="module", params=cases_of(DENSE))
def case(request):
    """An original, our model with its weights, our name of it, what it computes, and the truth."""
    original = read_original(request.param)
    model, name, targets = build_counterpart(original)
    return original, model, name, model(input_image(original)), targets


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
    original, _, detector, outputs, _ = case
    sizes = outputs["level_sizes"].tolist()
    samples = original["outputs"]
    names = OUTPUTS if detector != "yolov3" else YOLO_OUTPUTS
    flats = [outputs[name] for name in names if name in outputs]
    flats = [flat.flatten(2) if flat.dim() > 2 else flat[..., None] for flat in flats]
    if detector == "yolov3":
        flats = [torch.cat(flats, dim=-1)]
    assert len(samples) == len(flats) * len(sizes)
    for n, flat in enumerate(flats):
        for found, sample in zip(as_maps(flat, sizes, samples[n * len(sizes) :]), samples[n * len(sizes) :]):
            check_sample(found, sample)


def test_losses(case):
    original, model, _, outputs, targets = case
    losses = model.loss(outputs, targets)
    ours = {"loss_cls": "cls", "loss_bbox": "box", "loss_centerness": "centerness", "loss_dfl": "dfl"}
    ours |= {"loss_conf": "objectness", "loss_xy": "xy", "loss_wh": "wh", "loss_obj": "objectness"}
    ours |= {"loss_bbox_rf": "refined", "positive_bag_loss": "positive", "negative_bag_loss": "negative"}
    assert {ours[name] for name in original["losses"]} == losses.keys()
    for name, value in original["losses"].items():
        assert losses[ours[name]].item() == pytest.approx(np.sum(value), rel=1e-4), name


def test_assignment(case):
    original, model, detector, outputs, targets = case
    for wanted in original["assignment"]:
        found = model.assign(outputs, targets)
        if detector in ("retinanet", "ssd", "yolov3"):
            assert int(found.ignored.sum()) == wanted["num_ignored"]
        matched_gt = found.matched_gt
        positive = torch.nonzero(matched_gt[0] >= 0)[:, 0]
        assert positive.tolist() == wanted["positive"]
        assert matched_gt[0][positive].tolist() == wanted["gt"]


def test_gradients(case):
    original, model, detector, _, targets = case
    model.zero_grad()
    torch.stack(list(model.loss(model(input_image(original)), targets).values())).sum().backward()
    check_gradients(model, original, detector)
    model.zero_grad()


def test_detections(case):
    original, model, _, outputs, _ = case
    height, width = original["size_hw"]
    with torch.no_grad():
        (found,) = model.decode(outputs, torch.tensor([[width, height]], dtype=torch.float32))
    check_detections(found, original["detections"])
