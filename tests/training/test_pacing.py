"""Minutes become epochs, and the trial steps that tell how many leave nothing behind."""

import time

import numpy as np
import pytest
import torch

from boxwright.config import load_config
from boxwright.config.augment import AugmentConfig
from boxwright.models.checkpoint import load_detector
from boxwright.training import norms, pacing
from boxwright.training.run import make_trainer
from boxwright.training.train import load_data, train
from tests.scenes import square_experiment


def test_a_run_of_minutes_is_a_run_of_the_epochs_in_its_config(tmp_path, monkeypatch):
    monkeypatch.setattr(pacing, "TOLERATED", 100.0)  # seconds are too short to tell how fast a machine is
    config = square_experiment(tmp_path)
    settings = config.train.model_copy(update={"minutes": 0.1, "epochs": 10_000})
    paced = train(config.model_copy(update={"train": settings}), name="paced", runs=tmp_path)
    own = load_config(paced.folder / "config.yaml")
    assert own.train.minutes is None
    assert own.train.epochs < 10_000
    again = train(own, name="again", runs=tmp_path)
    weights = [load_detector(run.folder / "checkpoints/last.safetensors").model for run in (paced, again)]
    torch.testing.assert_close(weights[0].state_dict(), weights[1].state_dict(), rtol=0, atol=0)


def test_trial_steps_are_of_the_sizes_that_the_run_will_have(tmp_path):
    augment = AugmentConfig(grow_from=0.5, grow_until=1)
    config = square_experiment(tmp_path).model_copy(update={"augment": augment})
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    trainer = make_trainer(config, load_data(config), tmp_path / "run", False)
    shares, honest = [], trainer.learner.preparation.resized

    def look(batch, step, n, share):
        shares.append(share)
        return honest(batch, step, n, share)

    trainer.learner.preparation.resized = look
    pacing._seconds_of_steps(trainer, 1e-9)  # at least so many
    warm, timed = shares[: 2 * pacing.WARM_STEPS], shares[2 * pacing.WARM_STEPS :]
    assert len(timed) == 2 * pacing.LEAST_STEPS
    for some in (warm, timed):
        assert some[0] < 0.2
        assert some[-1] > 0.8
    assert trainer.progress.step == 0


def test_what_the_first_step_of_a_size_makes_is_not_timed(tmp_path):
    config = square_experiment(tmp_path)
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    trainer = make_trainer(config, load_data(config), tmp_path / "run", False)
    met, honest = set(), trainer.step

    def step(batches):
        if trainer.progress.step not in met:
            time.sleep(1.0)
        met.add(trainer.progress.step)
        return honest(batches)

    trainer.step = step
    assert 0 < pacing._seconds_of_steps(trainer, 1e-9).mean() < 0.5
    assert len(met) > pacing.LEAST_STEPS / 2


def test_what_takes_seconds_a_batch_takes_as_many_of_all(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(pacing, "time", type("Clock", (), {"monotonic": staticmethod(lambda: clock[0])}))
    few, taken = 3, []
    monkeypatch.setattr(pacing, "JUDGED_BATCHES", few)

    def work(batches):
        taken.append(len(list(batches)))
        clock[0] += 2.0 * taken[-1]

    loader = pacing.DataLoader([0] * 11, collate_fn=lambda some: some, batch_size=1)
    assert pacing._seconds_of(loader, work) == 22
    assert taken == [few, few]
    assert pacing._seconds_of(pacing.DataLoader([]), work) == 0
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    config = square_experiment(tmp_path)
    for least, batches in ((64, 0), (1, 4)):  # fewer images tell no statistics
        monkeypatch.setattr(norms, "LEAST", least)
        trainer = make_trainer(config, load_data(config), tmp_path / "run", False)
        trainer.learner.judged = work
        assert len(trainer.norms_loader) == batches
        assert pacing._seconds_of_gathering(trainer) == 2 * batches


@pytest.mark.parametrize(
    ("seconds", "views", "every", "epochs"),
    [
        # 96 seconds count; epochs of 4 steps take 4, each view judged takes 3, statistics 2 a time.
        (100, ("plain",), 5, 18),  # 72 of training, 4 times 5, one view more at the end
        (100, ("plain", "horizontal", "vertical"), 5, 16),  # 64, 4 times 5, 9
        (1, ("plain",), None, 1),
    ],
)
def test_epochs_are_as_many_as_fit(tmp_path, monkeypatch, capsys, seconds, views, every, epochs):
    monkeypatch.setattr(pacing, "_seconds_of_steps", lambda trainer, seconds: np.ones(5))
    monkeypatch.setattr(pacing, "_seconds_of_judging", lambda trainer: 3.0)
    monkeypatch.setattr(pacing, "_seconds_of_gathering", lambda trainer: 2.0)
    monkeypatch.setattr(pacing, "time", type("Clock", (), {"monotonic": staticmethod(lambda: 0.0)}))
    config = square_experiment(tmp_path, evaluate_every=every).model_copy(update={"views": views})
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    trainer = make_trainer(config, load_data(config), tmp_path / "run", False)
    assert trainer.steps_per_epoch == 4
    pacing.pace(trainer, seconds)
    assert trainer.config.train.epochs == epochs
    assert ("not even one epoch fits" in capsys.readouterr().err) == (epochs == 1)
    # The schedule ends with them.
    rates = []
    for _ in range(epochs * 4):
        rates.append(trainer.learner.rate)
        trainer.learner.optimizer.step()
        trainer.learner.schedule.step()
    assert rates[-1] < 0.2 * max(rates) == 0.2 * config.train.optimizer.lr


@pytest.mark.parametrize(
    ("trial", "real", "first", "last", "seconds"),
    [
        (10.0, [1.0], 2, 22, 88),  # other work ended: each of 2 epochs would have taken 4 s in place of 40
        (1.0, [4.0], 22, 5, 80),  # other work began
        (1.0, [1.04], 22, 22, 91),  # nothing to speak of
        (1.0, [1, 1, 1, 1, 1, 1, 1, 1, 1, 2.4, 1], 22, 22, 93),  # other work in one epoch
        (1.0, [1, 1, 1, 1, 1, 1, 1, 1, 1, 2.0], 22, 15, 84),  # other work from the tenth epoch on
    ],
)
def test_a_machine_that_becomes_faster_or_slower(
    tmp_path, monkeypatch, capsys, trial, real, first, last, seconds
):
    clock = [0.0]
    monkeypatch.setattr(pacing, "_seconds_of_steps", lambda *_: np.full(5, trial))
    monkeypatch.setattr(pacing, "_seconds_of_judging", lambda trainer: 3.0)
    monkeypatch.setattr(pacing, "time", type("Clock", (), {"monotonic": staticmethod(lambda: clock[0])}))
    config = square_experiment(tmp_path, evaluate_every=1000)
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    trainer = make_trainer(config, load_data(config), tmp_path / "run", False)
    pacing.pace(trainer, 100)
    assert trainer.config.train.epochs == first
    rates, honest = [], trainer.step

    def step(batches):
        rates.append(trainer.learner.rate)
        return honest(batches)

    def after_epoch(adjust=trainer.after_epoch):
        clock[0] += 4 * real[min(trainer.progress.epoch, len(real)) - 1]
        trainer.progress.seconds = clock[0]
        adjust()

    trainer.step, trainer.after_epoch = step, after_epoch
    trainer.run()
    assert trainer.progress.epoch == load_config(tmp_path / "run/config.yaml").train.epochs == last
    assert int(clock[0]) == seconds
    assert ("in place of" in capsys.readouterr().err) == (first != last)
    assert len(rates) == 4 * last
    assert rates[-1] < 0.2 * max(rates)
