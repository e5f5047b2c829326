"""`boxwright assign`: label assignment."""

from pathlib import Path
from typing import Annotated

import typer

from boxwright.cli.options import Changes, Experiment, check_experiment

app = typer.Typer(help="See which anchors or points are assigned to which box.", no_args_is_help=True)


@app.command(epilog="Example: boxwright assign show configs/bccd_atss.yaml -o assigned.png --count 2")
def show(
    experiment: Experiment,
    output: Annotated[Path, typer.Option("-o", "--output", help="Picture to write.")] = Path("assigned.png"),
    image: Annotated[
        list[str] | None, typer.Option(help="File name of an image to draw; repeat it for more.")
    ] = None,
    count: Annotated[
        int,
        typer.Option(help="Images to draw where none is named: those with most lost boxes.", min=1, max=20),
    ] = 2,
    part: Annotated[str, typer.Option("--data", help="train or val.")] = "train",
    limit: Annotated[int | None, typer.Option(help="Images in the table; all if left out.", min=1)] = None,
    changes: Changes = None,
    json: Annotated[Path | None, typer.Option(help="Write the table there.")] = None,
) -> None:
    """Draw the anchors assigned to each box; count the boxes without any."""
    check_experiment(experiment, changes)
    from boxwright.cli.tables import print_rows, write_json
    from boxwright.training.assignment import show_assignment

    found = show_assignment(experiment, output, image, count, part, limit, changes)
    rows = found.rows()
    print_rows(rows, digits=1)
    typer.echo(f"{found.none:,} of {len(found.priors):,} boxes get no prior; by aspect ratio: none/all.")
    if json is not None:
        write_json(rows, json)
    typer.echo(f"Picture: {output}")
