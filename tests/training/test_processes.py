"""Two processes are one process with twice the batch: gradients, weights and evaluation."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import boxwright
from boxwright.config import check_config, dump_config
from tests.models.test_detectors import CONFIGS
from tests.scenes import square_experiment, square_tables

# A process that ends without parting from the others aborts now and then, by a thread that still runs.
LEFT = """
import atexit, os
from pathlib import Path
import torch.distributed as dist
@atexit.register
def left():
    if dist.is_initialized():
        Path(sys.argv[2], "left-" + os.environ["RANK"]).touch()
"""

# The detector's batch norms become group norms: batch statistics of half a batch are other statistics.
SCRIPT = """
import sys
LEFT
import torch
torch.set_num_threads(1)
from boxwright.models import layers
layers.make_norm = lambda name, channels: torch.nn.GroupNorm(4, channels)
from boxwright.models.backbones import residual
residual.nn.BatchNorm2d = torch.nn.GroupNorm
import boxwright
from boxwright.reporting import report as reports
from boxwright.training.loop import Trainer
reports.report = lambda folder: folder
honest = Trainer.step
def keep(self, batches):
    clip = self.accelerator.clip_grad_norm_
    def look(parameters, limit):
        parameters = list(parameters)
        if self.progress.step == 0 and self.accelerator.is_main_process:
            torch.save([p.grad.clone() for p in parameters], sys.argv[3])
        return clip(parameters, limit)
    self.accelerator.clip_grad_norm_ = look
    try:
        return honest(self, batches)
    finally:
        self.accelerator.clip_grad_norm_ = clip
Trainer.step = keep
boxwright.train(sys.argv[1], name="run", runs=sys.argv[2])
""".replace("LEFT", LEFT)


# After each step both processes have the same gradient of every parameter, and weights that moved alike.
ALIKE = """
import sys
import torch
import torch.distributed as dist
torch.set_num_threads(1)
import boxwright
from boxwright.training.loop import Trainer
honest = Trainer.step
def check(self, batches):
    losses = honest(self, batches)
    sums = torch.stack([p.detach().double().abs().sum() for p in self.learner.detector.parameters()])
    both = [torch.empty_like(sums) for _ in range(2)]
    dist.all_gather(both, sums)
    assert torch.equal(*both), (both[0] - both[1]).abs().max()
    return losses
Trainer.step = check
boxwright.train(sys.argv[1], name="run", runs=sys.argv[2])
"""


@pytest.mark.parametrize("name", ["faster_rcnn", "dfine"])
def test_gradients_of_what_truth_goes_through_are_shared(name, tmp_path):
    tables = square_tables(tmp_path, 4)
    # One process has no object in its half of a step.
    boxwright.write(
        tables.with_boxes(tables.boxes.filter(tables.boxes["image_id"] > 0)), tmp_path / "a.parquet"
    )
    source = {"root": str(tmp_path / "a.parquet")}
    content = {
        "data": {"train": source, "val": source}, "model": CONFIGS[name], "image_size": [64, 64],
        "train": {"epochs": 1, "batch_size": 1, "precision": "fp32", "evaluate_every": 1},
    }  # fmt: skip
    config, script = tmp_path / "a.yaml", tmp_path / "script.py"
    config.write_text(dump_config(check_config(content, "test")))
    script.write_text(ALIKE)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        str(script),
    ]
    done = subprocess.run(
        [*command, str(config), str(tmp_path / "runs")],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


STOPPED = """
import signal, sys
LEFT
import boxwright
from boxwright.training.loop import Trainer
honest, rank = Trainer.step, os.environ["RANK"]
def signalled(self, batches):
    losses = honest(self, batches)
    if rank == "1" and self.progress.step == 2:
        os.kill(os.getpid(), signal.SIGTERM)
    return losses
Trainer.step = signalled
try:
    boxwright.train(sys.argv[1], name="run", runs=sys.argv[2])
except KeyboardInterrupt:
    Path(sys.argv[2], f"stopped-{rank}").touch()
""".replace("LEFT", LEFT)


def test_a_signal_to_one_process_stops_all_of_them_after_the_same_step(tmp_path):
    experiment = square_experiment(tmp_path, epochs=50, batch_size=1, evaluate_every=50, log_every=2)
    config, script, runs = tmp_path / "a.yaml", tmp_path / "script.py", tmp_path / "runs"
    config.write_text(dump_config(experiment))
    script.write_text(STOPPED)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(script), str(config), str(runs)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert {p.name for p in runs.iterdir()} == {"run", "stopped-0", "stopped-1"}
    state = torch.load(runs / "run" / "checkpoints" / "state.pt", weights_only=True)
    assert state["progress"]["step"] == 4  # the signal came within the third


def _run(folder: Path, processes: int, batch_size: int) -> Path:
    experiment = square_experiment(folder, epochs=2, batch_size=batch_size, evaluate_every=2)
    config, script = folder / f"{processes}.yaml", folder / "script.py"
    config.write_text(dump_config(experiment))
    script.write_text(SCRIPT)
    runs = folder / f"runs{processes}"
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(launcher if processes > 1 else []), str(script), str(config), str(runs)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(folder / f"gradients{processes}.pt")], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert [p.name for p in runs.iterdir()] == ["run"]
    return runs / "run"


def test_two_processes_agree_with_one(tmp_path):
    one, two = _run(tmp_path, 1, 4), _run(tmp_path, 2, 2)
    gradients = [torch.load(tmp_path / f"gradients{n}.pt", weights_only=True) for n in (1, 2)]
    for a, b in zip(*gradients):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5 * float(a.abs().max()) + 1e-8)
    for a, b in zip(*(load_file(r / "checkpoints" / "last.safetensors").values() for r in (one, two))):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4)
    found = [json.loads((r / "evaluation.json").read_text()) for r in (one, two)]
    assert found[0]["per_class"]["0"]["truth"] == found[1]["per_class"]["0"]["truth"] == 8
    assert abs(found[0]["coco"]["AP"] - found[1]["coco"]["AP"]) < 0.02
