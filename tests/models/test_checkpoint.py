"""Checkpoints: what they carry, damage to them, and those of the first format."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from boxwright.config import check_config
from boxwright.errors import CheckpointError
from boxwright.models import build_detector
from boxwright.models.checkpoint import load_detector, save_detector
from boxwright.models.heads.dense import flatten_level
from boxwright.training.state import Progress, load_state, save_state


def config_of(model: dict):
    source = {"root": "nowhere"}
    return check_config({"data": {"train": source, "val": source}, "model": model}, "test")


def saved(path, **model):
    torch.manual_seed(0)
    config = config_of({"name": "compact", "width": 0.25} | model)
    detector = build_detector(config.model, 2).eval()
    save_detector(detector, config, ["a", "b"], path)
    return detector, config


def test_a_checkpoint_gives_the_same_outputs_and_carries_its_config(tmp_path):
    model, config = saved(tmp_path / "m.safetensors")
    loaded = load_detector(tmp_path / "m.safetensors")
    images = torch.rand(1, 3, 64, 64) * 255
    with torch.no_grad():
        assert torch.equal(model(images)["cls_logits"], loaded.model(images)["cls_logits"])
    assert loaded.categories == ["a", "b"]
    assert loaded.config == config


@pytest.mark.parametrize("place", [0.3, 0.6, 0.999])
def test_a_flipped_bit_of_the_weights_is_found(tmp_path, place):
    path = tmp_path / "m.safetensors"
    saved(path)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 4
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged: its contents don't match their digest"):
        load_detector(path)


def test_weights_that_another_program_changed_are_refused_with_their_old_digest(tmp_path):
    path = tmp_path / "m.safetensors"
    saved(path)
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensors["head.cls.bias"] += 1
    save_file(tensors, path, metadata)
    with pytest.raises(CheckpointError, match="digest"):
        load_detector(path)


def test_a_flipped_bit_of_the_state_is_found(tmp_path):
    path, layer = tmp_path / "state.pt", torch.nn.Linear(100, 100)
    save_state(path, Progress(3), {"model": layer})
    assert load_state(path, {"model": torch.nn.Linear(100, 100)}, 8) == Progress(3, images=8)
    content = bytearray(path.read_bytes())
    at = content.find(layer.weight.detach().numpy().tobytes()) + 2000
    content[at] ^= 4
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        load_state(path, {"model": torch.nn.Linear(100, 100)}, 8)


def test_a_state_without_a_digest_is_of_an_earlier_version_and_loads(tmp_path):
    path, layer = tmp_path / "state.pt", torch.nn.Linear(4, 4)
    save_state(path, Progress(7), {"model": layer})
    state = torch.load(path, weights_only=True)
    del state["digest"]
    torch.save(state, path)
    assert load_state(path, {"model": layer}, 8).step == 7


def test_detectors_from_before_the_vote_predict_without_one(tmp_path):
    path = tmp_path / "old.safetensors"
    _, config = saved(path)
    assert load_detector(path).model.selection.vote
    content = config.model_dump(mode="json")
    del content["model"]["selection"]["vote"]
    metadata = {"format": "boxwright-1", "config": json.dumps(content), "categories": '["a", "b"]'}
    save_file(load_file(path), path, metadata)
    assert not load_detector(path).model.selection.vote


def test_headings_of_the_first_format_become_a_branch(tmp_path):
    """The first format's box convolution gave eight numbers, the last two the heading."""
    path = tmp_path / "old.safetensors"
    model, config = saved(path, name="compact_obb", heading=True)
    tensors = {n: t for n, t in load_file(path).items() if not n.startswith("heading.")}
    box = torch.nn.Conv2d(16, 8, 1)
    tensors |= {"head.box.weight": box.weight.detach(), "head.box.bias": box.bias.detach()}
    content = config.model_dump(mode="json")
    del content["model"]["long_edge"]
    content["model"]["loss_weights"]["front"] = content["model"]["loss_weights"].pop("heading")
    metadata = {"format": "boxwright-1", "config": json.dumps(content), "categories": '["a", "b"]'}
    save_file(tensors, path, metadata)

    loaded = load_detector(path).model
    images = torch.rand(1, 3, 64, 96) * 255
    with torch.no_grad():
        pyramid = model.neck(model.backbone(model.normalize(images)))
        numbers = torch.cat([flatten_level(box(model.head.box_tower(f)), 8) for f in pyramid], dim=1)
        outputs = loaded(images)
    assert torch.allclose(outputs["box_numbers"], numbers[..., :6], atol=1e-6)
    assert torch.allclose(outputs["headings"], numbers[..., 6:], atol=1e-6)
    assert not loaded.recipe.long_edge
