"""The mean of checkpoints, each of which is judged."""

import numpy as np
import pytest
import torch
from torch import nn

import boxwright
from boxwright.data import formats
from boxwright.data.dataset import DetectionDataset
from boxwright.errors import CheckpointError, ConfigError
from boxwright.models.checkpoint import load_detector, save_detector
from boxwright.models.detector import collate_for
from boxwright.training import norms
from tests.scenes import square_experiment


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("average")
    config = square_experiment(folder, epochs=12, evaluate_every=12, keep=3)
    return boxwright.train(config, name="run", runs=folder / "runs")


def test_the_mean_of_the_last_epochs_is_a_checkpoint(run, tmp_path):
    places = sorted((run.folder / "checkpoints").glob("epoch-*.safetensors"))
    assert [p.stem for p in places] == ["epoch-10", "epoch-11", "epoch-12"]
    found = boxwright.average(places, tmp_path / "mean.safetensors")
    assert [row["checkpoint"] for row in found.rows] == [*map(str, places), "mean"]
    # The last epoch's weights were judged by the run itself.
    assert found.rows[2]["AP"] == pytest.approx(run.evaluation.coco["AP"])
    mean = load_detector(tmp_path / "mean.safetensors")
    states = [load_detector(p).model.state_dict() for p in places]
    for key, tensor in mean.model.state_dict().items():
        expected = np.mean([s[key].double().numpy() for s in states], axis=0)
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor.double(), torch.as_tensor(expected), rtol=1e-5, atol=1e-6)
    assert set(mean.operating.points) <= {"bright", "dark"}
    assert (
        boxwright.predict(run.folder.parents[1] / "images", tmp_path / "mean.safetensors").images.height == 8
    )


def test_norms_of_a_mean_have_statistics_of_its_own_and_frozen_ones_keep_theirs(run, tmp_path, monkeypatch):
    monkeypatch.setattr(norms, "LEAST", 8)
    places = []
    for place in sorted((run.folder / "checkpoints").glob("epoch-*.safetensors")):
        loaded = load_detector(place)
        _, frozen = batch_norms(loaded.model)[:2]
        frozen.running_mean.fill_(7.0), frozen.running_var.fill_(9.0)
        places.append(tmp_path / place.name)
        save_detector(loaded.model, loaded.config, loaded.categories, places[-1])
    boxwright.average(places, tmp_path / "mean.safetensors")
    mean = load_detector(tmp_path / "mean.safetensors")
    first, frozen = batch_norms(mean.model)[:2]
    assert frozen.running_mean.eq(7).all()
    assert frozen.running_var.eq(9).all()
    seen = []
    conv = next(module for module in mean.model.modules() if isinstance(module, nn.Conv2d))
    conv.register_forward_hook(lambda module, given, out: seen.append(out.mean((0, 2, 3))))
    images = DetectionDataset(formats.read(mean.config.data.train.root), (64, 64), mean.config.augment)
    with torch.no_grad():
        mean.model(collate_for(mean.model)([images[norms.AFTER, n] for n in range(len(images))]).images)
    torch.testing.assert_close(first.running_mean, seen[0], rtol=1e-3, atol=1e-4)


def batch_norms(model):
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def test_a_greedy_mean_leaves_out_what_makes_it_worse(run, tmp_path):
    good = run.folder / "checkpoints" / "epoch-12.safetensors"
    loaded = load_detector(good)
    broken = {n: t * 0 if t.is_floating_point() else t for n, t in loaded.model.state_dict().items()}
    loaded.model.load_state_dict(broken)
    save_detector(loaded.model, loaded.config, loaded.categories, tmp_path / "broken.safetensors")
    found = boxwright.average([tmp_path / "broken.safetensors", good], greedy=True)
    best = max(row["AP"] for row in found.rows[:2])
    assert found.rows[-1]["AP"] >= best
    assert str(good) in found.used


def test_a_greedy_mean_is_of_the_files_that_it_names(run, tmp_path):
    places = sorted((run.folder / "checkpoints").glob("epoch-*.safetensors"))
    rows = boxwright.average(places).rows[:-1]
    best = max(rows, key=lambda row: row["AP"])["checkpoint"]
    # The best file first, which is the model that means are tried on, and once more: it makes nothing worse.
    found = boxwright.average([best, *places, best], tmp_path / "mean.safetensors", greedy=True)
    assert found.used.count(best) >= 2
    states = [load_detector(place).model.state_dict() for place in found.used]
    for key, tensor in load_detector(tmp_path / "mean.safetensors").model.state_dict().items():
        if tensor.is_floating_point():
            mean = torch.stack([state[key] for state in states]).mean(0)
            torch.testing.assert_close(tensor, mean, rtol=1e-5, atol=1e-6)


def test_what_is_not_alike_has_no_mean(run, tmp_path):
    good = run.folder / "checkpoints" / "epoch-12.safetensors"
    with pytest.raises(ConfigError, match="expected two at least"):
        boxwright.average([good])
    config = square_experiment(tmp_path, epochs=1, evaluate_every=1)
    model = config.model.model_copy(update={"width": 0.5})
    wider = boxwright.train(config.model_copy(update={"model": model}), name="wide", runs=tmp_path / "runs")
    with pytest.raises(CheckpointError, match=r"is \(\d+.*\), and \(\d+.*\) in .*epoch-12"):
        boxwright.average([good, wider.folder])
