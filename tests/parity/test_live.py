"""The same function as originals that can be installed: torchvision, and effdet where it is there.

Weights are the originals' own random start, with norms and biases shaken, taken over by our importer.
"""

import pytest
import torch
from torch import nn
from torchvision.models import detection as torchvision_models

from boxwright.config import check_config
from boxwright.data.targets import Targets
from boxwright.models import build_detector
from boxwright.models.importing import import_state

CLASSES = 7
# No centre lies upon an anchor's: effdet doesn't train what is exactly 0 there.
BOXES = torch.tensor(
    [
        [20.3, 30.1, 90.6, 140.2], [100.7, 10.4, 180.1, 60.9], [30.2, 150.8, 60.5, 170.3],
        [5.1, 5.3, 200.6, 190.2], [120.4, 120.1, 124.5, 123.7],
    ]
)  # fmt: skip
LABELS = torch.tensor([0, 3, 6, 2, 3])
TORCHVISION_TEST = {"score_threshold": 0.01, "per_level": True, "candidates": 1000, "max_detections": 100}
RESNET = {
    "backbone": {"name": "resnet50", "pretrained": False},
    "neck": {"channels": 256, "extra_from": "output"},
}
CONFIGS = {
    "retinanet": {
        "name": "retinanet", **RESNET, "anchors": {"rounded": True}, "assigner": {"peak_to": "best"},
        "selection": TORCHVISION_TEST | {"iou_threshold": 0.5},
    },
    "fcos": {
        "name": "fcos", **RESNET, "tower_bias": True, "distances": "relu", "point_offset": 0.0,
        "box_average": "plain", "selection": TORCHVISION_TEST | {"iou_threshold": 0.6},
    },
    "ssd": {
        "name": "ssd", "clip_anchors": True, "mean": [123, 117, 104],
        "selection": {
            "score_threshold": 0.01, "iou_threshold": 0.45, "candidates": 100_000, "max_detections": 200,
        },
    },
}  # fmt: skip


def shaken(model: nn.Module) -> nn.Module:
    """Random norms, statistics and biases, so that none of them can be forgotten; outputs of some size."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not tensor.is_floating_point() or "anchors" in name:
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.copy_(1 + 0.1 * noise.abs())
            elif tensor.dim() == 1:
                tensor.copy_(tensor + 0.05 * noise)
            elif any(part in name for part in ("head.", "_net.")):
                # Boxes some way from their anchors, and scores that differ.
                deltas = "bbox_reg" in name and len(tensor) == 4 * 9  # FCOS's are distances
                scale = 0.02 if deltas else 0.1 if "cls_logits" in name else 1.0
                tensor.copy_(scale * noise * (2 / tensor[0].numel()) ** 0.5)
    return model.eval()


def ours_of(name: str, theirs: nn.Module, origin: str, config: dict | None = None):
    source = {"root": "nowhere"}
    described = {"data": {"train": source, "val": source}, "model": config or CONFIGS[name]}
    model = build_detector(check_config(described, "live").model, CLASSES)
    report = import_state(model, dict(theirs.state_dict()), name, origin)
    assert report.complete, report.describe()
    return model.eval()


def truth(boxes: torch.Tensor = BOXES, labels: torch.Tensor = LABELS) -> Targets:
    mask = torch.ones(1, len(boxes), dtype=torch.bool)
    return Targets.upright(boxes[None], labels[None], mask, torch.zeros_like(mask))


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-4 * b.abs().max())


def same_detections(found, boxes, scores, labels) -> None:
    assert len(found.boxes) == len(boxes)
    assert len(boxes) > 20
    left = set(range(len(boxes)))
    for box, score, label in zip(found.boxes, found.scores, found.labels):
        near = [n for n in left if labels[n] == label and (boxes[n] - box).abs().max() < 1e-2]
        near = [n for n in near if abs(scores[n] - score) < 1e-4]
        assert near, (box, score, label)
        left.remove(near[0])


@pytest.fixture(scope="module", params=["retinanet", "fcos", "ssd"])
def pair(request):
    """Name, theirs, ours, an image in 0..255 and the same as their transform makes it."""
    name = request.param
    torch.manual_seed(0)
    classes = CLASSES + 1 if name == "ssd" else CLASSES
    make = {
        "retinanet": torchvision_models.retinanet_resnet50_fpn,
        "fcos": torchvision_models.fcos_resnet50_fpn,
        "ssd": torchvision_models.ssd300_vgg16,
    }[name]
    theirs = shaken(make(weights=None, weights_backbone=None, num_classes=classes))
    size = 300 if name == "ssd" else 256
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    mean, std = (
        torch.tensor(v)[:, None, None] for v in (theirs.transform.image_mean, theirs.transform.image_std)
    )
    return name, theirs, ours_of(name, theirs, "torchvision"), image * 255, (image - mean) / std


def raw(theirs: nn.Module, image: torch.Tensor):
    from torchvision.models.detection.image_list import ImageList

    features = list(theirs.backbone(image).values())
    outputs = theirs.head(features)
    return outputs, theirs.anchor_generator(ImageList(image, [tuple(image.shape[-2:])]), features), features


def test_raw_outputs_and_anchors(pair):
    name, theirs, ours, image, normalized = pair
    with torch.no_grad():
        outputs, anchors, _ = raw(theirs, normalized)
        found = ours(image)
    logits = outputs["cls_logits"]
    assert close(found["cls_logits"], logits.roll(-1, dims=2) if name == "ssd" else logits)
    if name == "fcos":
        sides = outputs["bbox_regression"] * found["strides"][:, None]
        assert close(found["distances"], sides)
        assert close(found["centerness_logits"], outputs["bbox_ctrness"][..., 0])
        assert torch.equal(found["points"], (anchors[0][:, :2] + anchors[0][:, 2:]) / 2)
    else:
        assert close(found["box_deltas"], outputs["bbox_regression"])
        assert torch.allclose(found["anchors"], anchors[0], atol=1e-4)


def test_losses_and_gradients(pair):
    name, theirs, ours, image, normalized = pair
    wanted = [{"boxes": BOXES, "labels": LABELS + int(name == "ssd")}]
    outputs, anchors, features = raw(theirs, normalized)
    if name == "fcos":
        counts = [
            f.shape[-2] * f.shape[-1] * theirs.anchor_generator.num_anchors_per_location()[0]
            for f in features
        ]
        expected = theirs.compute_loss(wanted, outputs, anchors, counts)
    elif name == "ssd":
        matched = theirs.proposal_matcher(torchvision_iou(BOXES, anchors[0]))
        expected = theirs.compute_loss(wanted, outputs, anchors, [matched])
    else:
        expected = theirs.compute_loss(wanted, outputs, anchors)
    losses = ours.loss(ours(image), truth())
    names = {"classification": "cls", "bbox_regression": "box", "bbox_ctrness": "centerness"}
    assert {names[key] for key in expected} == losses.keys()
    for key, value in expected.items():
        assert losses[names[key]].item() == pytest.approx(value.item(), rel=1e-4), key
    for model, total in ((theirs, sum(expected.values())), (ours, sum(losses.values()))):
        model.zero_grad()
        total.backward()
    first = "backbone.features.0" if name == "ssd" else "backbone.body.conv1"
    ours_norm, theirs_norm = (float(m.get_submodule(first).weight.grad.norm()) for m in (ours, theirs))
    assert ours_norm == pytest.approx(theirs_norm, rel=1e-3)


def torchvision_iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    from torchvision.ops import box_iou

    return box_iou(a, b)


def test_detections(pair):
    name, theirs, ours, image, normalized = pair
    # Boxes that clipping left without area are no detections here; they are taken from theirs below.
    theirs.score_thresh, theirs.detections_per_img = 0.01, 100_000
    if name == "ssd":
        theirs.topk_candidates = 100_000
    size = normalized.shape[-1]
    with torch.no_grad():
        outputs, anchors, features = raw(theirs, normalized)
        if name == "ssd":
            (expected,) = theirs.postprocess_detections(outputs, anchors, [(size, size)])
        else:
            per = 9 if name == "retinanet" else 1
            counts = [f.shape[-2] * f.shape[-1] * per for f in features]
            split = {key: list(value.split(counts, dim=1)) for key, value in outputs.items()}
            (expected,) = theirs.postprocess_detections(
                split, [list(anchors[0].split(counts))], [(size, size)]
            )
        (found,) = ours.decode(ours(image), torch.tensor([[size, size]], dtype=torch.float32))
    boxes = expected["boxes"]
    kept = torch.nonzero((boxes[:, 2:] > boxes[:, :2]).all(1))[: ours.selection.max_detections, 0]
    labels = expected["labels"] - int(name == "ssd")
    same_detections(found, boxes[kept], expected["scores"][kept], labels[kept])


EFFICIENTDETS = [(0, "pytorch"), (1, "pytorch"), (0, "tensorflow")]
LARGEST = [pytest.param(size, "tensorflow", marks=pytest.mark.slow) for size in (6, 7)]


@pytest.mark.parametrize(("size", "style"), EFFICIENTDETS + LARGEST)
def test_efficientdet(size, style):
    effdet = pytest.importorskip("effdet", reason="effdet is not installed: uv sync --group parity")
    name = f"{'tf_' if style == 'tensorflow' else ''}efficientdet_d{size}"
    bench = effdet.create_model(
        name, bench_task="train", pretrained=False, pretrained_backbone=False, num_classes=CLASSES,
        image_size=(256, 256), bench_labeler=True,
    )  # fmt: skip
    theirs = shaken(bench.model)
    bench.eval()
    config = {"name": "efficientdet", "size": size, "style": style, "pretrained": False}
    config["selection"] = {
        "score_threshold": 0.01,
        "iou_threshold": 0.5,
        "candidates": 5000,
        "max_detections": 100,
    }
    ours = ours_of("efficientdet", theirs, "effdet", config)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    image = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(1)) * 255
    normalized = ours.normalize(image)
    with torch.no_grad():
        logits, deltas = theirs(normalized)
        found = ours(image)
        expected = bench(
            normalized,
            {
                "bbox": [BOXES[:, [1, 0, 3, 2]]], "cls": [LABELS + 1.0],
                "img_scale": torch.ones(1), "img_size": torch.tensor([[256.0, 256.0]]),
            },
        )  # fmt: skip
    flat = torch.cat([m.permute(0, 2, 3, 1).reshape(1, -1, CLASSES) for m in logits], 1)
    boxes = torch.cat([m.permute(0, 2, 3, 1).reshape(1, -1, 4) for m in deltas], 1)[..., [1, 0, 3, 2]]
    assert close(found["cls_logits"], flat)
    assert close(found["box_deltas"], boxes)
    assert torch.allclose(found["anchors"][:, [1, 0, 3, 2]], bench.anchors.boxes, atol=1e-3)
    losses = ours.loss(found, truth())
    assert losses["cls"].item() == pytest.approx(expected["class_loss"].item(), rel=1e-4)
    assert losses["box"].item() == pytest.approx(50 * expected["box_loss"].item(), rel=1e-4)
    (detections,) = ours.decode(found, torch.tensor([[256.0, 256.0]]))
    rows = expected["detections"][0]
    rows = rows[rows[:, 4] > 0.01]
    same_detections(detections, rows[:, :4], rows[:, 4], rows[:, 5] - 1)
