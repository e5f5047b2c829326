"""`boxwright runs`."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: boxwright runs --folder runs"


def runs(
    folder: Annotated[Path, typer.Option(help="Folder of run folders.")] = Path("runs"),
    json: Annotated[Path | None, typer.Option(help="Write the table there.")] = None,
) -> None:
    """List every run.

    What differs between them, AP by IoU threshold, time.
    """
    from boxwright import runs as list_runs
    from boxwright.cli.tables import print_runs, write_json

    table = list_runs(folder)
    print_runs(table)
    if json is not None:
        write_json([row.to_dict() for row in table], json)
