"""How far the tests that train are from failing, over seeds, threads and kinds of processor.

python -m tests.margins --seeds 5 --threads 1 2        # all of them: an hour on two cores

Each detector overfits eight images as in `test_detectors.py`; the table shows the AP50 that the test asks for
and the least that was met. A test whose least isn't clearly above needs more steps.
ATEN_CPU_CAPABILITY=default in the environment stands for an old processor.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from tests.models.test_detectors import (
    HEADING_STEPS,
    LEAST_AP50,
    LEAST_COSINE,
    OVERFIT,
    heading_cosines,
    overfit,
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", nargs="+", default=None, help="detectors; all if left out")
    options = parser.parse_args()
    console = Console(width=100)
    console.print(
        f"processor kind: {os.environ.get('ATEN_CPU_CAPABILITY', torch.backends.cpu.get_cpu_capability())}"
    )
    table = Table("detector", "steps", "wanted", "least", "all", "seconds each", box=None)
    cases = [tuple(getattr(case, "values", case)) for case in OVERFIT]
    for name, steps in [*cases, ("headings", HEADING_STEPS)]:
        if options.only and name not in options.only:
            continue
        found, start = [], time.perf_counter()
        for threads in options.threads:
            torch.set_num_threads(threads)
            for seed in range(options.seeds):
                with tempfile.TemporaryDirectory() as folder:
                    if name == "headings":
                        found.append(float(heading_cosines(Path(folder), steps, seed).min()))
                    else:
                        found.append(overfit(name, steps, Path(folder), seed))
        wanted = LEAST_COSINE if name == "headings" else LEAST_AP50
        each = (time.perf_counter() - start) / len(found)
        row = (
            name,
            str(steps),
            f"{wanted}",
            f"{min(found):.3f}",
            " ".join(f"{v:.2f}" for v in sorted(found)),
        )
        table.add_row(*row, f"{each:.0f}")
        console.print(*row)
    console.print(table)


if __name__ == "__main__":
    main()
