"""A student learns what a teacher finds at every place, in mirror images too."""

import numpy as np
import polars as pl
import pytest
import torch

import boxwright
from boxwright.config import check_config
from boxwright.config.teaching import DistillConfig
from boxwright.models import build_detector
from boxwright.models.checkpoint import load_detector, save_detector
from boxwright.models.detector import full_precision
from boxwright.training.distilling import Distiller
from tests.scenes import square_experiment

CLASSES = ["a", "b"]
SMALL = {"name": "resnet18", "pretrained": False}
RETINANET = {"name": "retinanet", "backbone": SMALL}
DENSE = [
    {"name": "compact", "width": 0.25},
    {"name": "compact_obb", "width": 0.25},
    {"name": "fcos_obb", "backbone": SMALL},
    {"name": "gfl", "backbone": SMALL},
    {"name": "fcos", "backbone": SMALL},
    RETINANET,
]
MIRRORS = ("plain", "horizontal", "vertical", "both")


def saved(folder, model=None, seed=0, classes=CLASSES):
    """A checkpoint of random weights whose scores differ from place to place."""
    content = square_experiment(folder).model_dump(mode="json") | {"model": model or {"name": "compact"}}
    config = check_config(content, "test")
    torch.manual_seed(seed)
    detector = build_detector(config.model, len(classes)).eval()
    with torch.no_grad():
        for module in detector.modules():  # norms that fit the pictures, so that places differ
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        for name, parameter in detector.named_parameters():
            if name.endswith(("cls.weight", "box.weight")):
                parameter.normal_(std=0.3 if name.endswith("cls.weight") else 0.05)
        detector.train()(pictures())
    detector.eval()
    path = folder / f"{config.model.name}-{seed}.safetensors"
    save_detector(detector, config, classes, path, {})
    return path


def pictures(count=2, height=64, width=96):
    values = np.random.default_rng(0).integers(0, 256, (count, 3, height, width), dtype=np.uint8)
    return torch.from_numpy(values)


def distiller(path, student, **settings):
    config = DistillConfig(checkpoint=str(path), **settings)
    return Distiller(config, student, CLASSES, torch.device("cpu"))


def see(model, images):
    return full_precision(model(images))


@pytest.mark.parametrize("model", DENSE, ids=lambda model: model["name"])
def test_nothing_is_learnt_from_oneself(tmp_path, model):
    path = saved(tmp_path, model)
    student = load_detector(path).model
    images = pictures()
    outputs = see(student, images)
    losses = distiller(path, student).losses(outputs, images, torch.no_grad)
    assert losses["taught_cls"] < 1e-8
    assert losses["taught_box"].abs() < 5e-3  # of an overlap with itself, in float32
    other = see(load_detector(saved(tmp_path, model, seed=1)).model, images)
    losses = distiller(path, student, weight=2.0).losses(other, images, torch.no_grad)
    once = distiller(path, student).losses(other, images, torch.no_grad)
    assert losses["taught_cls"] > 1e-5
    assert losses["taught_box"] > 1e-2
    assert losses["taught_cls"].item() == pytest.approx(2 * once["taught_cls"].item(), rel=1e-5)


def test_losses_are_those_of_the_formulas(tmp_path):
    path = saved(tmp_path)
    student, images = load_detector(saved(tmp_path, seed=1)).model, pictures()
    outputs = see(student, images)
    teacher = load_detector(path).model
    with torch.no_grad():
        wanted = see(teacher, images)
        p, q = wanted["cls_logits"].sigmoid().double(), outputs["cls_logits"].sigmoid().double()
        cross = -(p * q.log() + (1 - p) * (1 - q).log()) * (p - q) ** 2
        best = p.max(-1).values
        a, b = student.boxes(outputs).double(), teacher.boxes(wanted).double()
        inter = (torch.minimum(a, b)[..., 2:] - torch.maximum(a, b)[..., :2]).clamp(min=0).prod(-1)
        hull = (torch.maximum(a, b)[..., 2:] - torch.minimum(a, b)[..., :2]).prod(-1)
        union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - inter
        giou = inter / union - (hull - union) / hull
    losses = distiller(path, student).losses(outputs, images, torch.no_grad)
    assert losses["taught_cls"].item() == pytest.approx((cross.sum() / best.sum()).item(), rel=1e-4)
    expected = ((1 - giou) * best).sum() / best.sum()
    assert losses["taught_box"].item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("name", ["compact", "compact_obb"])
@pytest.mark.parametrize("view", MIRRORS[1:])
def test_a_mirror_image_has_its_places_mirrored(tmp_path, name, view):
    student = load_detector(saved(tmp_path, {"name": name})).model
    own = distiller(saved(tmp_path, {"name": name}), student, views=MIRRORS)
    images = pictures(1)
    points = see(student, images)["points"]
    order = own._order(64, 96, view, len(points), images.device)
    moved = points[order].clone()
    if view != "vertical":
        moved[:, 0] = 96 - moved[:, 0]
    if view != "horizontal":
        moved[:, 1] = 64 - moved[:, 1]
    assert torch.equal(moved, points)
    # What is found in the mirror image of a mirror image is what is found in the image.
    axes = {"horizontal": [3], "vertical": [2], "both": [2, 3]}[view]
    scores, boxes = own._look(images.flip(axes), view, torch.no_grad)
    plain_scores, plain_boxes = own._look(images, "plain", torch.no_grad)
    assert torch.allclose(scores[:, order], plain_scores, atol=1e-5)
    centers = boxes[..., :2] if name.endswith("obb") else (boxes[..., :2] + boxes[..., 2:]) / 2
    wanted = (
        plain_boxes[..., :2] if name.endswith("obb") else (plain_boxes[..., :2] + plain_boxes[..., 2:]) / 2
    )
    mirrored = wanted[:, order].clone()
    if view != "vertical":
        mirrored[..., 0] = 96 - mirrored[..., 0]
    if view != "horizontal":
        mirrored[..., 1] = 64 - mirrored[..., 1]
    assert torch.allclose(centers, mirrored, atol=1e-2)


def test_what_does_not_fit_is_told(tmp_path):
    path = saved(tmp_path)
    student = load_detector(path).model
    with pytest.raises(boxwright.errors.ConfigError, match=r"are a, b; expected b, a, in this order"):
        Distiller(DistillConfig(checkpoint=str(path)), student, ["b", "a"], torch.device("cpu"))
    other = saved(tmp_path, RETINANET)
    with pytest.raises(
        boxwright.errors.ConfigError, match=r"places of 2 classes, 4 numbers a box on 128 x 64"
    ):
        distiller(other, student)
    with pytest.raises(boxwright.errors.ConfigError, match=r"at stride 64 a mirror image has other places"):
        distiller(other, load_detector(other).model, views=("plain", "horizontal"))
    queries = saved(tmp_path, {"name": "dfine", "size": "n"})
    with pytest.raises(boxwright.errors.ConfigError, match=r"DFINE's boxes have no places"):
        distiller(queries, student)
    with pytest.raises(ValueError, match=r"expected one or several that differ"):
        DistillConfig(checkpoint="x", views=("plain", "plain"))


def test_a_student_comes_nearer_to_its_teacher(tmp_path):
    student, images = load_detector(saved(tmp_path, seed=1)).model, pictures()
    own = distiller(saved(tmp_path), student, views=("plain", "both"))
    optimizer, seen = torch.optim.AdamW(student.parameters(), lr=1e-3), []
    for _ in range(20):
        losses = own.losses(see(student, images), images, torch.no_grad)
        seen.append([loss.item() for loss in losses.values()])
        sum(losses.values()).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert seen[-1][0] < 0.7 * seen[0][0]
    assert seen[-1][1] < 0.7 * seen[0][1]


def test_a_run_learns_from_both(tmp_path):
    content = square_experiment(tmp_path, epochs=1).model_dump(mode="json")
    square = content["model"]
    path = saved(tmp_path, square, classes=["bright", "dark"])
    content["train"]["distill"] = {"checkpoint": str(path), "views": ["plain", "both"]}
    boxwright.train(check_config(content, "test"), name="run", runs=tmp_path)
    metrics = pl.read_parquet(tmp_path / "run" / "metrics.parquet")
    assert metrics["loss/taught_box"].drop_nulls().min() > 0
    assert metrics["loss/taught_cls"].drop_nulls().min() > 0


def test_a_missing_teacher_is_told_before_training(tmp_path):
    content = square_experiment(tmp_path).model_dump(mode="json")
    content["train"]["distill"] = {"checkpoint": str(tmp_path / "nowhere")}
    with pytest.raises(boxwright.errors.ConfigError, match=r"nowhere' is no run and no checkpoint"):
        boxwright.train(check_config(content, "test"), name="run", runs=tmp_path)
    assert not (tmp_path / "run").exists()
