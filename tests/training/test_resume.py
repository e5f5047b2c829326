"""A run that is killed and resumed is the run that was never broken."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from boxwright.config import dump_config
from boxwright.config.augment import AugmentConfig
from boxwright.errors import CheckpointError, NonFiniteError
from boxwright.models.checkpoint import load_detector
from boxwright.models.compact import Compact
from boxwright.reporting import report as reports
from boxwright.training.loop import Trainer
from boxwright.training.train import train
from tests.scenes import square_experiment

# Children of a server that has everything imported start at once.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.training.test_resume", "timm", "numba", "torch.utils.tensorboard"])


def _train(config: Path, runs: Path, counter: Path, resume: bool) -> None:
    """What a child does: train on one thread, telling the step it has come to; no report."""
    torch.set_num_threads(1)
    step = Trainer.step

    def tell(self: Trainer, batches: list) -> torch.Tensor:
        losses = step(self, batches)
        counter.write_text(str(self.progress.step + 1))
        return losses

    Trainer.step = tell
    reports.report = lambda folder: folder
    train(config, name="run", runs=runs, resume=resume)


def _start(config: Path, runs: Path, counter: Path, resume: bool = False) -> multiprocessing.Process:
    process = PROCESSES.Process(target=_train, args=(config, runs, counter, resume))
    process.start()
    return process


def _kill_at(process: multiprocessing.Process, counter: Path, step: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.is_alive():
        if counter.exists() and int(counter.read_text() or 0) >= step:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            return
        time.sleep(0.001)
    pytest.fail(f"never reached step {step}")


def _weights(run: Path) -> dict[str, torch.Tensor]:
    return load_detector(run / "checkpoints" / "last.safetensors").model.state_dict()


def test_a_killed_run_resumes_to_the_same_weights(tmp_path):
    config = tmp_path / "experiment.yaml"
    experiment = square_experiment(tmp_path, checkpoint_every=3)
    augment = AugmentConfig(mosaic=0.5, batch_scale=(0.5, 1.5), grow_from=0.5)
    config.write_text(dump_config(experiment.model_copy(update={"augment": augment})))
    counter = tmp_path / "step"
    unbroken = _start(config, tmp_path / "unbroken", counter)
    unbroken.join(180)
    assert unbroken.exitcode == 0

    # Three epochs of four steps and a checkpoint every three; killed in three of them, resumed each time.
    resume = False
    for step in sorted(random.Random(0).sample(range(1, 12), 3)):
        counter.unlink(missing_ok=True)
        _kill_at(_start(config, tmp_path / "broken", counter, resume), counter, step)
        resume = True
    last = _start(config, tmp_path / "broken", counter, resume)
    last.join(180)
    assert last.exitcode == 0

    expected, found = _weights(tmp_path / "unbroken" / "run"), _weights(tmp_path / "broken" / "run")
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(tmp_path, number):
    config = tmp_path / "experiment.yaml"
    config.write_text(dump_config(square_experiment(tmp_path, epochs=200, evaluate_every=200, workers=1)))
    command = [sys.executable, "-m", "boxwright", "train", str(config), "--runs", str(tmp_path / "runs")]
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, **pipes, start_new_session=True)
    state = tmp_path / "runs" / "experiment" / "checkpoints" / "state.pt"
    deadline = time.monotonic() + 120
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, number)  # the loader's worker too, as a terminal and a cluster do
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.count("stopping after this step") == 1
    assert f"Go on with: boxwright train {config}" in errors
    assert "Traceback" not in errors
    assert torch.load(state, weights_only=True)["progress"]["step"] > 0


def test_a_run_does_not_go_on_with_steps_of_other_images(tmp_path):
    experiment, runs = square_experiment(tmp_path, epochs=1), tmp_path / "runs"
    config = train(experiment, name="run", runs=runs).folder / "config.yaml"
    other = config.read_text().replace("batch_size: 2", "batch_size: 1")
    config.write_text(other)
    with pytest.raises(
        CheckpointError, match=r"state\.pt: its steps have 2 images, this run's 1 .*as it was"
    ):
        train(config, name="run", runs=runs, resume=True)


def test_a_loss_that_is_not_finite_stops_and_names_step_rate_and_images(tmp_path, monkeypatch):
    honest, calls = Compact.loss, []

    def poisoned(self, outputs, targets):
        losses = honest(self, outputs, targets)
        calls.append(1)
        return losses if len(calls) != 6 else {n: loss * float("nan") for n, loss in losses.items()}

    monkeypatch.setattr(Compact, "loss", poisoned)
    with pytest.raises(NonFiniteError, match=r"step 6: .*learning rate .*images \d+\.png") as raised:
        train(square_experiment(tmp_path), name="bad", runs=tmp_path / "runs")
    state = torch.load(tmp_path / "runs" / "bad" / "checkpoints" / "state.pt", weights_only=True)
    assert str(tmp_path / "runs" / "bad" / "checkpoints" / "state.pt") in str(raised.value)
    assert state["progress"]["step"] == 4  # the end of the first epoch
    assert all(t.isfinite().all() for t in state["model"].values())
