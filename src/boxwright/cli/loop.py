"""`boxwright loop`."""

from pathlib import Path
from typing import Annotated

import typer

from boxwright.cli.options import Changes

EXAMPLE = "Example: boxwright loop review.sqlite experiment.yaml -o loop --images 50"


def loop(
    store: Annotated[Path, typer.Argument(help="File of a review, .sqlite.")],
    experiment: Annotated[Path, typer.Argument(help="What is trained, a YAML file; its val judges.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the rounds.")] = Path("loop"),
    images: Annotated[int, typer.Option(help="To be reviewed next.", min=1)] = 50,
    seed: Annotated[int, typer.Option(help="Of the first draw.")] = 0,
    changes: Changes = None,
) -> None:
    """Learn from what was reviewed, and choose what to review next: uncertain images, unlike each other.

    One round: train on the accepted images, judge, predict the others, choose. The account tells AP against
    images and boxes that somebody looked at.
    """
    from boxwright.cli.tables import print_rows
    from boxwright.config import load_config
    from boxwright.labeling.loop import NEXT, run_round
    from boxwright.labeling.store import Store

    config = load_config(experiment, changes)
    done = run_round(Store(store), config, output, images, seed)
    if len(done.account):
        print_rows(done.account.to_dicts())
    else:
        typer.echo("No image is accepted yet: the first ones are drawn at random.")
    more = f" --predictions {done.predictions}" if done.predictions else ""
    typer.echo(
        f"{len(done.next):,} images to be reviewed next: {output / NEXT}\n"
        f"boxwright label DATA -o {store} --next {output / NEXT}{more}"
    )
