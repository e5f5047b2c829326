"""Functions that a run calls: when, with what, and what they can do."""

import pytest
import torch

import boxwright
from boxwright.errors import ConfigError
from boxwright.training.state import STATE
from tests.scenes import square_experiment


def test_they_are_called_at_their_moments_with_numbers(tmp_path):
    config, told = square_experiment(tmp_path, epochs=4, evaluate_every=2, log_every=3), []

    def note(moment):
        return lambda trainer, numbers: told.append((moment, trainer.progress.step, numbers))

    boxwright.train(config, runs=tmp_path, callbacks={m: note(m) for m in ("log", "epoch", "evaluation")})
    steps = max(step for _, step, _ in told) // 4
    assert all(numbers["step"] == step for _, step, numbers in told)
    of = {m: [(step, numbers) for moment, step, numbers in told if moment == m] for m, _, _ in told}
    assert [step for step, _ in of["epoch"]] == [steps, 2 * steps, 3 * steps, 4 * steps]
    assert [numbers["epoch"] for _, numbers in of["epoch"]] == [1, 2, 3, 4]
    assert [step for step, _ in of["evaluation"]] == [2 * steps, 4 * steps]
    # Before an evaluation too, of what is left.
    logged = set(range(3, 4 * steps + 1, 3)) | {2 * steps, 4 * steps}
    assert [step for step, _ in of["log"]] == sorted(logged)
    assert all(numbers["loss/total"] > 0 < numbers["learning_rate"] for _, numbers in of["log"])
    assert all(0 <= numbers["AP"] <= numbers["AP50"] <= 1 for _, numbers in of["evaluation"])


def test_one_stops_a_run_as_ctrl_c_does(tmp_path):
    config, weights = square_experiment(tmp_path, epochs=4, log_every=1), []

    def stop(trainer, numbers):
        trainer.stop.requested = numbers["epoch"] == 2

    def keep(trainer, numbers):
        weights.append({name: value.clone() for name, value in trainer.learner.detector.state_dict().items()})

    with pytest.raises(KeyboardInterrupt):
        boxwright.train(config, runs=tmp_path, callbacks={"epoch": stop})
    assert (tmp_path / "run/checkpoints" / STATE).is_file()
    boxwright.train(config, runs=tmp_path, resume=True, callbacks={"epoch": keep})
    assert len(weights) == 2
    boxwright.train(config, name="whole", runs=tmp_path, callbacks={"epoch": keep})
    torch.testing.assert_close(weights[1], weights[-1], rtol=0, atol=0)


def test_what_one_raises_ends_the_run(tmp_path):
    def fail(trainer, numbers):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        boxwright.train(square_experiment(tmp_path, log_every=1), runs=tmp_path, callbacks={"log": fail})


def test_a_moment_that_there_is_not_is_refused_before_a_folder_is_made(tmp_path):
    with pytest.raises(ConfigError, match=r"no moment 'epochs'\. Did you mean 'epoch'"):
        boxwright.train(square_experiment(tmp_path), runs=tmp_path / "runs", callbacks={"epochs": print})
    assert not (tmp_path / "runs").exists()
