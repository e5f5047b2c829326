"""Every detector: shapes, losses on odd batches, decoding, overfitting."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from boxwright.assign import samplers
from boxwright.config import check_config
from boxwright.data.dataset import DetectionDataset, collate
from boxwright.data.targets import Targets
from boxwright.evaluation.evaluate import evaluate
from boxwright.models import build_detector, faster_rcnn
from boxwright.models.detector import Detector, weigh
from boxwright.models.folding import fold_norms
from boxwright.prediction.detect import detect, to_tables
from tests.scenes import oriented_tables, square_tables

BACKBONE = {"name": "resnet18", "pretrained": False}
SMALL = {"backbone": BACKBONE, "neck": {"name": "fpn", "channels": 32}, "head_depth": 1}
CONFIGS = {
    "compact": {"name": "compact", "width": 0.5},
    "compact_obb": {"name": "compact_obb", "width": 0.5},
    "compact_obb-heading": {"name": "compact_obb", "width": 0.5, "heading": True},
    "fcos": {"name": "fcos", **SMALL},
    "nas_fcos": {"name": "nas_fcos", "backbone": BACKBONE, "channels": 32},
    "fcos_obb": {"name": "fcos_obb", **SMALL},
    "atss_obb": {"name": "atss_obb", **SMALL, "heading": True, "gaussian": "prob_iou"},
    "retinanet_obb": {"name": "retinanet_obb", **SMALL, "head_norm": "group", "gaussian": "gwd"},
    "retinanet": {"name": "retinanet", **SMALL, "head_norm": "group"},
    "retinanet-prime": {"name": "retinanet", **SMALL, "box_loss": "ciou", "sampler": {"name": "prime"}},
    "retinanet-ohem": {
        "name": "retinanet",
        **SMALL,
        "cls_loss": "cross_entropy",
        "box_loss": "balanced_l1",
        "sampler": {"name": "ohem"},
    },
    "freeanchor": {"name": "freeanchor", **SMALL, "head_norm": "group"},
    "atss": {"name": "atss", **SMALL},
    "gfl": {"name": "gfl", **SMALL},
    "vfnet": {"name": "vfnet", **SMALL},
    "yolov3": {"name": "yolov3", "channels": 8},
    "yolox": {"name": "yolox", "width": 0.25, "depth": 0.1},
    "yolox-ota": {"name": "yolox", "width": 0.25, "depth": 0.1, "assigner": {"name": "ota"}},
    "yolox-nano": {"name": "yolox", "width": 0.25, "depth": 0.1, "depthwise": True},
    "efficientdet": {"name": "efficientdet", "size": 0, "pretrained": False, "drop_path": 0.0},
}
REGIONS = {
    "backbone": BACKBONE,
    "neck": {"name": "fpn", "channels": 32},
    "hidden": 64,
    "rpn": {"proposals": 100},
    "regions": {"sampler": {"name": "random", "count": 64}},
}
# Those that predict boxes of their own, not one at each anchor or point.
SPARSE = {
    "faster_rcnn": {"name": "faster_rcnn", **REGIONS},
    "faster_rcnn-ohem": {
        "name": "faster_rcnn",
        **REGIONS,
        "regions": {"sampler": {"name": "ohem", "count": 64}, "class_agnostic": True},
    },
    "cascade_rcnn": {"name": "cascade_rcnn", **REGIONS},
    "faster_rcnn_obb": {"name": "faster_rcnn_obb", **REGIONS},
    "faster_rcnn_obb-heading": {
        "name": "faster_rcnn_obb",
        **REGIONS,
        "heading": True,
        "regions": {"sampler": {"name": "ohem", "count": 64}, "class_agnostic": False},
    },
}
# Those that predict a set.
SETS = {
    "detr": {
        "name": "detr",
        "backbone": BACKBONE,
        "channels": 32,
        "heads": 2,
        "hidden": 64,
        "queries": 20,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "dropout": 0.0,
    },
}
SETS |= {
    "rtdetr": {"name": "rtdetr", "pretrained": False, "queries": 20, "denoising": 20},
    "dfine": {"name": "dfine", "pretrained": False, "queries": 20, "denoising": 20},
    "dfine_obb": {"name": "dfine_obb", "pretrained": False, "queries": 20, "denoising": 20, "heading": True},
    "dfine-mal": {"name": "dfine", "pretrained": False, "queries": 20, "denoising": 20, "cls_loss": "mal"},
}
DENSE = list(CONFIGS)
FACES = {
    "retinaface": {
        "name": "retinaface",
        "backbone": BACKBONE,
        "neck": {"channels": 32},
    }
}
CONFIGS |= SPARSE | SETS | FACES
LARGE = {
    "ssd": {"name": "ssd", "width": 0.25},
    "dssd": {"name": "dssd", "backbone": BACKBONE, "channels": 32},
}
ANCHORS = {
    "retinanet": 9,
    "retinanet_obb": 9,
    "freeanchor": 9,
    "efficientdet": 9,
    "yolov3": 3,
}  # a location; others: 1


def make(name: str, classes: int = 2, seed: int = 0) -> Detector:
    torch.manual_seed(seed)
    source = {"root": "nowhere"}
    config = check_config(
        {"data": {"train": source, "val": source}, "model": (CONFIGS | LARGE)[name]}, "test"
    )
    return build_detector(config.model, classes)


def targets(boxes: list[list[list[float]]], ignore: bool = False) -> Targets:
    """Padded truth of class 0; with `ignore` the last box of each image is an ignored region."""
    most = max(len(b) for b in boxes)
    padded, mask = torch.zeros(len(boxes), most, 4), torch.zeros(len(boxes), most, dtype=torch.bool)
    ignored = mask.clone()
    for n, rows in enumerate(boxes):
        if rows:
            padded[n, : len(rows)], mask[n, : len(rows)] = torch.tensor(rows), True
            ignored[n, len(rows) - 1] = ignore
    return Targets.upright(padded, torch.zeros(len(boxes), most, dtype=torch.long), mask & ~ignored, ignored)


@pytest.mark.parametrize("name", DENSE)
def test_outputs_have_the_documented_shapes(name):
    model = make(name)
    outputs = model(torch.zeros(2, 3, 64, 96))
    strides = (8, 16, 32) if name.startswith(("compact", "yolo")) else (8, 16, 32, 64, 128)
    priors = sum(-(-64 // s) * -(-96 // s) for s in strides) * ANCHORS.get(name.split("-")[0], 1)
    assert outputs["cls_logits"].shape == (2, priors, 2)
    sizes = outputs.pop("level_sizes", torch.tensor([priors]))
    assert int(sizes.sum()) == priors
    assert all(o.shape[0] == priors or o.shape[:2] == (2, priors) for o in outputs.values())


ODD = {
    "no box in the batch": [[], []],
    "no box in one image": [[[8, 8, 40, 40]], []],
    "a box without area": [[[8, 8, 8, 8]], [[8, 8, 40, 40]]],
    "a box larger than the image": [[[-50, -50, 200, 200]], [[0, 0, 64, 64]]],
    "500 boxes": [[[x, y, x + 3.0, y + 3.0] for x in range(25) for y in range(20)], []],
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("case", ODD)
def test_losses_and_gradients_are_finite_on_odd_batches(name, case):
    model = make(name)
    truth = targets(ODD[case])
    losses = model.loss(model(torch.rand(2, 3, 64, 64) * 255, truth), truth)
    total = sum(losses.values())
    assert all(loss.ndim == 0 for loss in losses.values())
    total.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert torch.isfinite(total)
    assert all(torch.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("name", CONFIGS)
def test_weights_that_are_no_numbers_end_in_a_loss_that_is_none(name):
    """Training looks at the loss, says which images and keeps the last good state: nothing fails before."""
    truth = targets([[[8, 8, 40, 40]], [[4, 4, 20, 30], [30, 30, 60, 60]]])
    for part in ("backbone", None):
        model = make(name)
        with torch.no_grad():
            for parameter in (model.get_submodule(part) if part else model).parameters():
                parameter.fill_(torch.nan)
        losses = model.loss(model(torch.rand(2, 3, 64, 64) * 255, truth), truth)
        assert not torch.isfinite(sum(losses.values()))


class _Syncs(TorchDispatchMode):
    """Notes every operation that waits for the device or makes a shape out of values."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        name = operation.overloadpacket.__name__
        picks = name == "index" and any(
            i is not None and i.dtype in (torch.bool, torch.uint8) for i in arguments[1]
        )
        if picks or name in ("nonzero", "masked_select", "_local_scalar_dense", "unique"):
            self.found.append(name)
        return operation(*arguments, **(options or {}))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_training_step_never_waits_for_the_device(name):
    model = make(name)
    truth = targets([[[8, 8, 40, 40]], [[4, 4, 20, 30], [30, 30, 60, 60]]])
    with _Syncs() as syncs:
        sum(model.loss(model(torch.rand(2, 3, 64, 64) * 255, truth), truth).values()).backward()
    assert syncs.found == []


@pytest.fixture
def same_draws(monkeypatch):
    """Samples that don't depend on how many numbers were drawn before."""
    drawn = partial(samplers.random_sample, generator=torch.Generator())

    def draw(*arguments):
        drawn.keywords["generator"].manual_seed(0)
        return drawn(*arguments)

    monkeypatch.setattr(faster_rcnn, "random_sample", draw)


def losses_of(model: Detector, images: torch.Tensor, truth: Targets) -> dict[str, torch.Tensor]:
    return model.loss(model(images, truth), truth)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.usefixtures("same_draws")
def test_padding_has_no_share_in_the_loss(name):
    model = make(name).eval()
    if hasattr(model, "noisy"):
        model.noisy.count = 7  # once seven, or seven times one: as many, as products round by their sizes
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255
    boxes = [[[8.0, 8, 40, 40]], [[20.0, 4, 60, 50]]]
    wide = targets([*boxes, [[0.0, 0, 9, 9]] * 7])
    padded = Targets.upright(*(getattr(wide, f)[:2] for f in ("boxes", "labels", "mask", "ignore")))
    tight, loose = (losses_of(model, images, truth) for truth in (targets(boxes), padded))
    for key, value in tight.items():
        if key.startswith("dn_"):  # other queries are made of the truth where it is padded
            continue
        assert torch.equal(value, loose[key]), key


@pytest.mark.usefixtures("same_draws")
def test_what_suppresses_trains_through_torch_compile():
    model = make("faster_rcnn").eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255
    truth = targets([[[8.0, 8, 40, 40]], [[20.0, 4, 60, 50]]])
    expected = losses_of(model, images, truth)
    compiled = torch.compile(model, backend="eager")
    found = model.loss(compiled(images, truth), truth)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, msg=key)
    sum(found.values()).backward()


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.usefixtures("same_draws")
def test_the_weight_of_an_image_multiplies_its_gradients(name):
    model = make(name).eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255
    truth = targets([[[8.0, 8, 40, 40]], [[20.0, 4, 60, 50]]])
    parameters = [p for p in model.parameters() if p.requires_grad]

    def gradients(weights: list[float]) -> torch.Tensor:
        torch.manual_seed(0)
        outputs = model(images, truth)
        weigh(outputs, torch.tensor(weights))
        loss = sum(model.loss(outputs, truth).values())
        own = torch.autograd.grad(loss, parameters, allow_unused=True)
        return torch.cat([g.flatten() for g in own if g is not None])

    both, first, second = (gradients(w) for w in ([1.0, 2.0], [1.0, 0.0], [0.0, 1.0]))
    torch.testing.assert_close(both, first + 2 * second, rtol=1e-3, atol=1e-4 * float(both.abs().max()))
    assert first.abs().max() > 0
    assert second.abs().max() > 0


@pytest.mark.parametrize("name", CONFIGS)
def test_an_ignored_region_costs_nothing_where_nothing_is_known(name):
    model = make(name).eval()
    with torch.no_grad():
        images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255
        whole = targets([[[-400.0, -400, 500, 500]]], ignore=True)
        assert sum(losses_of(model, images, whole).values()) == 0
        assert sum(losses_of(model, images, targets([[]])).values()) > 0


def learn(model, tables, steps, side, batch_size=4):
    """What a detector finds in the eight images of `tables` after `steps` of training on them."""
    dataset = DetectionDataset(tables, (side, side))
    batches = [collate([dataset[i] for i in range(n, n + batch_size)]) for n in range(0, 8, batch_size)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    # The last quarter settles: at a constant rate the last step is as good as chance has it.
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, 4 * (1 - step / steps)))
    for step in range(steps):
        batch = batches[step % len(batches)]
        loss = sum(model.loss(model(batch.images, batch.targets), batch.targets).values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        schedule.step()
    rows = detect(model.eval(), batches, torch.device("cpu"))
    return to_tables(rows, tables.images, tables.categories["name"].to_list(), "found")


OVERFIT = [("compact", 150), ("compact_obb", 200)]
OVERFIT += [
    pytest.param(name, steps, marks=pytest.mark.slow)
    for name, steps in (
        ("retinanet", 120),
        ("fcos", 120),
        ("atss", 120),
        ("gfl", 240),
        ("freeanchor", 200),
        ("vfnet", 240),
        ("faster_rcnn", 100),
        ("cascade_rcnn", 150),
        ("faster_rcnn_obb", 200),
        ("rtdetr", 200),
        ("dfine", 300),
        ("dfine_obb", 400),
        ("yolov3", 200),
        ("yolox", 200),
        ("yolox-ota", 200),
        ("efficientdet", 100),
        ("ssd", 200),
        ("dssd", 100),
        ("fcos_obb", 200),
        ("atss_obb", 200),
        ("retinanet_obb", 200),
    )
]


LEAST_AP50, HEADING_STEPS, LEAST_COSINE = 0.8, 100, 0.7  # `python -m tests.margins` shows what is met


def overfit(name: str, steps: int, folder: Path, seed: int = 0) -> float:
    """AP50 on the eight images that a detector was trained on."""
    tables = oriented_tables(folder, 8) if "obb" in name else square_tables(folder, 8)
    side, batch_size, model = 96 if "obb" in name else 64, 4, make(name, seed=seed).train()
    if name == "efficientdet":
        # Batch norms on maps of a pixel tell batches apart, and take hundreds of steps to settle.
        side, batch_size = 128, 8
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 0.1
    if name in ("ssd", "dssd"):
        side = 320
    found = learn(model, tables, steps, side, batch_size)
    return evaluate(tables, found).coco["AP50"]


@pytest.mark.parametrize(("name", "steps"), OVERFIT)
def test_it_overfits_eight_images(name, steps, tmp_path):
    assert overfit(name, steps, tmp_path) >= LEAST_AP50


def heading_cosines(folder: Path, steps: int, seed: int = 0) -> np.ndarray:
    """(16,) cosines of the errors of the headings of two bars an image."""
    tables = oriented_tables(folder, 8, headings=True)
    keys = ["image_id", "category_id"]
    found = learn(make("compact_obb-heading", seed=seed).train(), tables, steps, 96).boxes
    best = found.sort("score", descending=True).unique(keys, keep="first")
    pairs = tables.boxes.join(best, on=keys)
    assert len(pairs) == 16
    return (pairs["angle"] - pairs["angle_right"]).cos().to_numpy()


def test_it_learns_headings(tmp_path):
    assert heading_cosines(tmp_path, HEADING_STEPS).min() > LEAST_COSINE


def test_a_backbone_is_frozen_up_to_the_wanted_stage_and_stays_so_in_training():
    from boxwright.models.backbones.timm import TimmBackbone

    backbone = TimmBackbone("resnet18", frozen_stages=2).train()
    trained = {name.split(".")[1] for name, p in backbone.named_parameters() if p.requires_grad}
    assert trained == {"layer2", "layer3", "layer4"}
    assert not backbone.body.bn1.training
    assert backbone.body.layer2[0].bn1.training
    assert [m.shape[1] for m in backbone(torch.zeros(1, 3, 64, 64))] == backbone.channels


def test_an_unreachable_hub_is_said_and_the_start_is_random(monkeypatch, caplog):
    import timm

    from boxwright.models.backbones.timm import TimmBackbone

    honest = timm.create_model

    def offline(name, pretrained=False, **options):
        if pretrained:
            raise OSError("no network")
        return honest(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    TimmBackbone("resnet18", pretrained=True)
    assert "no pretrained weights for resnet18 (no network)" in caplog.text


@pytest.mark.parametrize("name", CONFIGS)
def test_folded_norms_change_nothing(name):
    model = make(name)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad():
        model.train()(images)  # statistics that aren't 0 and 1
        expected, folded = model.eval()(images), fold_norms(model)
        found, twice = folded(images), fold_norms(folded)(images)
    for key, value in expected.items():
        assert torch.allclose(
            found[key].float(), value.float(), atol=1e-3 * float(value.float().abs().max())
        ), key
        assert torch.equal(twice[key], found[key]), key
    left = [m for m in folded.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    # Norms that are a level's own, behind convolutions of all; norms behind deformable convolutions.
    assert not left or name in ("efficientdet", "nas_fcos")


class OtherNorm(torch.nn.BatchNorm2d):
    """A norm that isn't folded, as one of several processes isn't."""


@pytest.mark.parametrize("name", ["dfine", "rtdetr", "yolox", "compact"])
def test_norms_that_cant_be_folded_stay(name):
    model = make(name)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255
    for module in model.modules():
        if type(module) is torch.nn.BatchNorm2d:
            module.__class__ = OtherNorm
    with torch.no_grad():
        model.train()(images)
        expected, found = model.eval()(images), fold_norms(model)(images)
    for key, value in expected.items():
        assert torch.allclose(
            found[key].float(), value.float(), atol=1e-3 * float(value.float().abs().max())
        ), key


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_of_batch_norms_lie_as_their_inputs(name):
    """Else a norm takes several times as long on a processor."""
    model = make(name).to(memory_format=torch.channels_last)
    truth, last, others = targets([[[8, 8, 40, 40]], [[4, 4, 60, 60]]]), torch.channels_last, []

    def watch(norm: str):
        def look(gradient):
            if not gradient.is_contiguous(memory_format=last):
                others.append(norm)

        def hook(_, inputs, output):
            if inputs[0].is_contiguous(memory_format=last):
                output.register_hook(look)

        return hook

    for part, module in model.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_hook(watch(part))
    images = torch.rand(2, 3, 96, 96).contiguous(memory_format=last) * 255
    sum(model.loss(model(images, truth), truth).values()).backward()
    assert not others


def test_yolox_nano_has_as_many_parameters_as_published():
    config = check_config(
        {
            "data": {"train": {"root": "x"}, "val": {"root": "x"}},
            "model": {"name": "yolox", "width": 0.25, "depthwise": True},
        },
        "test",
    )
    parameters = sum(p.numel() for p in build_detector(config.model, 80).parameters())
    assert round(parameters / 1e6, 2) == 0.91  # the table of its README
