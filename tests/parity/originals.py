"""The numbers of the original implementations, and the weights that they were computed with."""

import gzip
import json
import zlib
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from boxwright.config import check_config
from boxwright.data.targets import Targets
from boxwright.models import build_detector
from boxwright.models.detections import Detections
from boxwright.models.detector import Detector
from boxwright.models.importing import RULES, import_state, rename
from tests.shared_data import shared_cases

FULL_HEAD = {"head_depth": 4, "neck": {"channels": 256, "relu_before_extra": False}}
MMDET_TEST = {"score_threshold": 0.05, "max_detections": 100, "candidates": 1000, "per_level": True}
SSD_TEST = {"iou_threshold": 0.45, "max_detections": 200, "candidates": 1000, "per_level": True}
YOLO_TEST = {"iou_threshold": 0.45, "max_detections": 100, "candidates": 1000}
YOLOX_TEST = {"iou_threshold": 0.65, "max_detections": 100_000, "candidates": 100_000}


def _backbone(name: str = "resnet50", **more) -> dict:
    return {"backbone": {"name": name, "pretrained": False, **more}}


# The largest run with the slow tests.
LARGE = ("retinanet_x101_32x4d_fpn", "ssd512_vgg16")

# The configs of ours that compute what the original's does: dense ones, and those with tests of their own.
DENSE = {
    "retinanet_r50_fpn": {
        "name": "retinanet", **_backbone(), **FULL_HEAD, "selection": MMDET_TEST | {"iou_threshold": 0.5},
    },
    "retinanet_x101_32x4d_fpn": {
        "name": "retinanet", **_backbone("resnext101_32x4d"), **FULL_HEAD,
        "selection": MMDET_TEST | {"iou_threshold": 0.5},
    },
    "fcos_r50_caffe_gn": {
        "name": "fcos", **_backbone(style="caffe"), "head_depth": 4, "neck": {"channels": 256},
        "distances_in_strides": False, "centerness_on_cls": True, "box_loss": "log_iou", "rank": "product",
        "assigner": {"radius": 0.0}, "selection": MMDET_TEST | {"iou_threshold": 0.5},
    },
    "nas_fcos_r50": {
        "name": "nas_fcos", **_backbone(style="caffe"), "distances_in_strides": False, "rank": "product",
        "box_loss": "log_iou", "assigner": {"radius": 0.0}, "selection": MMDET_TEST | {"iou_threshold": 0.6},
    },
    "freeanchor_r50_fpn": {
        "name": "freeanchor", **_backbone(), **FULL_HEAD, "selection": MMDET_TEST | {"iou_threshold": 0.5},
    },
    "atss_r50_fpn": {
        "name": "atss", **_backbone(), **FULL_HEAD, "selection": MMDET_TEST | {"iou_threshold": 0.6},
    },
    "vfnet_r50_fpn": {
        "name": "vfnet", **_backbone(), "neck": {"channels": 256},
        "selection": MMDET_TEST | {"iou_threshold": 0.6},
    },
    "ssd300_vgg16": {"name": "ssd", "selection": SSD_TEST},
    "ssd512_vgg16": {"name": "ssd", "input_size": 512, "selection": SSD_TEST},
    "yolov3_d53": {"name": "yolov3", "clip": False, "selection": YOLO_TEST},
    "yolox_s": {"name": "yolox", "clip": False, "selection": YOLOX_TEST},
    "gfl_r50_fpn": {
        "name": "gfl", **_backbone(), **FULL_HEAD, "selection": MMDET_TEST | {"iou_threshold": 0.6},
    },
}  # fmt: skip
REGIONS = {
    "faster_rcnn_r50_fpn": {
        "name": "faster_rcnn", **_backbone(), "neck": {"channels": 256}, "regions": {"sampling_ratio": 0},
        "selection": {"iou_threshold": 0.5, "max_detections": 100, "candidates": 100_000},
    },
}  # fmt: skip
SETS = {"detr_r50": {"name": "detr", **_backbone(), "selection": {"max_detections": 100}}}
COUNTERPARTS = DENSE | REGIONS | SETS


def cases_of(kind: dict[str, dict]) -> list:
    """A parameter for each fixture of a kind of detectors; those of none are said with the dense ones."""
    cases = []
    for case in shared_cases("parity/*.json.gz"):
        name = read_original(case.values[0])["model"] if case.id else None
        if case.id and name not in kind and (kind is not DENSE or name in COUNTERPARTS):
            continue
        marks = [*case.marks, pytest.mark.slow] if name in LARGE else case.marks
        cases.append(pytest.param(*case.values, id=case.id, marks=marks))
    return cases


def build_counterpart(original: dict) -> tuple[Detector, str, Targets]:
    """Our model with the original's weights, taking its input as it is; its name; and the truth.

    A model that isn't built yet is skipped, and said.
    """
    if original["model"] not in COUNTERPARTS:
        pytest.skip(f"{original['model']} has no counterpart yet")
    ours, source = COUNTERPARTS[original["model"]], {"root": "nowhere"}
    # The fixtures were made at various score thresholds.
    threshold = {"score_threshold": original["detections"]["score_threshold"]}
    ours = ours | {"selection": ours["selection"] | threshold}
    config = check_config({"data": {"train": source, "val": source}, "model": ours}, "parity").model
    model = build_detector(config, original["classes"])
    report = import_state(model, filled_state(original), config.name, "mmdet")
    assert report.complete, report
    model.normalize = nn.Identity()
    boxes = torch.tensor(original["gt_boxes"])[None]
    mask = torch.ones(1, boxes.shape[1], dtype=torch.bool)
    targets = Targets.upright(boxes, torch.tensor(original["gt_labels"])[None], mask, torch.zeros_like(mask))
    return model.eval(), config.name, targets


def read_original(path: Path) -> dict:
    return json.loads(gzip.decompress(path.read_bytes()))


def filled_state(original: dict) -> dict[str, Tensor]:
    """Every tensor of the original's state dict, made from its name by the rule beside it."""
    state = {}
    for key, shape, rule in original["state"]:
        if rule == "kept":
            continue
        generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
        draw = torch.rand if rule == "1+0.1*rand" else torch.randn
        r = draw(shape, generator=generator)
        state[key] = {
            "gain*randn*sqrt(2/fan_in)": lambda r=r: original["gain"] * r * (2 / r[0].numel()) ** 0.5,
            "1+0.05*randn": lambda r=r: 1 + 0.05 * r,
            "0.01*randn": lambda r=r: 0.01 * r,
            "0.05*randn": lambda r=r: 0.05 * r,
            "1+0.1*rand": lambda r=r: 1 + 0.1 * r,
            "20+randn": lambda r=r: 20 + r,
        }[rule]()
    return state


def input_image(original: dict) -> Tensor:
    """(1, 3, H, W), given to the network as it is."""
    generator = torch.Generator().manual_seed(1000 + original["seed"])
    height, width = original["size_hw"]
    return (torch.rand(1, 3, height, width, generator=generator) - 0.45) / 0.225


def as_maps(flat: Tensor, sizes: list[int], samples: list[dict]) -> list[Tensor]:
    """Outputs (1, P, C) of all levels as the originals' maps (1, K * C, H, W) of each."""
    maps, start = [], 0
    for size, sample in zip(sizes, samples):
        _, channels, height, width = sample["shape"]
        part = flat[:, start : start + size].reshape(1, height, width, channels)
        maps.append(part.permute(0, 3, 1, 2))
        start += size
    return maps


def check_sample(found: Tensor, sample: dict) -> None:
    """Shape, and the sampled values relative to the greatest."""
    assert list(found.shape) == sample["shape"]
    values = found.detach().reshape(-1)[sample["index"]].double()
    difference = (values - torch.tensor(sample["value"], dtype=torch.float64)).abs().max()
    assert difference <= 1e-4 * sample["absmax"], (sample["path"], float(difference / sample["absmax"]))


def check_gradients(model: nn.Module, original: dict, detector: str) -> None:
    """Norms of the gradients that a backward pass has left."""
    gradients = dict(model.named_parameters())
    for name, norm in original["grad_norms"].items():
        ours = rename(name, RULES["mmdet"][detector])
        assert ours is not None
        gradient = gradients[ours].grad
        assert gradient is not None, name
        assert float(gradient.norm()) == pytest.approx(norm, rel=1e-3), name


def check_detections(found: Detections, wanted: dict) -> None:
    """Each found box beside one of the original's, of the same class and score.

    A hundredth of a pixel off at most; boxes far larger than their image, which random weights make, have
    float32's share of their sides.
    """
    assert len(found.boxes) == wanted["count"]
    boxes, labels = torch.tensor(wanted["boxes"]), torch.tensor(wanted["labels"])
    allowed = (2e-5 * (boxes[:, 2:4] - boxes[:, :2]).amax(-1)).clamp(min=1e-2)
    left = set(range(len(boxes)))
    for box, score, label in zip(found.boxes, found.scores, found.labels):
        distance = (boxes - box).abs().amax(-1)
        near = [n for n in left if distance[n] < allowed[n] and labels[n] == label]
        near = [n for n in near if abs(wanted["scores"][n] - float(score)) < 1e-4]
        assert near, (box, score, label)
        left.remove(near[0])
