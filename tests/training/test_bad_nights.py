"""What goes wrong at night: the run says what, where it can go on, and loses nothing that was saved."""

import os
import signal
import subprocess
import sys

import pytest
import torch

import boxwright
from boxwright.config import dump_config
from boxwright.data.formats import files
from boxwright.errors import DataError
from boxwright.models.checkpoint import load_detector
from boxwright.training.loop import Trainer
from tests.scenes import square_experiment


def state_of(folder):
    return torch.load(folder / "runs" / "run" / "checkpoints" / "state.pt", weights_only=True)["progress"]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_breaks_ends_the_run_which_goes_on_when_it_is_whole_again(
    tmp_path, monkeypatch, workers
):
    config = square_experiment(tmp_path, epochs=4, cache_gib=0, workers=workers)
    image, honest = tmp_path / "images" / "003.png", Trainer._run_epoch
    whole = image.read_bytes()

    def broken_later(self, display):
        if self.progress.epoch == 2:
            image.write_bytes(whole[:100])
        honest(self, display)

    monkeypatch.setattr(Trainer, "_run_epoch", broken_later)
    with pytest.raises(DataError, match=r"003\.png.*Step \d+ is saved: --resume goes on") as raised:
        boxwright.train(config, name="run", runs=tmp_path / "runs")
    assert "Traceback" not in str(raised.value)
    reached = state_of(tmp_path)
    assert reached["epoch"] == 2
    image.write_bytes(whole)
    monkeypatch.setattr(Trainer, "_run_epoch", honest)
    boxwright.train(config, name="run", runs=tmp_path / "runs", resume=True)
    boxwright.train(config, name="unbroken", runs=tmp_path / "runs")
    same_weights(tmp_path / "runs")


def same_weights(runs):
    """The run that broke ends where the unbroken one does."""
    places = (runs / name / "checkpoints" / "last.safetensors" for name in ("run", "unbroken"))
    for one, other in zip(*(load_detector(p).model.state_dict().values() for p in places), strict=True):
        assert torch.equal(one, other)


def test_a_command_that_fails_ends_with_its_workers(tmp_path):
    config = tmp_path / "squares.yaml"
    config.write_text(dump_config(square_experiment(tmp_path, cache_gib=0, workers=1)))
    (tmp_path / "images" / "003.png").write_bytes(b"broken")
    command = [sys.executable, "-m", "boxwright", "train", str(config), "--runs", str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "003.png" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_that_is_killed_is_named_and_the_run_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    config = square_experiment(tmp_path, epochs=4, batch_size=1, workers=1)
    honest = Trainer.step

    def step(self, batches):
        losses = honest(self, batches)
        if self.progress.step == 10:
            newest = max(torch.multiprocessing.active_children(), key=lambda child: child.pid)
            os.kill(newest.pid, signal.SIGKILL)
        return losses

    monkeypatch.setattr(Trainer, "step", step)
    with pytest.raises(DataError, match=r"a loader's worker was killed.*--resume goes on from there"):
        boxwright.train(config, name="run", runs=tmp_path / "runs")
    assert state_of(tmp_path)["step"] >= 8  # the end of the first epoch
    monkeypatch.setattr(Trainer, "step", honest)
    boxwright.train(config, name="run", runs=tmp_path / "runs", resume=True)
    boxwright.train(config, name="unbroken", runs=tmp_path / "runs")
    same_weights(tmp_path / "runs")


def test_a_step_that_is_half_taken_is_not_saved(tmp_path, monkeypatch):
    config = square_experiment(tmp_path, epochs=4, batch_size=1)
    honest = Trainer.step

    def step(self, batches):
        losses = honest(self, batches)
        if self.progress.step == 10:  # the weights have moved, the run hasn't
            raise DataError("something in the midst of a step.")
        return losses

    monkeypatch.setattr(Trainer, "step", step)
    with pytest.raises(DataError, match=r"in the midst of a step\. The last checkpoint stays as it was"):
        boxwright.train(config, name="run", runs=tmp_path / "runs")
    assert state_of(tmp_path)["step"] == 8
    monkeypatch.setattr(Trainer, "step", honest)
    boxwright.train(config, name="run", runs=tmp_path / "runs", resume=True)
    boxwright.train(config, name="unbroken", runs=tmp_path / "runs")
    same_weights(tmp_path / "runs")


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path, monkeypatch):
    config = square_experiment(tmp_path, epochs=4, evaluate_every=4)
    honest, calls = files.os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) > 7:
            raise OSError(28, "No space left on device")
        honest(handle)

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(DataError, match=r"No space left on device.*The last checkpoint stays as it was"):
        boxwright.train(config, name="run", runs=tmp_path / "runs")
    before = state_of(tmp_path)
    assert 0 < before["epoch"] < 4
    assert not list((tmp_path / "runs").rglob(".state*"))  # nothing half written lies about
    monkeypatch.setattr(files.os, "fsync", honest)
    run = boxwright.train(config, name="run", runs=tmp_path / "runs", resume=True)
    assert run.evaluation.coco["AP"] >= 0
