"""Fine-tuning: what is frozen stays, early stages learn slower, what starts anew learns first."""

import pytest
import torch

import boxwright
from boxwright.config import check_config
from boxwright.config.training import OptimizerConfig
from boxwright.errors import ConfigError
from boxwright.models.checkpoint import load_detector
from boxwright.training.freezing import freeze
from boxwright.training.loop import Trainer
from boxwright.training.optimization import make_average, make_optimizer
from tests.models.test_detectors import CONFIGS, make
from tests.scenes import small_tables


def test_a_wrong_part_is_named_and_something_must_be_left():
    with pytest.raises(ConfigError, match=r"no part 'backbon'. Did you mean 'backbone'"):
        freeze(make("fcos"), ["backbon"])
    with pytest.raises(ConfigError, match="nothing is left"):
        freeze(make("fcos"), ["backbone", "neck", "head"])


def test_earlier_stages_of_the_backbone_learn_slower():
    model = make("fcos")
    optimizer = make_optimizer(model, OptimizerConfig(lr=1.0, layer_decay=0.5))
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    rates = {name: rate[id(p)] for name, p in model.named_parameters()}
    assert len(rates) == len(rate)
    assert rates["head.cls.weight"] == 1.0
    assert rates["backbone.body.layer4.0.conv1.weight"] == 0.5
    assert rates["backbone.body.layer3.0.conv1.weight"] == 0.25
    assert rates["backbone.body.conv1.weight"] < rates["backbone.body.layer1.0.conv1.weight"]


def test_an_average_that_starts_late_is_the_weights_until_then():
    model = torch.nn.Linear(1, 1, bias=False)
    average = make_average(model, 0.9, start=3)
    for step in range(6):
        torch.nn.init.constant_(model.weight, float(step))
        average.update_parameters(model)
        same = average.module.weight.item() == step
        assert same == (step <= 2), step


def trained(folder, name: str, model: dict, epochs: int = 1, **train):
    source = {"root": str(folder / "truth.parquet")}
    content = {
        "data": {"train": source, "val": source}, "model": model, "image_size": [64, 64],
        "train": {"epochs": epochs, "batch_size": 2, "ema": None, "precision": "fp32"} | train,
    }  # fmt: skip
    run = boxwright.train(check_config(content, "test"), name=name, runs=folder / "runs")
    return load_detector(run.folder / "checkpoints" / "last.safetensors").model.state_dict()


def resumed(folder, name: str):
    runs = folder / "runs"
    return boxwright.train(runs / name / "config.yaml", name=name, runs=runs, resume=True)


@pytest.fixture
def folder(tmp_path):
    boxwright.write(small_tables(tmp_path), tmp_path / "truth.parquet")
    return tmp_path


def test_a_run_starts_from_another_and_what_is_frozen_stays(folder, capsys):
    first = trained(folder, "first", CONFIGS["fcos"])
    model = CONFIGS["fcos"] | {"weights": str(folder / "runs" / "first"), "freeze": ["backbone"]}
    second = trained(folder, "second", model)
    told = " ".join(capsys.readouterr().err.split())
    assert "starts from" in told
    assert "classes carried over" in told
    same = {name: torch.equal(first[name], second[name]) for name in first}
    frozen = [name for name in first if name.startswith("backbone.")]
    # Weights and the norms' statistics.
    assert all(same[name] for name in frozen)
    assert not same["head.cls_tower.0.0.weight"]


def test_what_starts_anew_learns_first(folder):
    first = trained(folder, "first", CONFIGS["fcos"])
    model = CONFIGS["fcos"] | {"weights": str(folder / "runs" / "first"), "head_depth": 2}
    second = trained(folder, "second", model, new_first=1000)
    known = [name for name in first if "running" not in name and "num_batches" not in name]
    assert all(torch.equal(first[name], second[name]) for name in known)
    assert "head.cls_tower.1.0.weight" in second


def test_a_run_that_was_stopped_before_its_first_state_starts_from_the_weights_again(folder, monkeypatch):
    trained(folder, "first", CONFIGS["fcos"])
    model = CONFIGS["fcos"] | {"weights": str(folder / "runs" / "first"), "head_depth": 2}
    starts = []
    honest = Trainer.__init__

    def look(self, network, *arguments, **options):
        honest(self, network, *arguments, **options)
        weight = network.head.cls_tower[0][0].weight
        starts.append((weight.detach().clone(), len(self.learner.carried)))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "__init__", look)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                trained(folder, "second", model, new_first=5)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "__init__", look)
        with pytest.raises(KeyboardInterrupt):
            resumed(folder, "second-2")
    (first, carried), (second, _), (third, again) = starts
    assert torch.equal(first, second)
    assert torch.equal(first, third)
    assert carried == again > 0


def test_a_resumed_run_knows_what_started_anew(folder, monkeypatch):
    first = trained(folder, "first", CONFIGS["fcos"])
    model = CONFIGS["fcos"] | {"weights": str(folder / "runs" / "first"), "head_depth": 2}
    honest = Trainer.step

    def stop(self, batches):
        self.stop.requested = True
        return honest(self, batches)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", stop)
        with pytest.raises(KeyboardInterrupt):
            trained(folder, "second", model, new_first=1000)
    run = resumed(folder, "second")
    second = load_detector(run.folder / "checkpoints" / "last.safetensors").model.state_dict()
    known = [name for name in first if "running" not in name and "num_batches" not in name]
    assert all(torch.equal(first[name], second[name]) for name in known)


def test_norms_keep_what_weights_gave_them(folder):
    first = trained(folder, "first", CONFIGS["compact"])
    model = CONFIGS["compact"] | {"weights": str(folder / "runs" / "first")}
    statistics = [name for name in first if name.endswith(("running_mean", "running_var"))]
    assert len(statistics) > 10
    for name, norms, kept in (("a", "learn", False), ("b", "keep", True)):
        second = trained(folder, name, model, norms=norms)
        assert all(torch.equal(first[key], second[key]) for key in statistics) == kept, norms
        assert not torch.equal(first["backbone.stem.0.weight"], second["backbone.stem.0.weight"])
    with pytest.raises(ConfigError, match="no statistics to keep"):
        trained(folder, "d", CONFIGS["compact"], norms="keep")


def test_norms_that_start_anew_learn(folder):
    first = trained(folder, "first", CONFIGS["compact"] | {"head_depth": 1})
    model = CONFIGS["compact"] | {"head_depth": 2, "weights": str(folder / "runs" / "first")}
    second = trained(folder, "second", model, norms="keep")
    names = [name for name in second if name.endswith("running_mean")]
    known = [name for name in names if name in first]
    assert 0 < len(known) < len(names)
    assert all(torch.equal(first[name], second[name]) for name in known)
    assert all(second[name].abs().sum() > 0 for name in set(names) - set(known))
