"""`boxwright train`."""

from pathlib import Path
from typing import Annotated

import typer

from boxwright.errors import import_extra

EXAMPLE = "Example: boxwright train configs/bccd.yaml --set train.epochs=20 --set model.width=0.5"


def train(
    config: Annotated[Path, typer.Argument(help="The experiment, a YAML file.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="a.b.c=value; {...} replaces a whole part.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the run folder; the file's name if left out.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder of run folders.")] = Path("runs"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where the newest run of this name stopped.")
    ] = False,
    ray: Annotated[
        int | None,
        typer.Option(metavar="WORKERS", help="Processes of a Ray cluster (extra: cluster).", min=1),
    ] = None,
) -> None:
    """Train a detector, judge it, and write a report."""
    from boxwright import train
    from boxwright.cli.tables import print_evaluation, print_operating

    try:
        if ray is not None:
            on_ray = import_extra("boxwright.training.on_ray", "cluster")
            folder = on_ray.train_on_ray(config, ray, changes, name, runs, resume)
            typer.echo(f"Report: {folder / 'report' / 'index.html'}")
            return
        run = train(config, changes, name, runs, resume)
    except KeyboardInterrupt:
        wanted = f" --name {name}" if name else ""
        where = f" --runs {runs}" if runs != Path("runs") else ""
        workers = f" --ray {ray}" if ray is not None else ""
        typer.echo(
            f"Stopped. Go on with: boxwright train {config}{wanted}{where}{workers} --resume", err=True
        )
        raise typer.Exit(130) from None
    print_evaluation(run.evaluation)
    if run.operating is not None:
        print_operating(run.operating)
    typer.echo(f"Report: {run.folder / 'report' / 'index.html'}")
