"""`boxwright zoo`."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: boxwright zoo dfine_n_coco"


def zoo(
    name: Annotated[str | None, typer.Argument(help="Of one checkpoint, to see all about it.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the table there.")] = None,
) -> None:
    """List published checkpoints that training can start from.

    Parameters in millions; GFLOPs of an image; COCO AP as published; the licence of the weights. Start from
    one with --set model.weights=NAME.
    """
    from boxwright.cli.tables import print_rows, write_json
    from boxwright.config.zoo import ZOO, published

    if name is None:
        rows = [
            {
                "name": key,
                "params, M": entry.parameters,
                "GFLOPs": entry.gflops,
                "AP": entry.ap,
                "MB": entry.megabytes,
                "licence": entry.weights_licence,
            }
            for key, entry in ZOO.items()
        ]
        print_rows(rows, digits=1)
        typer.echo("boxwright zoo NAME says where one lies and what was proven of it.")
        content = {key: entry.to_dict() for key, entry in ZOO.items()}
    else:
        content = published(name).to_dict()
        for key, value in content.items():
            typer.echo(f"{key.replace('_', ' '):16} {value}")
    if json is not None:
        write_json(content, json)
