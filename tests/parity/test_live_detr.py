"""DETR beside transformers' on the same weights: layers, losses, gradients, detections; names of each age."""

import pytest
import torch
from torch import nn

from boxwright.config import check_config
from boxwright.data.targets import Targets
from boxwright.models import build_detector
from boxwright.models.importing import import_state
from tests.parity.test_live import close, same_detections

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: uv sync --group parity"
)
from tests.parity import theirs_of  # noqa: E402  which needs it
from tests.parity.test_live_sets import (  # noqa: E402
    BOXES,
    CLASSES,
    HEIGHT,
    LABELS,
    WIDTH,
    shaken,
    their_labels,
)

QUERIES = 30


def ours_like(state: dict, toolbox: str) -> nn.Module:
    source = {"root": "nowhere"}
    model = {"name": "detr", "backbone": {"name": "resnet50", "pretrained": False}, "queries": QUERIES}
    model |= {"selection": {"max_detections": QUERIES, "score_threshold": 0.0}}
    described = {"data": {"train": source, "val": source}, "model": model}
    ours = build_detector(check_config(described, "live").model, CLASSES)
    report = import_state(ours, state, "detr", toolbox)
    assert report.complete, report.describe()
    return ours.eval()


@pytest.fixture(scope="module")
def pair():
    """Theirs, ours, images in 0..255 and as theirs wants them, the truth."""
    torch.manual_seed(0)
    theirs = shaken(theirs_of.detr_r50(num_labels=CLASSES, num_queries=QUERIES))
    ours = ours_like(dict(theirs.state_dict()), "transformers")
    images = torch.rand(2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1)) * 255
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    normalized = (images - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    mask = torch.ones(LABELS.shape, dtype=torch.bool)
    return theirs, ours, images, normalized, Targets.upright(BOXES, LABELS, mask, ~mask, False)


def test_detections_are_the_same(pair):
    theirs, ours, images, normalized, _ = pair
    with torch.no_grad():
        expected = theirs(normalized)
        outputs = ours(images)
        found = ours.decode(outputs, torch.tensor([[WIDTH, HEIGHT]] * 2, dtype=torch.float32))
    assert close(outputs["cls_logits"][:, -1], expected.logits)
    assert close(outputs["boxes"][:, -1], expected.pred_boxes)
    process = transformers.DetrImageProcessor().post_process_object_detection
    wanted = process(expected, threshold=0.0, target_sizes=torch.tensor([[HEIGHT, WIDTH]] * 2))
    for mine, other in zip(found, wanted):
        boxes = other["boxes"].clamp(min=0).minimum(torch.tensor([WIDTH, HEIGHT] * 2))
        kept = (boxes[:, 2:] > boxes[:, :2]).all(1)
        same_detections(mine, boxes[kept], other["scores"][kept], other["labels"][kept])


def test_losses_of_every_layer_and_gradients_are_the_same(pair):
    """With `auxiliary_loss` transformers gives each layer the norm of the one before, which the original
    doesn't: so each layer's loss is taken of what it gives without.
    """
    theirs, ours, images, normalized, truth = pair
    hidden = []
    handles = [
        layer.register_forward_hook(lambda m, i, o: hidden.append(o)) for layer in theirs.model.decoder.layers
    ]
    theirs(normalized)
    for handle in handles:
        handle.remove()
    outputs = ours(images, truth)
    sums, whole = {"cls": 0.0, "l1": 0.0, "giou": 0.0}, 0.0
    names = {"loss_ce": ("cls", 1.0), "loss_bbox": ("l1", 5.0), "loss_giou": ("giou", 2.0)}
    for n, layer in enumerate(hidden):
        shown = theirs.model.decoder.layernorm(layer)
        logits, boxes = theirs.class_labels_classifier(shown), theirs.bbox_predictor(shown).sigmoid()
        assert close(outputs["cls_logits"][:, n], logits)
        assert close(outputs["boxes"][:, n], boxes)
        total, parts, _ = theirs.loss_function(
            logits, their_labels(truth), normalized.device, boxes, theirs.config, None, None
        )
        whole = whole + total
        for key, (kind, weight) in names.items():
            sums[kind] += weight * parts[key].item()
    losses = ours.loss(outputs, truth)
    assert sums.keys() == losses.keys()
    for key, value in sums.items():
        assert losses[key].item() == pytest.approx(value, rel=1e-4), key
    for model, total in ((theirs, whole), (ours, sum(losses.values()))):
        model.zero_grad()
        total.backward()
    for mine, other in (
        ("project", "model.input_projection"),
        ("decoder.0.mlp.layers.0", "model.decoder.layers.0.mlp.fc1"),
        ("cls", "class_labels_classifier"),
    ):
        norms = [float(m.get_submodule(n).weight.grad.norm()) for m, n in ((ours, mine), (theirs, other))]
        assert norms[0] == pytest.approx(norms[1], rel=1e-3), mine


# What the published files call what transformers 5 calls otherwise.
BEFORE = (
    ("model.backbone.model.", "model.backbone.conv_encoder.model."),
    (".o_proj.", ".out_proj."),
    (".mlp.fc", ".fc"),
)
ORIGINAL = (
    ("model.backbone.model.", "backbone.0.body."),
    ("model.input_projection.", "input_proj."),
    ("model.query_position_embeddings.", "query_embed."),
    ("class_labels_classifier.", "class_embed."),
    ("bbox_predictor.", "bbox_embed."),
    ("model.decoder.layernorm.", "transformer.decoder.norm."),
    ("model.encoder.", "transformer.encoder."),
    ("model.decoder.", "transformer.decoder."),
    (".encoder_attn.", ".multihead_attn."),
    (".mlp.fc1.", ".linear1."),
    (".mlp.fc2.", ".linear2."),
    (".self_attn_layer_norm.", ".norm1."),
    (".encoder_attn_layer_norm.", ".norm2."),
    (".o_proj.", ".out_proj."),
)


def spelled(state: dict, pairs: tuple) -> dict:
    result = {}
    for name, tensor in state.items():
        for new, old in pairs:
            name = name.replace(new, old)
        result[name] = tensor
    return result


def test_published_files_are_taken_under_their_older_names(pair):
    theirs, ours, images, *_ = pair
    before = spelled(dict(theirs.state_dict()), BEFORE)
    original = spelled(dict(theirs.state_dict()), ORIGINAL)
    for name in list(original):  # queries, keys and values in one tensor
        if ".q_proj." in name:
            parts = [original.pop(name.replace(".q_proj.", f".{part}_proj.")) for part in "qkv"]
            original[name.replace(".q_proj.", ".in_proj_")] = torch.cat(parts)
    for n in range(6):
        for part, last in (("encoder", 2), ("decoder", 3)):
            for kind in ("weight", "bias"):
                layer = f"transformer.{part}.layers.{n}"
                original[f"{layer}.norm{last}.{kind}"] = original.pop(f"{layer}.final_layer_norm.{kind}")
    with torch.no_grad():
        wanted = ours(images)["boxes"]
        for state, toolbox in ((before, "transformers"), (original, "detr")):
            assert torch.equal(ours_like(state, toolbox)(images)["boxes"], wanted)
