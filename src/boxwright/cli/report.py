"""`boxwright report`."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: boxwright report runs/bccd"


def report(run: Annotated[Path, typer.Argument(help="A run folder.")]) -> None:
    """Write a run's report anew.

    One HTML page with everything inside.
    """
    from boxwright import report as write_report

    typer.echo(f"Report: {write_report(run)}")
