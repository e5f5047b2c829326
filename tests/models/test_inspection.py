"""A look inside: parts and costs by hand, receptive fields that are known, faults that are planted."""

import json
import re

import numpy as np
import pytest
import torch
from torch import nn

from boxwright.config import dump_config
from boxwright.data.dataset import DetectionDataset
from boxwright.models.attention import DeformableAttention
from boxwright.models.backbones.vgg import VGG16
from boxwright.models.detector import collate_for
from boxwright.models.feature_maps import attention_of, feature_maps, filters_of
from boxwright.models.inspection import fields_of, flows_of, parts_of
from boxwright.reporting.inside import draw_filters, draw_map
from tests.cli.test_cli import run
from tests.models.test_detectors import make
from tests.scenes import square_experiment, square_tables


def test_parts_add_up_and_cost_what_they_multiply():
    model = make("detr").eval()
    parts = {p.name: p for p in parts_of(model, (128, 128), 1)}
    own = [p for name, p in parts.items() if name != "all"]
    assert sum(p.parameters for p in own) == parts["all"].parameters
    assert parts["all"].parameters == sum(p.numel() for p in model.parameters())
    assert sum(p.gflops for p in own) == pytest.approx(parts["all"].gflops)
    # 512 to 32 channels at 4 x 4 places, a multiplication and an addition each.
    assert parts["project"].gflops == pytest.approx(2 * 512 * 32 * 16 / 1e9)
    assert parts["project"].shape == "32 x 4 x 4"
    model.project.weight.requires_grad_(False)
    assert {p.name: p for p in parts_of(model, (128, 128), 1)}["project"].trained == 32


class Body(nn.Module):
    """A backbone alone, in the place of a detector."""

    stride, least_side = 32, 0

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone

    def forward(self, images):
        return self.backbone(images)


def test_receptive_fields_are_those_that_are_known():
    # Of conv4_3 of VGG16 the field is 92 pixels; of ResNet-18's last stage 435 (Araujo et al., Computing
    # Receptive Fields of Convolutional Neural Networks, Distill 2019).
    vgg = fields_of(Body(VGG16(0.125)), (256, 256))[0]
    assert vgg.reach == (92, 92)
    assert vgg.stride == 8
    resnet = fields_of(make("detr"), (512, 512))[0]
    assert resnet.reach == (435, 435)
    assert resnet.effective < 435


def step_of(model, folder):
    dataset = DetectionDataset(square_tables(folder, 2), (64, 64))
    return collate_for(model)([dataset[0], dataset[1]])


def test_numbers_are_those_of_the_activations(tmp_path):
    model = make("compact")
    batch = step_of(model, tmp_path)
    flows = {f.name: f for f in flows_of(model, batch)}
    seen = model.normalize(batch.images)
    first = flows["normalize"]
    assert first.mean == pytest.approx(float(seen.mean()), rel=1e-4)
    assert first.deviation == pytest.approx(float(seen.std(correction=0)), rel=1e-4)
    assert first.greatest == pytest.approx(float(seen.abs().max()), rel=1e-5)
    assert model.training
    assert all(p.grad is None for p in model.parameters())  # a copy was looked at


def test_gradients_are_those_of_the_loss(tmp_path):
    model = make("fcos").train()
    batch = step_of(model, tmp_path)
    flows = {f.name: f for f in flows_of(model, batch)}
    caught = []

    def catch(module, inputs, output):
        output.register_hook(caught.append)

    model.head.cls.register_forward_hook(catch)
    sum(model.loss(model(batch.images, batch.targets), batch.targets).values()).backward()
    every = torch.cat([g.flatten() for g in caught])
    assert flows["head.cls"].gradient_greatest == pytest.approx(float(every.abs().max()), rel=1e-3)
    assert flows["head.cls"].gradient_deviation == pytest.approx(float(every.std(correction=0)), rel=1e-3)


def test_planted_faults_are_marked(tmp_path):
    model = make("fcos")
    batch = step_of(model, tmp_path)
    model.spare = nn.Linear(3, 3)
    nn.init.zeros_(model.head.cls_tower[0][1].weight)
    with torch.no_grad():
        model.head.box_tower[0][0].weight.mul_(1e6)
    marks = {f.name: f.marks for f in flows_of(model, batch) if f.marks}
    assert marks["spare"] == ("unused",)
    assert "dead" in marks["head.cls_tower.0.1"]
    assert "exploding" in marks["head.box_tower.0.0"]
    assert "head.cls" not in marks


@pytest.mark.parametrize("name", ["detr", "rtdetr", "dfine"])
def test_queries_look_where_their_attention_says(name, tmp_path):
    model = make(name).eval()
    batch = step_of(model, tmp_path)
    found = attention_of(model, batch.images, count=3)
    assert len(found) == 3
    assert [f.score for f in found] == sorted((f.score for f in found), reverse=True)
    for query in found:
        assert query.weights.sum() == pytest.approx(1, abs=1e-4)
        assert query.places.shape == (len(query.weights), 2)
    assert attention_of(make("fcos").eval(), batch.images) == []


def test_samples_are_what_attention_reads():
    torch.manual_seed(0)
    attention = DeformableAttention(8, 2, (2,))
    nn.init.normal_(attention.offsets.weight)
    queries, boxes = torch.rand(1, 3, 8), torch.rand(1, 3, 4)
    # A map whose values are the places themselves: what is read is the mean place.
    steps = (torch.arange(64) + 0.5) / 64
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    level = torch.stack([x, y, x, y])[None].repeat(2, 1, 1, 1)
    places, weights = attention.sample(queries, boxes)
    inside = ((places > 0.02) & (places < 0.98)).all(-1).all(-1).all(-1)[0]
    read = attention(queries, boxes, [level]).view(1, 3, 2, 4)
    wanted = (places * weights[..., None]).sum(3)
    assert inside.any()
    assert torch.allclose(read[..., :2][0, inside], wanted[0, inside], atol=1e-4)


def test_maps_and_filters_are_drawn(tmp_path):
    model = make("retinanet").eval()
    batch = step_of(model, tmp_path)
    levels = feature_maps(model, batch.images[:1])
    assert [m.shape for m, _ in levels] == [(8, 8), (4, 4), (2, 2), (1, 1), (1, 1)]
    name, weights = filters_of(model)
    assert name == "backbone.body.conv1"
    assert draw_filters(weights).size[0] == 8 * 37  # 64 filters of 7 x 7 at five times their size
    picture = np.asarray(draw_map(np.array([[0.0, 2.0], [-2.0, 0.0]])))
    corners = picture[0, 0], picture[0, -1], picture[-1, 0]
    assert corners[0].tolist() == [255, 255, 255]
    assert corners[1][0] > corners[1][2]  # red
    assert corners[2][2] > corners[2][0]  # blue


def test_the_commands(tmp_path):
    config = square_experiment(tmp_path)
    path = tmp_path / "squares.yaml"
    path.write_text(dump_config(config))
    text = run("model", "summary", path, "--depth", 1, "--json", tmp_path / "s.json").stdout
    assert re.search(r"^all +\d", text, re.MULTILINE)
    assert len(json.loads((tmp_path / "s.json").read_text())["fields"]) == 3
    text = run("model", "activations", path, "--report", tmp_path / "inside.html").stdout
    assert "The weights are random" in text
    page = (tmp_path / "inside.html").read_text()
    assert page.count("data:image/jpeg;base64,") > 3
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert "filters of backbone" in run("model", "filters", path, "-o", tmp_path / "f.png").stdout
    wrong = run("model", "activations", path, "--image", "nothere.png", check=2).stderr
    assert "--image nothere.png: no such image" in wrong
