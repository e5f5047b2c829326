"""`boxwright average`."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: boxwright average runs/bccd/checkpoints/epoch-*.safetensors -o mean.safetensors"


def average(
    checkpoints: Annotated[list[Path], typer.Argument(help="Run folders or .safetensors files.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Where to write the mean, .safetensors.")
    ] = Path("mean.safetensors"),
    greedy: Annotated[
        bool, typer.Option("--greedy", help="Take only those by which the mean gets no worse.")
    ] = False,
    views: Annotated[
        str, typer.Option(help="Flipped views to judge in, such as plain,horizontal.")
    ] = "plain",
) -> None:
    """Average the weights of checkpoints, and judge each and the mean.

    Of one run's epochs (train.keep), or of runs that started from the same weights. The mean's norms get
    their statistics from the first one's training images.
    """
    from boxwright.cli.options import views_of
    from boxwright.config.places import find_checkpoint

    # A wrong path is told before torch is imported.
    for place in checkpoints:
        find_checkpoint(place)
    seen = views_of(views)

    from boxwright import average as mean_of
    from boxwright.cli.tables import print_rows

    found = mean_of(checkpoints, output, greedy, seen)
    print_rows(found.rows)
    typer.echo(f"The mean of {len(found.used)} of {len(checkpoints)}: {output}")
