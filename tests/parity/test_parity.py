"""The same function as the original on the same weights: from raw outputs to detections."""

import numpy as np
import pytest
import torch
from torch import nn

from boxwright.config import check_config
from boxwright.data.targets import Targets
from boxwright.models import build_detector
from boxwright.models.importing import RULES, _rename, import_state
from tests.parity.originals import CONFIGS, as_maps, filled_state, input_image, read_original
from tests.shared_data import shared_cases

# The largest run with the slow tests.
LARGE = ("retinanet_x101_32x4d_fpn", "ssd512_vgg16")
PATHS = [
    pytest.param(*p.values, id=p.id, marks=[*p.marks, pytest.mark.slow])
    if p.id and p.id.removesuffix(".json.gz") in LARGE
    else p
    for p in shared_cases("parity/*.json.gz")
]
OUTPUTS = ("cls_logits", "box_deltas", "side_logits", "distances", "centerness_logits", "objectness_logits")
YOLO_OUTPUTS = ("box_deltas", "objectness_logits", "cls_logits")  # one map there


@pytest.fixture(scope="module", params=PATHS)
def case(request):
    """An original and our model with its weights; models that aren't built yet are skipped, and said."""
    original = read_original(request.param)
    if original["model"] not in CONFIGS:
        pytest.skip(f"{original['model']} has no counterpart yet")
    source = {"root": "nowhere"}
    # The fixtures were made at various score thresholds.
    ours = CONFIGS[original["model"]]
    threshold = {"score_threshold": original["detections"]["score_threshold"]}
    ours = ours | {"selection": ours["selection"] | threshold}
    described = {"data": {"train": source, "val": source}, "model": ours}
    config = check_config(described, "parity").model
    model = build_detector(config, original["classes"])
    report = import_state(model, filled_state(original), config.name, "mmdet")
    assert report.complete, report
    model.normalize = nn.Identity()
    model.eval()
    boxes = torch.tensor(original["gt_boxes"])[None]
    mask = torch.ones(1, boxes.shape[1], dtype=torch.bool)
    targets = Targets.upright(boxes, torch.tensor(original["gt_labels"])[None], mask, torch.zeros_like(mask))
    outputs = model(input_image(original))
    return original, model, config, outputs, targets


def check_sample(found: torch.Tensor, sample: dict) -> None:
    """Shape, and the sampled values relative to the greatest."""
    assert list(found.shape) == sample["shape"]
    values = found.detach().reshape(-1)[sample["index"]].double()
    difference = (values - torch.tensor(sample["value"], dtype=torch.float64)).abs().max()
    assert difference <= 1e-4 * sample["absmax"], (sample["path"], float(difference / sample["absmax"]))


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
    original, _, config, outputs, _ = case
    sizes = outputs["level_sizes"].tolist()
    samples = original["outputs"]
    names = OUTPUTS if config.name != "yolov3" else YOLO_OUTPUTS
    flats = [outputs[name] for name in names if name in outputs]
    flats = [flat.flatten(2) if flat.dim() > 2 else flat[..., None] for flat in flats]
    if config.name == "yolov3":
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
    original, model, config, outputs, targets = case
    for wanted in original["assignment"]:
        found = model.assign(outputs, targets)
        if config.name in ("retinanet", "ssd", "yolov3"):
            assert int(found.ignored.sum()) == wanted["num_ignored"]
        matched_gt = found.matched_gt
        positive = torch.nonzero(matched_gt[0] >= 0)[:, 0]
        assert positive.tolist() == wanted["positive"]
        assert matched_gt[0][positive].tolist() == wanted["gt"]


def test_gradients(case):
    original, model, config, _, targets = case
    model.zero_grad()
    torch.stack(list(model.loss(model(input_image(original)), targets).values())).sum().backward()
    gradients = dict(model.named_parameters())
    for name, norm in original["grad_norms"].items():
        ours = _rename(name, RULES["mmdet"][config.name])
        assert float(gradients[ours].grad.norm()) == pytest.approx(norm, rel=1e-3), name
    model.zero_grad()


def test_detections(case):
    original, model, _, outputs, _ = case
    height, width = original["size_hw"]
    with torch.no_grad():
        (found,) = model.decode(outputs, torch.tensor([[width, height]], dtype=torch.float32))
    wanted = original["detections"]
    assert len(found.boxes) == wanted["count"]
    boxes, labels = torch.tensor(wanted["boxes"]), torch.tensor(wanted["labels"])
    left = set(range(len(boxes)))
    for box, score, label in zip(found.boxes, found.scores, found.labels):
        distance = (boxes - box).abs().amax(-1)
        near = [n for n in left if distance[n] < 1e-2 and labels[n] == label]
        near = [n for n in near if abs(wanted["scores"][n] - float(score)) < 1e-4]
        assert near, (box, score, label)
        left.remove(near[0])
