"""`boxwright schedule`."""

from pathlib import Path
from typing import Annotated

import typer

from boxwright.cli.options import Changes

EXAMPLE = "Example: boxwright schedule configs/bccd.yaml --set train.schedule.name=restarts -o rate.html"


def schedule(
    config: Annotated[Path, typer.Argument(help="The experiment, a YAML file.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Page to write, .html.")] = None,
    processes: Annotated[int, typer.Option(help="That will train, each on batches of its own.", min=1)] = 1,
    changes: Changes = None,
) -> None:
    """Show what an experiment's learning rate will do.

    The data are read for their number of images; nothing is trained.
    """
    from boxwright import schedule as plan_of
    from boxwright.cli.tables import print_rows

    plan = plan_of(config, changes, processes)
    typer.echo(plan.describe())
    print_rows(plan.rows())
    if output is not None:
        plan.write(output, f"Learning rate of {config.stem}")
        typer.echo(f"Page: {output}")
