"""`boxwright sweep`."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = (
    "Example: boxwright sweep configs/bccd.yaml --set train.optimizer.lr=1e-3,2e-3 --set model.width=0.5,1"
)


def sweep(
    config: Annotated[Path, typer.Argument(help="The experiment, a YAML file.")],
    settings: Annotated[
        list[str],
        typer.Option("--set", help="a.b=1,2,3, or a.b=1e-4..1e-2; may be given several times."),
    ],
    sampler: Annotated[
        str, typer.Option(help="grid: every combination; random; tpe: draws where it was good before.")
    ] = "grid",
    trials: Annotated[int | None, typer.Option(help="How many, of random and tpe.", min=1)] = None,
    jobs: Annotated[int, typer.Option(help="At a time, sharing the processor.", min=1)] = 1,
    prune: Annotated[
        bool, typer.Option("--prune", help="End trials whose AP is below the median at the same epoch.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Of the runs' folder; the file's, and -sweep.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder of run folders.")] = Path("runs"),
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
) -> None:
    """Train an experiment with many settings.

    Started again, it goes on: what is done stays done, and a run that was stopped is resumed.
    """
    from boxwright.cli.tables import print_rows
    from boxwright.errors import import_extra

    import_extra("optuna", "sweep")
    from boxwright import sweep as train_many

    try:
        rows = train_many(config, settings, sampler, trials, jobs, prune, name, runs, seed)
    except KeyboardInterrupt:
        typer.echo("Stopped. The same command goes on.", err=True)
        raise typer.Exit(130) from None
    print_rows(rows)
    typer.echo(f"Runs: boxwright runs --folder {runs / (name or f'{config.stem}-sweep')}")
