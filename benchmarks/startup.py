"""Seconds before the first word: until a mistake is told, and until the first training step begins.

python -m benchmarks.startup        # about a minute

Each is the best of several fresh processes, with warm file caches. Images are decoded before the first
step, which is timed apart.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROUNDS = 5
EXPERIMENT = "configs/bccd_quick.yaml"
LABELS = "../shared/data/bccd"
# Runs the command, and stops it at its first step; what it imports is imported once, here or there.
CHILD = """
import os, time
from boxwright.cli import main
from boxwright.data.dataset import DetectionDataset
from boxwright.training.loop import Trainer

spent, fill = [0.0], DetectionDataset.fill_cache

def timed(self, tell):
    start = time.perf_counter()
    held = fill(self, tell)
    spent[0] += time.perf_counter() - start
    return held

def stop(self, batches):
    print("FIRST", time.time(), spent[0], flush=True)
    os._exit(0)

DetectionDataset.fill_cache, Trainer.step = timed, stop
main()
"""


def told(words: list[str]) -> float:
    """Wall seconds until a wrong command has said so."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "boxwright", *words], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    return time.perf_counter() - start


def first_step(folder: Path) -> tuple[float, float]:
    """Wall seconds until the first step begins without decoding, and those of decoding."""
    command = [sys.executable, "-c", CHILD, "train", EXPERIMENT, "--runs", str(folder)]
    start = time.time()
    done = subprocess.run(command, capture_output=True, text=True)
    line = next((line for line in done.stdout.splitlines() if line.startswith("FIRST")), None)
    assert line is not None, done.stderr
    at, decoding = map(float, line.split()[1:])
    return at - start - decoding, decoding


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "labels.json").write_text('{"images": [')
        mistakes = {
            "no such experiment": ["train", str(folder / "nothere.yaml")],
            "a misspelt key": ["train", EXPERIMENT, "--set", "modle.name=compact"],
            "no such data": ["train", EXPERIMENT, "--set", "data.train.root=nowhere"],
            "an unknown class": ["train", EXPERIMENT, "--set", "data.classes=[RBCs]"],
            "labels cut off": [
                *("train", EXPERIMENT, "--set"),
                "data.train=" + json.dumps({"root": str(folder / "labels.json"), "format": "coco"}),
            ],
            "no such checkpoint": ["predict", LABELS, "--checkpoint", str(folder / "nowhere")],
        }
        table = Table("what", "seconds", title=f"Start-up, best of {ROUNDS}", box=None)
        for what, words in mistakes.items():
            table.add_row(what, f"{min(told(words) for _ in range(ROUNDS)):.2f}")
        best = min(first_step(folder / str(n)) for n in range(ROUNDS))
        table.add_row(f"first step of {EXPERIMENT}, decoding apart", f"{best[0]:.2f}")
        table.add_row("decoding", f"{best[1]:.2f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
