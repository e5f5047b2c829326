"""A run on a Ray cluster is the run of torchrun, and goes on when a worker dies."""

import logging
import os
import subprocess
import sys
import threading
import time

import psutil
import pytest
import torch
from safetensors.torch import load_file

from boxwright.config import dump_config
from boxwright.errors import ConfigError, DataError
from tests.scenes import square_experiment

ray = pytest.importorskip("ray", reason="the extra cluster is not installed")


@pytest.fixture(scope="module")
def on_ray():
    """`train_on_ray`, in a cluster of two cores."""
    from boxwright.training.on_ray import train_on_ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    waits = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300"}  # for a machine that has much else to do
    own = {"env_vars": {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"} | waits}
    ray.init(num_cpus=2, num_gpus=0, include_dashboard=False, logging_level=logging.ERROR, runtime_env=own)
    yield train_on_ray
    ray.shutdown()


def kill_a_worker(state, killed: list[int]) -> None:
    """As soon as there is a checkpoint; a newer run of the same name has begun meanwhile."""
    deadline = time.monotonic() + 300
    while not state.is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    newer = state.parents[2] / "experiment-2"
    newer.mkdir()
    (newer / "config.yaml").write_text((state.parents[1] / "config.yaml").read_text())
    for process in psutil.Process().children(recursive=True):
        if "RayTrainWorker" in " ".join(process.cmdline()):
            process.kill()
            killed.append(process.pid)
            return


def test_a_killed_worker_costs_nothing(tmp_path, on_ray):
    config = tmp_path / "experiment.yaml"
    config.write_text(dump_config(square_experiment(tmp_path, epochs=30, evaluate_every=30)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "boxwright", "train", str(config), "--runs", str(tmp_path / "torchrun")]
    environment = os.environ | {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)

    killed: list[int] = []
    state = tmp_path / "ray/experiment/checkpoints/state.pt"
    killer = threading.Thread(target=kill_a_worker, args=(state, killed), daemon=True)
    killer.start()
    folder = on_ray(config, 2, runs=tmp_path / "ray")
    killer.join()
    assert killed
    assert folder == tmp_path / "ray/experiment"
    assert (folder / "report/index.html").is_file()
    last = "experiment/checkpoints/last.safetensors"
    torch.testing.assert_close(load_file(tmp_path / "ray" / last), load_file(tmp_path / "torchrun" / last))


def test_what_ends_a_run_is_told_in_our_words(tmp_path, on_ray):
    config = tmp_path / "experiment.yaml"
    config.write_text(dump_config(square_experiment(tmp_path)))
    with pytest.raises(ConfigError, match="--ray 3: the cluster has 2 CPUs"):
        on_ray(config, 3, runs=tmp_path)
    with pytest.raises(DataError, match=r"/nowhere: no such file or folder\.$"):
        on_ray(config, 2, ["data.train.root=/nowhere"], runs=tmp_path, restarts=0)
