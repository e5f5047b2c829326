"""Freed memory that the process keeps."""

import os
import platform
import subprocess
import sys

import pytest

from boxwright.config.training import TrainConfig
from boxwright.prediction import predictor
from boxwright.training import machine
from tests.models.test_detectors import make

# In a process of its own: what is set here would hold for every test after it.
COUNT = """
import resource
import torch
from boxwright.models.memory import keep_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        torch.ones(16 << 20)  # 64 MiB, 16,384 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
given_back = faults()
kept = keep_memory()
faults()
print(given_back, int(kept), faults())
"""


def count(**environment: str) -> tuple[int, ...]:
    names = {n: v for n, v in os.environ.items() if not n.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    command = [sys.executable, "-c", COUNT]
    done = subprocess.run(command, env=names | environment, capture_output=True, text=True, check=True)
    return tuple(map(int, done.stdout.split()))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator of glibc")
def test_freed_memory_is_not_faulted_in_again():
    given_back, kept, faults = count()
    assert kept
    assert faults < given_back / 100


def test_what_the_environment_says_of_the_allocator_holds():
    _, kept, _ = count(MALLOC_ARENA_MAX="2")
    assert not kept


def test_training_and_predicting_on_a_processor_keep_memory(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    for module in (predictor, machine):
        monkeypatch.setattr(module, "keep_memory", lambda name=module.__name__: asked.append(name))
    predictor.prepare(make("compact"), "cpu", "torch")
    machine.make_accelerator(TrainConfig(), tmp_path)
    assert asked == [predictor.__name__, machine.__name__]
