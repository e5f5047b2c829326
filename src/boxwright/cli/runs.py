"""`boxwright runs`."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: boxwright runs --folder runs --against bccd -o runs.html"


def runs(
    folder: Annotated[Path, typer.Option(help="Folder of run folders.")] = Path("runs"),
    against: Annotated[
        str | None, typer.Option(help="A run: how the others differ from it, with intervals.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Page to write, .html, with curves.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the table there.")] = None,
) -> None:
    """List every run.

    What differs between them, AP by IoU threshold, time; with intervals where one is chosen to compare with.
    """
    from boxwright import runs as list_runs
    from boxwright.cli.tables import print_rows, print_runs, write_json

    table = list_runs(folder)
    print_runs(table)
    if json is not None:
        write_json([row.to_dict() for row in table], json)
    if against is None and output is None:
        return
    from boxwright.reporting.runs_page import paired, runs_page

    if against is not None:
        rows = paired(folder, against)
        print_rows([row for row in rows if "difference" in row])
        for row in rows:
            if "difference" not in row:
                typer.echo(f"{row['run']} was judged by other images, boxes or classes.", err=True)
    if output is not None:
        typer.echo(f"Page: {runs_page(folder, output, against)}")
