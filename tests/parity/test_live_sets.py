"""D-FINE and RT-DETRv2 beside transformers' classes on the same weights: every layer, losses, detections."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from boxwright.config import check_config
from boxwright.data.targets import Targets
from boxwright.models import build_detector
from boxwright.models.importing import import_state
from boxwright.models.set_boxes import UPRIGHT
from tests.hub import serve
from tests.parity.test_live import close, same_detections

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: uv sync --group parity"
)
from tests.parity import theirs_of  # noqa: E402  which needs it

CLASSES, QUERIES, DENOISING = 7, 50, 30
WIDTH, HEIGHT = 256, 192
BOXES = torch.tensor(
    [
        [[20.3, 30.1, 90.6, 140.2], [100.7, 10.4, 180.1, 60.9], [30.2, 110.8, 60.5, 170.3]],
        [[5.1, 5.3, 200.6, 190.2], [120.4, 120.1, 164.5, 163.7], [60.0, 20.0, 110.0, 40.0]],
    ]
)
LABELS = torch.tensor([[0, 3, 6], [2, 3, 5]])
OURS = {"queries": QUERIES, "denoising": DENOISING, "pretrained": False}
OURS |= {"selection": {"max_detections": QUERIES}}  # as many as theirs
MODELS = {
    "dfine n": (theirs_of.dfine_n, {"name": "dfine", "size": "n", "union_matching": False, **OURS}),
    "dfine s": (theirs_of.dfine_s, {"name": "dfine", "size": "s", "union_matching": False, **OURS}),
    "rtdetr 18": (theirs_of.rtdetr_r18, {"name": "rtdetr", "size": 18, **OURS}),
}


def shaken(model: nn.Module) -> nn.Module:
    """Weights of some size everywhere, so that no layer can be forgotten and no two queries tie."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not tensor.is_floating_point() or name.endswith(("points_scale", ".up", "reg_scale")):
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.copy_(1 + 0.1 * noise.abs())
            elif "sampling_offsets.bias" in name:
                tensor.add_(0.1 * noise)
            elif tensor.dim() == 1:
                tensor.copy_(tensor + 0.05 * noise)
            else:
                gain = 2.0 if tensor.dim() == 4 else 0.5  # more, and rounding grows from layer to layer
                tensor.copy_(noise * (gain / tensor[0].numel()) ** 0.5)
        # Statistics of some images, or all places would be nearly the same, and be chosen by rounding.
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        model.train()(torch.rand(4, 3, HEIGHT, WIDTH, generator=generator))
    return model.eval()


@pytest.fixture(scope="module", params=MODELS)
def pair(request):
    """Name, theirs, ours, images in 0..255, the truth."""
    make, config = MODELS[request.param]
    torch.manual_seed(0)
    theirs = shaken(make(num_labels=CLASSES, num_queries=QUERIES, num_denoising=DENOISING))
    source = {"root": "nowhere"}
    described = {"data": {"train": source, "val": source}, "model": config}
    ours = build_detector(check_config(described, "live").model, CLASSES)
    report = import_state(ours, dict(theirs.state_dict()), config["name"], "transformers")
    assert report.complete, report.describe()
    images = torch.rand(2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1)) * 255
    mask = torch.ones(LABELS.shape, dtype=torch.bool)
    return config["name"], theirs, ours.eval(), images, Targets.upright(BOXES, LABELS, mask, ~mask, False)


def their_labels(truth: Targets) -> list[dict]:
    shares = UPRIGHT.truth(truth, torch.tensor([float(WIDTH), HEIGHT]))
    return [{"class_labels": labels, "boxes": boxes} for labels, boxes in zip(truth.labels, shares)]


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_detections_are_the_same(pair):
    _, theirs, ours, images, _ = pair
    with torch.no_grad():
        expected = theirs(images / 255)
        outputs = ours(images)
        found = ours.decode(outputs, torch.tensor([[WIDTH, HEIGHT]] * 2, dtype=torch.float32))
    assert close(outputs["cls_logits"][:, -1], expected.logits)
    assert close(outputs["boxes"][:, -1], expected.pred_boxes)
    process = transformers.RTDetrImageProcessor().post_process_object_detection
    wanted = process(expected, threshold=0.01, target_sizes=torch.tensor([[HEIGHT, WIDTH]] * 2))
    for mine, other in zip(found, wanted):
        boxes = other["boxes"].clamp(min=0).minimum(torch.tensor([WIDTH, HEIGHT] * 2))
        kept = (boxes[:, 2:] > boxes[:, :2]).all(1)
        same_detections(mine, boxes[kept], other["scores"][kept], other["labels"][kept])


@pytest.fixture
def trained(pair):
    """Both in training mode (batch norms apart) on the same noise: outputs of theirs and of ours."""
    _, theirs, ours, images, truth = pair
    for model in (theirs, ours):
        model.train()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    torch.manual_seed(3)
    expected = theirs(images / 255, labels=their_labels(truth))
    torch.manual_seed(3)
    outputs = ours(images, truth)
    yield expected, outputs
    theirs.eval()
    ours.eval()


def test_every_layer_and_the_noisy_queries_are_the_same(pair, trained):
    name, *_ = pair
    expected, outputs = trained
    noisy = expected.denoising_meta_values["dn_num_split"][0]
    assert outputs["dn_boxes"].shape[2] == noisy
    assert close(outputs["cls_logits"][:, 0], expected.enc_topk_logits)
    assert close(outputs["boxes"][:, 0], expected.enc_topk_bboxes)
    logits, boxes = expected.intermediate_logits, expected.intermediate_reference_points
    for mine, other in (("cls_logits", logits), ("boxes", boxes)):
        assert close(outputs[f"dn_{mine}"], other[:, :, :noisy]), mine
        assert close(outputs[mine][:, 1:], other[:, :, noisy:]), mine
    if name == "dfine":
        corners = expected.intermediate_predicted_corners
        assert close(outputs["side_logits"].flatten(-2), corners[:, :, noisy:])
        assert close(outputs["dn_side_logits"].flatten(-2), corners[:, :, :noisy])
        assert close(outputs["references"], expected.initial_reference_points[:, 0, noisy:])


def sets_of(outputs: dict, name: str, prefix: str = "") -> list[dict]:
    """Our outputs as their criterion wants each layer: what has distributions, and what has none."""
    layers = []
    logits, boxes = outputs[f"{prefix}cls_logits"], outputs[f"{prefix}boxes"]
    for n in range(logits.shape[1]):
        layer = {"logits": logits[:, n], "pred_boxes": boxes[:, n]}
        if name == "dfine":
            sides = outputs[f"{prefix}side_logits"].flatten(-2)
            own = n - (logits.shape[1] - sides.shape[1])
            if own >= 0:
                layer |= {
                    "pred_corners": sides[:, own], "ref_points": outputs[f"{prefix}references"],
                    "teacher_corners": sides[:, -1], "teacher_logits": logits[:, -1],
                }  # fmt: skip
        layers.append(layer)
    return layers


def test_losses_are_the_same(pair, trained):
    """Their criterion on our outputs, laid out as the papers' losses want them."""
    name, theirs, ours, _, truth = pair
    expected, outputs = trained
    from transformers.loss.loss_d_fine import DFineLoss
    from transformers.loss.loss_rt_detr import RTDetrLoss

    criterion = {"dfine": DFineLoss, "rtdetr": RTDetrLoss}[name](theirs.config)
    first, *others = reversed(sets_of(outputs, name))
    wanted = criterion(
        first
        | {
            "auxiliary_outputs": others,
            "dn_auxiliary_outputs": sets_of(outputs, name, "dn_"),
            "denoising_meta_values": expected.denoising_meta_values,
        },
        their_labels(truth),
    )
    losses = ours.loss(outputs, truth)
    names = {"vfl": "cls", "bbox": "l1", "giou": "giou", "fgl": "fgl", "ddf": "ddf"}
    sums: dict[str, float] = {}
    for key, value in wanted.items():
        kind = names[key.split("_")[1]]
        key = f"dn_{kind}" if "_dn_" in key else kind
        sums[key] = sums.get(key, 0.0) + value.item()
    assert sums.keys() == losses.keys()
    for key, value in sums.items():
        assert losses[key].item() == pytest.approx(value, rel=1e-4), key


SCRIPT = """
import sys, torch
from boxwright.config import check_config
from boxwright.models import build_detector
from boxwright.models.checkpoint import without_pretrained
from boxwright.models.weights import load_weights
source = {"root": "nowhere"}
model = {"name": "dfine", "size": "n", "weights": "hf://owner/repo", "class_map": {"1": "car"}}
config = check_config({"data": {"train": source, "val": source}, "model": model}, "test")
network = build_detector(without_pretrained(config).model, 2)
print(load_weights(network, config.model, ["car", "bird"]).describe())
torch.save(network.state_dict(), sys.argv[1])
"""


def test_weights_come_from_the_hub_with_their_classes(tmp_path):
    """Files as transformers writes them, behind addresses as the hub has them."""
    theirs = shaken(theirs_of.dfine_n(num_labels=3, num_queries=QUERIES))
    theirs.config.id2label = {0: "cat", 1: "1", 2: "Bird"}
    theirs.save_pretrained(tmp_path / "theirs")
    with serve(tmp_path) as (environment, files):
        for file in (tmp_path / "theirs").iterdir():
            files[file.name] = file.read_bytes()
        command = [sys.executable, "-c", SCRIPT, str(tmp_path / "ours.pt")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "classes carried over: car (from 1), bird (from Bird)" in done.stdout
    assert "classes left behind: cat" in done.stdout
    assert "start anew" not in done.stdout
    ours, state = torch.load(tmp_path / "ours.pt", weights_only=True), theirs.state_dict()
    rows = state["model.decoder.class_embed.1.weight"][[1, 2]]
    assert torch.equal(ours["decoder.cls.1.weight"], rows)
    assert torch.equal(
        ours["decoder.first_box.layers.0.bias"], state["model.decoder.pre_bbox_head.layers.0.bias"]
    )
