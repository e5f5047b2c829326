"""Checkpoints of other toolboxes: complete, partial, of other classes, damaged, hostile."""

import copy
import pickle

import pytest
import timm
import torch
from torch import nn

import boxwright
from boxwright.config import check_config, dump_config
from boxwright.errors import CheckpointError, ConfigError
from boxwright.models import build_detector
from boxwright.models.checkpoint import load_detector
from boxwright.models.importing import _take_rgb, import_state, read_state
from boxwright.models.weights import load_weights
from tests.cli.test_cli import run

SMALL = {"head_depth": 1, "neck": {"channels": 32}, "backbone": {"name": "resnet50", "pretrained": False}}


def experiment(style: str = "pytorch", classes: int = 3):
    source = {"root": "nowhere"}
    data = {"train": source, "val": source, "classes": [f"c{n}" for n in range(classes)]}
    model = {"name": "fcos", **SMALL, "backbone": SMALL["backbone"] | {"style": style}}
    return check_config({"data": data, "model": model}, "test")


def their_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Our tensors under MMDetection's names."""
    names = {
        "head.cls.": "bbox_head.conv_cls.",
        "head.box.": "bbox_head.conv_reg.",
        "head.quality.": "bbox_head.conv_centerness.",
        "head.cls_tower.0.0.": "bbox_head.cls_convs.0.conv.",
        "head.cls_tower.0.1.": "bbox_head.cls_convs.0.gn.",
        "head.box_tower.0.0.": "bbox_head.reg_convs.0.conv.",
        "head.box_tower.0.1.": "bbox_head.reg_convs.0.gn.",
        "head.scales.": "bbox_head.scales.",
        "backbone.body.": "backbone.",
        "neck.extras.0.0.": "neck.fpn_convs.3.conv.",
        "neck.extras.1.0.": "neck.fpn_convs.4.conv.",
    }
    for n in range(3):
        names |= {f"neck.laterals.{n}.0.": f"neck.lateral_convs.{n}.conv."}
        names |= {f"neck.outputs.{n}.0.": f"neck.fpn_convs.{n}.conv."}
    result = {}
    for name, tensor in model.state_dict().items():
        prefix = next(p for p in names if name.startswith(p))
        result[names[prefix] + name.removeprefix(prefix)] = tensor
    return result


@pytest.fixture(scope="module")
def original():
    torch.manual_seed(0)
    return build_detector(experiment().model, 3).eval()


def test_a_whole_checkpoint_becomes_the_same_detector(original, tmp_path):
    torch.save({"state_dict": their_state(original), "meta": {"epoch": 12}}, tmp_path / "a.pth")
    dump = tmp_path / "c.yaml"
    dump.write_text(dump_config(experiment()))
    text = run(
        "import-checkpoint", tmp_path / "a.pth", "--config", dump, "-o", tmp_path / "o.safetensors"
    ).stdout
    assert "found their place" in text
    loaded = load_detector(tmp_path / "o.safetensors")
    image = torch.rand(1, 3, 64, 64) * 255
    with torch.no_grad():
        for name, value in original(image).items():
            assert torch.equal(loaded.model(image)[name], value), name
    assert loaded.categories == ["c0", "c1", "c2"]


def test_a_caffe_stem_sees_the_same_image(tmp_path):
    torch.manual_seed(1)
    config = experiment("caffe")
    model = build_detector(config.model, 3).eval()
    torch.save(their_state(model), tmp_path / "a.pth")
    boxwright.import_checkpoint(tmp_path / "a.pth", config, tmp_path / "o.safetensors")
    ours = load_detector(tmp_path / "o.safetensors").model
    image = torch.rand(1, 3, 64, 64) * 255
    mean = torch.tensor([103.53, 116.28, 123.675]).view(1, 3, 1, 1)
    with torch.no_grad():
        theirs = model.backbone(image.flip(1) - mean)
        for a, b in zip(ours.backbone(ours.normalize(image)), theirs):
            assert torch.allclose(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()))


def test_a_yolox_made_for_bgr_sees_the_same_image_in_rgb():
    source = {"root": "nowhere"}
    model = {"name": "yolox", "width": 0.125, "depth": 0.1}
    config = check_config({"data": {"train": source, "val": source}, "model": model}, "test")
    torch.manual_seed(2)
    theirs = build_detector(config.model, 1).eval()
    ours = copy.deepcopy(theirs)
    _take_rgb(ours)
    image = torch.rand(1, 3, 64, 64) * 255
    with torch.no_grad():
        for a, b in zip(ours.backbone(image), theirs.backbone(image.flip(1))):
            assert torch.allclose(a, b, atol=1e-4 * float(b.abs().max()))


def test_other_classes_are_refused_unless_partial_and_then_listed(original, tmp_path):
    torch.save(their_state(original), tmp_path / "a.pth")
    other = experiment(classes=5)
    with pytest.raises(
        CheckpointError, match=r"2 of another shape: head\.cls\.weight \(\[5, 32, 3, 3\] here"
    ):
        boxwright.import_checkpoint(tmp_path / "a.pth", other, tmp_path / "o.safetensors")
    assert not (tmp_path / "o.safetensors").exists()
    report = boxwright.import_checkpoint(tmp_path / "a.pth", other, tmp_path / "o.safetensors", partial=True)
    assert [name for name, _, _ in report.mismatched] == ["head.cls.weight", "head.cls.bias"]
    assert report.missing == report.unused == []


def test_every_tensor_is_accounted_for(original):
    state = their_state(original)
    state["bbox_head.surprise.weight"] = state.pop("bbox_head.conv_reg.weight")
    model = build_detector(experiment().model, 3)
    report = import_state(model, state, "fcos", "mmdet")
    assert (report.missing, report.unused) == (["head.box.weight"], ["bbox_head.surprise.weight"])
    assert "1 missing: head.box.weight; 1 unused: bbox_head.surprise.weight" in report.describe()
    with pytest.raises(CheckpointError, match="no rules for weights from 'detectron'"):
        import_state(model, state, "fcos", "detectron")
    with pytest.raises(CheckpointError, match="no rules for a compact"):
        import_state(model, state, "compact", "mmdet")


def test_hostile_and_damaged_files_are_refused(original, tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("unpickled",))

    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"state_dict": Evil()}))
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00")
    torch.save({"state_dict": {}}, tmp_path / "empty.pth")
    for name in ("evil.pth", "cut.safetensors", "empty.pth", "none.pth"):
        with pytest.raises(CheckpointError, match=name):
            read_state(tmp_path / name)
    without = experiment().model_copy(update={"data": experiment().data.model_copy(update={"classes": None})})
    with pytest.raises(ConfigError, match="names no classes"):
        boxwright.import_checkpoint(tmp_path / "empty.pth", without, tmp_path / "o.safetensors")


# The modules of YOLOX's own checkpoints, in the order in which they are called; each has one of ours.
YOLOX_MODULES = {
    "backbone.backbone.stem.conv": "backbone.stem",
    **{f"backbone.backbone.dark{n + 2}.0": f"backbone.stages.{n}.0" for n in range(4)},
    **{f"backbone.backbone.dark{n + 2}.1": f"backbone.stages.{n}.1" for n in range(3)},
    "backbone.backbone.dark5.1.conv1": "backbone.stages.3.1.reduce",
    "backbone.backbone.dark5.1.conv2": "backbone.stages.3.1.join",
    "backbone.backbone.dark5.2": "backbone.stages.3.2",
    "backbone.lateral_conv0": "neck.reduce.0",
    "backbone.reduce_conv1": "neck.reduce.1",
    "backbone.C3_p4": "neck.down.0",
    "backbone.C3_p3": "neck.down.1",
    "backbone.bu_conv2": "neck.halve.0",
    "backbone.bu_conv1": "neck.halve.1",
    "backbone.C3_n3": "neck.up.0",
    "backbone.C3_n4": "neck.up.1",
    "head.stems": "neck.outputs",
    "head.cls_convs": "head.cls_towers",
    "head.reg_convs": "head.box_towers",
    "head.cls_preds": "head.cls",
    "head.reg_preds": "head.box",
    "head.obj_preds": "head.objectness",
}


def as_yolox_calls_it(name: str, separable: bool) -> str:
    """The name of a tensor of ours in YOLOX's own checkpoints."""
    theirs, ours = next((t, o) for t, o in YOLOX_MODULES.items() if name.startswith(f"{o}."))
    rest = name.removeprefix(ours)
    for old, new in ((".main.", ".conv1."), (".past.", ".conv2."), (".join.", ".conv3.")):
        rest = rest.replace(old, new)
    for old, new in ((".blocks.", ".m."), (".reduce.", ".conv1."), (".conv.", ".conv2.")):
        rest = rest.replace(old, new)
    if "_preds" in theirs:
        return theirs + rest
    parts = rest.split(".")
    last = parts.pop()
    parts[-1] = {"0": "conv", "1": "bn"}[parts[-1]]
    middle = ".conv2" in rest or "_convs" in theirs or ("dark" in theirs and theirs.endswith(".0"))
    if separable and (middle or "bu_conv" in theirs) and parts[-2] in ("0", "1") and "5.1" not in theirs:
        parts[-2] = {"0": "dconv", "1": "pconv"}[parts[-2]]
    return ".".join([theirs + ".".join(parts), last])


@pytest.mark.parametrize("separable", [False, True])
def test_yolox_own_checkpoints_are_taken(separable, tmp_path):
    source = {"root": "nowhere"}
    model = {"name": "yolox", "width": 0.25, "depthwise": separable}
    data = {"train": source, "val": source, "classes": ["a", "b"]}
    config = check_config({"data": data, "model": model}, "test")
    torch.manual_seed(3)
    original = build_detector(config.model, 2).eval()
    state = {as_yolox_calls_it(n, separable): t for n, t in original.state_dict().items()}
    assert ("head.cls_convs.0.1.pconv.bn.weight" in state) == separable
    assert ("backbone.C3_n4.m.0.conv2.dconv.conv.weight" in state) == separable
    torch.save({"model": state, "start_epoch": 300}, tmp_path / "yolox_nano.pth")
    boxwright.import_checkpoint(tmp_path / "yolox_nano.pth", config, tmp_path / "o.safetensors", "yolox")
    ours = load_detector(tmp_path / "o.safetensors").model
    image = torch.rand(1, 3, 64, 64) * 255
    with torch.no_grad():  # the original's stem takes BGR
        for name, value in original(image.flip(1)).items():
            assert torch.allclose(ours(image)[name], value, atol=1e-4), name


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "mobilenetv3_small_050"])
def test_a_classifier_of_timms_becomes_the_body(name, tmp_path):
    torch.manual_seed(4)
    classifier = timm.create_model(name, num_classes=5)
    torch.save(classifier.state_dict(), tmp_path / "classifier.pth")
    model = {"name": "retinanet", "neck": {"channels": 32}, "backbone": {"name": name, "pretrained": False}}
    model |= {"weights": str(tmp_path / "classifier.pth"), "weights_from": "timm"}
    config = check_config({"data": {"train": {"root": "x"}, "val": {"root": "x"}}, "model": model}, "test")
    detector = build_detector(config.model, 3)
    start = load_weights(detector, config.model, ["a", "b", "c"])
    assert start.fresh
    assert not any(part.startswith("backbone") for part in start.fresh)
    for ours, theirs in zip(detector.backbone.body.parameters(), classifier.parameters()):
        assert torch.equal(ours, theirs)


def test_weights_that_were_made_for_bgr_are_taken_as_such_in_training_too(tmp_path):
    source = {"root": "nowhere"}
    model = {"name": "yolox", "width": 0.125, "depth": 0.1}
    config = check_config({"data": {"train": source, "val": source}, "model": model}, "test").model
    torch.manual_seed(5)
    original = build_detector(config, 1)
    state = {as_yolox_calls_it(n, False): t for n, t in original.state_dict().items()}
    torch.save(state, tmp_path / "yolox.pth")
    started = build_detector(config, 1)
    given = config.model_copy(update={"weights": str(tmp_path / "yolox.pth"), "weights_from": "yolox"})
    load_weights(started, given, ["a"])
    image = torch.rand(1, 3, 64, 64) * 255
    with torch.no_grad():
        for a, b in zip(started.eval().backbone(image), original.eval().backbone(image.flip(1))):
            assert torch.allclose(a, b, atol=1e-4 * float(b.abs().max()))
