"""What an experiment may say, and what a wrong one is told."""

from pathlib import Path

import pytest

from boxwright.config import apply_changes, check_config, dump_config, load_config
from boxwright.config.part import Part
from boxwright.errors import ConfigError
from boxwright.models import build_detector

DATA = {"train": {"root": "a"}, "val": {"root": "b"}}


def test_a_change_replaces_a_leaf_or_a_whole_part():
    content = {"model": {"name": "fcos", "backbone": {"name": "resnet50", "pretrained": True}}}
    changed = apply_changes(content, ["model.backbone.name=resnet18", "train.epochs=3"])
    assert changed["model"]["backbone"] == {"name": "resnet18", "pretrained": True}
    assert changed["train"] == {"epochs": 3}
    whole = apply_changes(content, ["model.backbone={name: resnet34}"])
    assert whole["model"]["backbone"] == {"name": "resnet34"}
    assert content["model"]["backbone"]["name"] == "resnet50"


def test_epochs_take_the_place_of_minutes_and_the_other_way_round():
    for content, change, expected in (
        ({"minutes": 9.5}, "train.epochs=3", {"epochs": 3}),
        ({"epochs": 3}, "train.minutes=2", {"minutes": 2}),
        ({"epochs": 3}, "train.minutes=null", {"epochs": 3, "minutes": None}),
    ):
        assert apply_changes({"train": content}, [change])["train"] == expected
    with pytest.raises(ConfigError, match="epochs 3 and minutes 2, expected one of both"):
        check_config({"data": DATA, "train": {"epochs": 3, "minutes": 2}}, "x")


@pytest.mark.parametrize(
    ("model", "selection"),
    [
        ({"name": "compact_obb", "selection": {"max_detections": 500}}, (0.4, 500, True)),
        ({"name": "compact", "selection": {"vote": False}}, (0.6, 300, False)),
        ({"name": "faster_rcnn", "selection": {"max_detections": 5}}, (0.5, 5, False)),
    ],
)
def test_one_key_of_a_part_leaves_the_detectors_own_defaults_of_its_others(model, selection):
    found = check_config({"data": DATA, "model": model}, "x").model.selection
    assert (found.iou_threshold, found.max_detections, found.vote) == selection


def test_a_part_of_another_kind_takes_nothing_from_the_default_one():
    class Box(Part):
        name: str = "box"
        side: int = 1

    class Room(Part):
        box: Box = Box(side=3)

    class House(Part):
        room: Room = Room(box=Box(side=5))

    assert House.model_validate({"room": {"box": {}}}).room.box.side == 5
    assert House.model_validate({"room": {"box": {"side": 2}}}).room.box.side == 2
    assert House.model_validate({"room": {"box": {"name": "ball"}}}).room.box.side == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"data": DATA, "trian": {}}, "'trian' is not a key. Did you mean 'train'?"),
        ({"data": DATA, "train": {"epoch": 3}}, "'train.epoch' is not a key. Did you mean 'epochs'?"),
        (
            {"data": DATA, "model": {"name": "compact", "widht": 1}},
            "'model.widht' is not a key. Did you mean 'width'?",
        ),
        ({"data": DATA, "model": {"name": "fcso"}}, "'model.name' is"),
        (
            {"data": DATA, "model": {"name": "retinanet", "box_loss": "giou", "smooth_l1_beta": 0.1}},
            "smooth_l1_beta is for box_loss smooth_l1, not for giou",
        ),
        ({"data": DATA, "train": {"epochs": 0}}, "'train.epochs' is 0"),
        ({"data": DATA, "train": {"optimizer": {"lr": "fast"}}}, "'train.optimizer.lr' is 'fast'"),
        ({"data": DATA, "augment": {"scale": [2, 1]}}, "two positive numbers in order"),
        (
            {"data": {"train": {"rot": "a"}, "val": {"root": "b"}}},
            "'data.train.rot' is not a key. Did you mean 'root'?",
        ),
        ({}, "'data' is missing"),
    ],
)
def test_a_wrong_experiment_names_the_key_and_the_nearest_right_one(content, message):
    with pytest.raises(ConfigError) as raised:
        check_config(content, "x.yaml")
    assert message in str(raised.value)
    assert str(raised.value).startswith("x.yaml: ")


def test_every_fault_is_named_at_once():
    with pytest.raises(ConfigError) as raised:
        check_config({"data": DATA, "trian": 1, "train": {"epochs": -1}}, "x")
    assert len(str(raised.value).splitlines()) == 2


@pytest.mark.parametrize("change", ["epochs", "=3", "a..b=1", "data.train.root.deep=1", "a={"])
def test_a_change_of_another_form_is_an_error(change):
    with pytest.raises(ConfigError, match="--set"):
        apply_changes({"data": DATA}, [change])


def test_what_ran_is_written_whole_and_reads_back(tmp_path):
    config = check_config({"data": DATA, "model": {"name": "retinanet"}}, "x")
    (tmp_path / "c.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "c.yaml") == config


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).parents[1].glob("configs/*.yaml")), ids=lambda p: p.name
)
def test_every_config_of_the_project_builds_its_detector(path):
    build_detector(load_config(path).model, 3)


def test_oriented_boxes_are_not_stretched():
    with pytest.raises(ConfigError, match=r"augment\.aspect is 0\.2, .* expected 0 with fcos_obb"):
        check_config({"data": DATA, "model": {"name": "fcos_obb"}, "augment": {"aspect": 0.2}}, "x")


def test_keys_of_earlier_versions_are_read():
    source = {"root": "nowhere"}
    model = {"name": "compact_obb", "loss_weights": {"front": 3.0}}
    config = check_config({"data": {"train": source, "val": source}, "model": model}, "old")
    assert config.model.loss_weights.heading == 3.0
    assert "front" not in dump_config(config)
