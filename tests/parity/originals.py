"""The numbers of the original implementations, and the weights that they were computed with."""

import gzip
import json
import zlib
from pathlib import Path

import torch
from torch import Tensor

FULL_HEAD = {"head_depth": 4, "neck": {"channels": 256, "relu_before_extra": False}}
MMDET_TEST = {"score_threshold": 0.05, "max_detections": 100, "candidates": 1000, "per_level": True}
SSD_TEST = {"iou_threshold": 0.45, "max_detections": 200, "candidates": 1000, "per_level": True}
YOLO_TEST = {"iou_threshold": 0.45, "max_detections": 100, "candidates": 1000}
YOLOX_TEST = {"iou_threshold": 0.65, "max_detections": 100_000, "candidates": 100_000}


def _backbone(name: str = "resnet50", **more) -> dict:
    return {"backbone": {"name": name, "pretrained": False, **more}}


# The configs of ours that compute what the original's does.
CONFIGS = {
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
