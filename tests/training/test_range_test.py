"""A test of the learning rate leaves nothing behind, and reads the rates that its curve has."""

import copy

import numpy as np
import pytest
import torch

import boxwright
from boxwright.config import dump_config
from boxwright.errors import ConfigError
from boxwright.training.loop import Trainer
from boxwright.training.range_test import probe, read_rates
from boxwright.training.run import make_trainer
from boxwright.training.train import load_data
from tests.scenes import square_experiment


def trainer_of(config, folder) -> Trainer:
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    return make_trainer(config, load_data(config), folder, False)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_weights_and_state_are_put_back_exactly(tmp_path, optimizer):
    config = square_experiment(tmp_path, optimizer={"name": optimizer}, accumulate=2)
    trainer = trainer_of(config, tmp_path / "run")
    first = next(iter(trainer.steps_of(0)))
    trainer.learner.to_training()
    trainer.step(first)  # so that the optimizer has a state
    before = {name: copy.deepcopy(part.state_dict()) for name, part in trainer.learner.parts().items()}
    random = torch.get_rng_state()
    rates = np.geomspace(1e-6, 1e-1, 25)
    losses = probe(trainer, rates)
    assert np.isfinite(losses).any()
    assert torch.equal(torch.get_rng_state(), random)
    for name, part in trainer.learner.parts().items():
        torch.testing.assert_close(part.state_dict(), before[name], rtol=0, atol=0)
    # What comes next is what would have come: the same step from the same state.
    loss = trainer.step(first)
    for name, part in trainer.learner.parts().items():
        part.load_state_dict(before[name])
    assert torch.equal(trainer.step(first), loss)


def test_groups_keep_their_shares_of_the_rate(tmp_path, monkeypatch):
    config = square_experiment(tmp_path, optimizer={"layer_decay": 0.5})
    trainer, seen = trainer_of(config, tmp_path / "run"), []
    honest = Trainer.step

    def look(self, batches):
        seen.append([group["lr"] for group in self.learner.optimizer.param_groups])
        return honest(self, batches)

    monkeypatch.setattr(Trainer, "step", look)
    rates = np.geomspace(1e-5, 1e-3, 20)
    probe(trainer, rates)
    rising = np.array(seen)
    np.testing.assert_allclose(rising.max(axis=1), rates)
    np.testing.assert_allclose(
        rising / rising.max(axis=1, keepdims=True), np.tile(rising[0] / rates[0], (20, 1))
    )
    assert len(set(np.round(rising[0] / rates[0], 6))) > 2


def test_a_loss_that_diverges_ends_the_test(tmp_path, monkeypatch):
    trainer, losses = trainer_of(square_experiment(tmp_path), tmp_path / "run"), iter([5.0, 3.0, 4.0, 40.0])
    monkeypatch.setattr(Trainer, "step", lambda self, batches: torch.tensor([next(losses)]))
    # The mean of two steps, a tenth of all, is more than four times the least such.
    found = probe(trainer, np.geomspace(1e-6, 1, 20))
    np.testing.assert_array_equal(found[:4], [5, 3, np.nan, np.nan])
    infinite = iter([5.0, 3.0, np.inf])
    monkeypatch.setattr(Trainer, "step", lambda self, batches: torch.tensor([next(infinite)]))
    np.testing.assert_array_equal(probe(trainer, np.geomspace(1e-6, 1, 20))[:3], [5, 3, np.nan])


def test_the_rates_of_a_curve_that_is_known():
    rates = np.geomspace(1e-6, 1, 601)  # 100 a decade
    place = np.log10(rates)
    # Its logarithm falls from 2 to 0 around 1e-3, lies flat, and rises again from 1e-1 on.
    losses = np.exp(1 - np.tanh(4 * (place + 3)) + np.maximum(0, place + 1) * 5)
    losses[rates > 0.5] = np.nan
    found = read_rates(rates, losses)
    assert found["steepest"] == pytest.approx(1e-3, rel=0.05)
    assert found["recommended"] == pytest.approx(1e-3, rel=0.05)
    assert 1e-3 < found["tenth"] < 1.1e-2
    assert 0.06 < found["stable"] < 0.15
    noisy = losses * np.random.default_rng(0).lognormal(0, 0.3, len(losses))
    assert read_rates(rates, noisy)["recommended"] == pytest.approx(1e-3, rel=0.3)


def test_from_a_file_from_weights_and_in_the_middle_of_a_run(tmp_path):
    config = square_experiment(tmp_path)
    file = tmp_path / "squares.yaml"
    file.write_text(dump_config(config))
    run = boxwright.train(config, name="run", runs=tmp_path / "runs").folder
    state = (run / "checkpoints" / "state.pt").read_bytes()
    options = {"steps": (20, 30), "seeds": 2, "low": 1e-5, "high": 0.1}
    found = boxwright.lr_find(file, ["train.optimizer.name=sgd"], **options)
    assert (found.optimizer, found.images, found.scaled) == ("sgd", config.train.batch_size, False)
    assert [curve.shape for curve in found.losses] == [(2, 20), (2, 30)]
    assert not np.array_equal(found.losses[0][0], found.losses[0][1])
    assert found.recommended == found.rows()[1]["recommended"]
    page = tmp_path / "rates.html"
    found.write(page, "Rates")
    assert "30 steps, 2 seeds" in page.read_text()
    # What has learnt begins with a lower loss, from the weights and with the optimizer's state alike.
    options["steps"] = (20,)
    anew = found.losses[0][:, :5].mean()
    for learnt in (run, run / "checkpoints" / "last.safetensors"):
        assert boxwright.lr_find(learnt, **options).losses[0][:, :5].mean() < anew
    assert (run / "checkpoints" / "state.pt").read_bytes() == state
    with pytest.raises(ConfigError, match="a run has its own config"):
        boxwright.lr_find(run, ["train.seed=1"])
    with pytest.raises(ConfigError, match=r"rates from 1 to 0.1, expected two that rise"):
        boxwright.lr_find(file, low=1, high=0.1)
    with pytest.raises(ConfigError, match="expected at least one of 20 steps"):
        boxwright.lr_find(file, steps=(5,))
