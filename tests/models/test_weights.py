"""Weights that training starts from: classes carried over in every detector, the zoo, files from a hub."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from boxwright.config import check_config
from boxwright.config.zoo import COCO, COCO_WITH_GAPS, ZOO
from boxwright.errors import CheckpointError, ConfigError
from boxwright.models import build_detector
from boxwright.models.checkpoint import save_detector, without_pretrained
from boxwright.models.class_rows import layout_of
from boxwright.models.fetching import fetch
from boxwright.models.importing import import_state
from boxwright.models.weights import load_weights
from tests.cli.test_cli import run
from tests.hub import serve
from tests.models.test_detectors import CONFIGS, LARGE

OLD, NEW = ["cell", "Car", "tree"], ["tree", "dog", "car", "vehicle"]


def experiment(model: dict):
    source = {"root": "nowhere"}
    return check_config({"data": {"train": source, "val": source}, "model": model}, "test")


def saved(name: str, folder: Path) -> Path:
    """Random weights of a detector of the old classes, every norm's statistics included."""
    torch.manual_seed(0)
    config = experiment((CONFIGS | LARGE)[name])
    model = build_detector(config.model, len(OLD))
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.01 * torch.rand_like(tensor))
    save_detector(model, config, OLD, folder / "old.safetensors")
    return folder / "old.safetensors"


@pytest.mark.parametrize("name", [*CONFIGS, *LARGE])
def test_the_tensors_that_follow_the_classes_are_those_that_are_known_to(name):
    config = experiment((CONFIGS | LARGE)[name]).model
    two, three = (build_detector(config, n).state_dict() for n in (2, 3))
    follow = {key for key in two if two[key].shape != three[key].shape}
    known = {key for key in two if layout_of(config.name, key)}
    agnostic = {key for key in known - follow if ".box." in key}  # one box for all classes
    assert follow == known - agnostic


@pytest.mark.parametrize("name", [n for n in CONFIGS if "rcnn" not in n])
def test_classes_of_the_same_name_keep_what_they_knew(name, tmp_path):
    old = load_old(path := saved(name, tmp_path))
    torch.manual_seed(1)
    config = experiment((CONFIGS | LARGE)[name] | {"weights": str(path), "class_map": {"cell": "vehicle"}})
    model = build_detector(without_pretrained(config).model, len(NEW))
    start = load_weights(model, config.model, NEW)
    assert start.classes.source == {"tree": "tree", "dog": None, "car": "Car", "vehicle": "cell"}
    assert start.fresh == []
    # Whatever has rows of classes has some that start anew: those of the dog.
    assert set(start.mixed) == {key for key in model.state_dict() if layout_of(config.model.name, key)}
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad():
        before, after = (m.eval()(images)["cls_logits"] for m in (old, model))
    if name in (
        "rtdetr",
        "dfine",
        "dfine_obb",
        "dfine-mal",
    ):  # which places become queries depends on every class
        return
    assert torch.allclose(after[..., [0, 2, 3]], before[..., [2, 1, 0]], atol=1e-5)
    if name == "detr":
        assert torch.allclose(after[..., -1], before[..., -1], atol=1e-5)


def load_old(path: Path):
    from boxwright.models.checkpoint import load_detector

    return load_detector(path).model


@pytest.mark.parametrize("name", ["faster_rcnn", "dfine", "yolov3"])
def test_rows_are_those_of_the_class(name, tmp_path):
    old = load_old(path := saved(name, tmp_path)).state_dict()
    config = experiment(CONFIGS[name] | {"weights": str(path)})
    model = build_detector(config.model, len(NEW))
    load_weights(model, config.model, NEW)
    new = model.state_dict()
    if name == "faster_rcnn":
        assert torch.equal(new["roi_heads.0.cls.weight"][[0, 2, 4]], old["roi_heads.0.cls.weight"][[2, 1, 3]])
        boxes = [new["roi_heads.0.box.bias"].view(4, 4), old["roi_heads.0.box.bias"].view(3, 4)]
        assert torch.equal(boxes[0][[0, 2]], boxes[1][[2, 1]])
    elif name == "dfine":
        for key in ("decoder.cls.1.weight", "select.cls.bias"):
            assert torch.equal(new[key][[0, 2]], old[key][[2, 1]])
        assert torch.equal(new["noisy.embed.weight"][[0, 2, 4]], old["noisy.embed.weight"][[2, 1, 3]])
    else:
        rows = [s["head.predict.0.bias"].view(3, -1) for s in (new, old)]
        assert torch.equal(rows[0][:, [0, 1, 2, 3, 4, 5, 7]], rows[1][:, [0, 1, 2, 3, 4, 7, 6]])


def test_weights_of_another_model_or_a_wrong_class_are_refused(tmp_path):
    path = saved("compact", tmp_path)
    other = experiment({"name": "compact", "width": 1.0, "weights": str(path)}).model
    with pytest.raises(CheckpointError, match="not of this model"):
        load_weights(build_detector(other, 2), other, ["a", "b"])
    other = experiment(CONFIGS["fcos"] | {"weights": str(path)}).model
    with pytest.raises(CheckpointError, match=r"weights of a compact, and model.name is fcos"):
        load_weights(build_detector(other, 2), other, ["a", "b"])
    mapped = experiment(CONFIGS["compact"] | {"weights": str(path), "class_map": {"cel": "a"}}).model
    with pytest.raises(ConfigError, match=r"'cel' isn't among the classes that the weights know.*'cell'"):
        load_weights(build_detector(mapped, 2), mapped, ["a", "b"])


@pytest.mark.parametrize("name", [n for n, entry in ZOO.items() if entry.toolbox == "torchvision"])
def test_every_tensor_of_torchvisions_checkpoints_has_its_place(name):
    """Random weights of torchvision's own model, as many classes as its published ones."""
    from torchvision.models import detection

    make = {
        "faster_rcnn": detection.fasterrcnn_resnet50_fpn, "retinanet": detection.retinanet_resnet50_fpn,
        "fcos": detection.fcos_resnet50_fpn, "ssd": detection.ssd300_vgg16,
    }[ZOO[name].model["name"]]  # fmt: skip
    theirs = make(weights=None, weights_backbone=None, num_classes=91)
    config = without_pretrained(experiment(ZOO[name].model)).model
    ours = build_detector(config, len(ZOO[name].classes))
    report = import_state(ours, dict(theirs.state_dict()), config.name, "torchvision")
    assert report.complete, report.describe()


@pytest.mark.parametrize(
    ("model", "train", "told"),
    [
        ({"class_map": {"a": "b"}}, {}, "class_map is for weights"),
        ({"weights_from": "mmdet"}, {}, "weights_from is for weights"),
        ({}, {"new_first": 5}, "everything starts anew"),
    ],
)
def test_what_is_for_weights_is_refused_without_any(model, train, told):
    source = {"root": "nowhere"}
    described = {
        "data": {"train": source, "val": source},
        "model": {"name": "compact"} | model,
        "train": train,
    }
    with pytest.raises(ConfigError, match=told):
        check_config(described, "test")


def test_a_wrong_name_is_told_at_once(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "data: {train: {root: x}, val: {root: y}}\nmodel: {name: dfine, weights: dfine_n_coc}\n"
    )
    assert "Did you mean 'dfine_n_coco'?" in run("train", tmp_path / "a.yaml", check=2).stderr


def test_the_zoo_lists_torchvisions_classes_and_sizes_of_the_models_it_names():
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

    theirs = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"][1:]
    assert list(COCO_WITH_GAPS) == theirs
    assert len(set(COCO)) == 80
    output = run("zoo").stdout
    assert all(name in output for name in ZOO)
    assert max(len(line) for line in output.splitlines()) <= 80


@pytest.mark.parametrize("name", ["dfine_n_coco", "dfine_m_coco", "rtdetr_r18_coco", "retinanet_r50_coco"])
def test_a_model_of_the_zoo_has_as_many_parameters_as_published(name):
    config = without_pretrained(experiment(ZOO[name].model)).model
    model = build_detector(config, len(ZOO[name].classes))
    count = sum(p.numel() for p in model.parameters()) / 1e6
    # Published to the million; torchvision's classifiers have a row for the background too.
    assert count == pytest.approx(ZOO[name].parameters, abs=0.6, rel=0.03)


@pytest.fixture
def hub(tmp_path):
    with serve(tmp_path) as served:
        yield served


FETCH = """
import sys
from boxwright.errors import BoxwrightError
from boxwright.models.fetching import fetch
for place in sys.argv[1:]:
    try:
        print(fetch(place))
    except BoxwrightError as error:
        print("refused:", error)
"""


def fetch_from_hub(environment: dict[str, str], *places: str) -> list[str]:
    """What becomes of each place in a process of its own: the hub's address is read when it is imported."""
    command = [sys.executable, "-c", FETCH, *places]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_file_comes_from_the_hub_once_and_is_checked(hub):
    environment, files = hub
    files["model.safetensors"] = bytes(range(256)) * 100
    (found,) = fetch_from_hub(environment, "hf://owner/repo")
    path = Path(found)
    assert path.read_bytes() == files["model.safetensors"]
    path.resolve().write_bytes(b"x" * 25_600)
    (told,) = fetch_from_hub(environment | {"HF_HUB_OFFLINE": "1"}, "hf://owner/repo")
    assert f"{path} is damaged" in told


def test_files_of_addresses_that_end_alike_are_kept_apart(hub, monkeypatch):
    environment, files = hub
    monkeypatch.setenv("TORCH_HOME", environment["TORCH_HOME"])
    at = environment["HF_ENDPOINT"]
    files |= {"a/model.pth": b"first", "b/model.pth": b"second"}
    first, second = (fetch(f"{at}/{folder}/model.pth") for folder in "ab")
    assert (first.read_bytes(), second.read_bytes()) == (b"first", b"second")
    files.clear()
    assert fetch(f"{at}/a/model.pth") == first
    with pytest.raises(CheckpointError, match=rf"404.*Fetch {at}/c/model\.pth by other means"):
        fetch(f"{at}/c/model.pth")


def test_a_file_of_an_address_is_checked_by_the_digest_in_its_name(hub, monkeypatch):
    environment, files = hub
    monkeypatch.setenv("TORCH_HOME", environment["TORCH_HOME"])
    name = f"net-{hashlib.sha256(b'weights').hexdigest()[:8]}.pth"
    place = f"{environment['HF_ENDPOINT']}/{name}"
    files[name] = b"others"
    with pytest.raises(CheckpointError, match="invalid hash value"):
        fetch(place)
    files[name] = b"weights"
    fetch(place).write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="is damaged"):
        fetch(place)


def test_what_the_hub_has_not_is_named(hub):
    environment, _ = hub
    told = fetch_from_hub(environment, "hf://owner/repo", "hf://owner")
    assert "has no file model.safetensors" in told[0]
    assert "expected hf://owner/repo" in told[1]
    (told,) = fetch_from_hub(environment | {"HF_HUB_OFFLINE": "1"}, "hf://owner/other/weights.safetensors")
    assert "owner/other/resolve/main/weights.safetensors" in told
    assert "name the saved file as model.weights" in told


def test_weights_of_the_hub_are_of_the_model_that_their_config_names_or_refused(hub):
    from safetensors.torch import save

    environment, files = hub
    config = experiment({"name": "dfine", "size": "n", "pretrained": False}).model
    torch.manual_seed(0)
    model = build_detector(config, 2)
    files["model.safetensors"] = save({n: t.contiguous() for n, t in model.state_dict().items()})
    files["config.json"] = json.dumps({"model_type": "d_fine", "id2label": {"1": "dog", "0": "cat"}}).encode()
    script = """
import sys, torch
from boxwright.config import check_config
from boxwright.errors import BoxwrightError
from boxwright.models import build_detector
from boxwright.models.weights import load_weights
source = {"root": "nowhere"}
for name in ("rtdetr", "dfine"):
    model = {"name": name, "pretrained": False, "weights": "hf://owner/repo"}
    config = check_config({"data": {"train": source, "val": source}, "model": model}, "test").model
    try:
        print(load_weights(build_detector(config, 2), config, ["dog", "bird"]).describe())
    except BoxwrightError as error:
        print("refused:", error)
    print("-" * 9)
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    told = done.stdout.split("-" * 9)
    assert "weights of a dfine, and model.name is rtdetr" in told[0]
    # Ours have none of their names, so that nothing finds its place, and every tensor is accounted for.
    assert "refused" in told[1]
    assert "unused" in told[1]
