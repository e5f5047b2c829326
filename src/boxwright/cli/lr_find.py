"""`boxwright lr-find`."""

from pathlib import Path
from typing import Annotated

import typer

from boxwright.cli.options import Changes

EXAMPLE = "Example: boxwright lr-find configs/bccd.yaml --set train.optimizer.name=sgd -o rates.html"


def lr_find(
    experiment: Annotated[
        Path, typer.Argument(help="A YAML file, a checkpoint, or the folder of a run that was stopped.")
    ],
    steps: Annotated[
        list[int] | None, typer.Option(help="Of a test, 100 if left out; may be given several times.", min=20)
    ] = None,
    seeds: Annotated[int, typer.Option(help="Tests of each length.", min=1)] = 3,
    low: Annotated[float, typer.Option(help="The first rate.")] = 1e-6,
    high: Annotated[float, typer.Option(help="The last rate.")] = 1.0,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Page to write, .html.")] = None,
    changes: Changes = None,
) -> None:
    """Find a learning rate by trying all of them.

    The rate rises with every step, from nothing to far too much; what the loss does then says which is right.
    Nothing of these trainings is kept.
    """
    from boxwright import lr_find as find
    from boxwright.cli.tables import print_rows

    found = find(experiment, changes, steps or (100,), seeds, low, high)
    print_rows(found.shown())
    wanted = f"--set train.optimizer.lr={found.recommended:.2g}"
    if found.scaled:
        wanted += f" --set train.optimizer.lr_batch={found.images}"
    typer.echo(f"Recommended for {found.optimizer}, {found.images} images a step: {wanted}")
    if output is not None:
        found.write(output, f"Learning rates of {experiment.stem}")
        typer.echo(f"Page: {output}")
