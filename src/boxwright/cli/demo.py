"""`boxwright demo`."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: boxwright demo --seed 0"


def demo(
    runs: Annotated[Path, typer.Option(help="Folder of run folders.")] = Path("runs"),
    data: Annotated[Path, typer.Option(help="Folder for the synthetic images.")] = Path("demo-data"),
    seed: Annotated[int, typer.Option(help="Same seed, same scenes.")] = 0,
) -> None:
    """Train and judge on aerial scenes made here.

    Draw the scenes, train the compact detector on them, judge it, write a report.
    """
    from boxwright.cli.tables import print_evaluation, print_operating
    from boxwright.errors import import_extra

    run = import_extra("boxwright.training.demo", "train").demo(runs, data, seed)
    print_evaluation(run.evaluation)
    print_operating(run.operating)
    typer.echo(f"Report: {run.folder / 'report' / 'index.html'}")
