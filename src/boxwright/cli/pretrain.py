"""`boxwright pretrain`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: boxwright pretrain frames/ --for birds.yaml --self-supervised"


def pretrain(
    folder: Annotated[
        Path, typer.Argument(help="A folder of images a class, CIFAR-10's files, or any images.")
    ],
    experiment: Annotated[
        Path | None, typer.Option("--for", help="YAML file of the detector whose backbone learns.")
    ] = None,
    self_supervised: Annotated[
        bool, typer.Option("--self-supervised", help="Without labels: each image is a class of its own.")
    ] = False,
    side: Annotated[
        int | None, typer.Option(help="Of the input, px; if left out, the usual image's, 64 to 224.", min=32)
    ] = None,
    most: Annotated[int, typer.Option(help="Images, without labels; a random choice of more.", min=2)] = 5000,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="a.b.c=value, as for train: train.epochs=50.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the run folder; pretrained-FOLDER if left out.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of run folders.")] = Path("runs"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where the newest run of this name stopped.")
    ] = False,
) -> None:
    """Train a detector's backbone on images without boxes.

    The run folder is what model.weights then takes.
    """
    from boxwright import measure, pretrain
    from boxwright.cli.tables import print_readings

    try:
        run = pretrain(folder, experiment, self_supervised, side, most, changes, name, runs, resume)
    except KeyboardInterrupt:
        typer.echo("Stopped. Go on with the same command and --resume, without --set.", err=True)
        raise typer.Exit(130) from None
    reading = measure(run.evaluation.truth, run.evaluation.predictions, "accuracy")
    # Without labels a row would be an image.
    print_readings({"": replace(reading, rows=[]) if self_supervised else reading})
    typer.echo(f"Report: {run.folder / 'report' / 'index.html'}")
    wanted = experiment or "EXPERIMENT.yaml"
    typer.echo(f"Start from it with: boxwright train {wanted} --set model.weights={run.folder}")
