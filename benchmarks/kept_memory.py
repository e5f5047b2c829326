"""Steps and predictions of processes that keep freed memory and, by turns, of ones that give it back.

python -m benchmarks.kept_memory --batch 8 --only compact

In one process both would find the memory that the first has kept.
"""

import argparse
import os
import subprocess
import sys
from statistics import median

import torch

from benchmarks.models import named
from benchmarks.peers import seconds
from benchmarks.steps import MODELS, Step
from boxwright.models.memory import keep_memory

CPU = torch.device("cpu")
# glibc's default, but set, so that boxwright leaves the allocator alone.
OWN = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=7"}


def measure(name: str, what: str, batch: int, repeats: int) -> float:
    """Median seconds in this process."""
    side, config = next((side, config) for own, side, config in MODELS if own == name)
    torch.manual_seed(0)
    step = Step(config, CPU, torch.float32, compiled=False)
    step.prepare(batch, side, 20)
    if what == "predict":
        step.fold()
    act = step.train if what == "train" else step.predict
    for _ in range(3):
        act()
    return median(seconds(act, CPU) for _ in range(repeats))


def in_process(environment: dict[str, str], *arguments: str) -> float:
    command = [sys.executable, "-m", "benchmarks.kept_memory", "--one", *arguments]
    done = subprocess.run(
        command, env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5, help="Steps timed in a process.")
    parser.add_argument("--rounds", type=int, default=3, help="Processes of each kind.")
    parser.add_argument("--only", default="", help="Part of the name of the detectors to measure.")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, what, batch, repeats = options.one
        print(measure(name, what, int(batch), int(repeats)))
        return
    if not keep_memory():
        raise SystemExit("nothing to compare: another allocator than glibc's, or the environment sets it.")
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, batch {options.batch}", flush=True)
    for name, side, _ in named(options.only, MODELS):
        for what in ("train", "predict"):
            arguments = name, what, str(options.batch), str(options.repeats)
            turns = [(in_process(OWN, *arguments), in_process({}, *arguments)) for _ in range(options.rounds)]
            back, kept = (median(times) for times in zip(*turns))
            rates = f"{options.batch / kept:.1f} / {options.batch / back:.1f} images/s"
            print(f"{name}, {side} px, {what}: {rates}, {back / kept:.2f} times", flush=True)


if __name__ == "__main__":
    main()
