"""Freed memory that the process keeps."""

import os
import platform
import subprocess
import sys

import pytest

# In a process of its own: what is set here would hold for every test after it.
COUNT = """
import resource
import torch
from boxwright.models.memory import keep_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
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
    assert faults < given_back / 10  # where the system has large pages, there are few


def test_what_the_environment_says_of_the_allocator_holds():
    _, kept, _ = count(MALLOC_ARENA_MAX="2")
    assert not kept
