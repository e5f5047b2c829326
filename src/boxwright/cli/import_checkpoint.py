"""`boxwright import-checkpoint`."""

from pathlib import Path
from typing import Annotated

import typer

from boxwright.cli.options import OldFrom

EXAMPLE = (
    "Example: boxwright import-checkpoint atss.pth --toolbox mmdet --config atss.yaml -o atss.safetensors"
)


def import_checkpoint(
    checkpoint: Annotated[Path, typer.Argument(help="A .pth, .pt or .safetensors file.")],
    config: Annotated[
        Path, typer.Option(help="The experiment whose model it is; data.classes names classes.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .safetensors file to write.")],
    toolbox: Annotated[
        str,
        typer.Option(help="mmdet, torchvision, effdet, yolox, transformers, dfine, rtdetr, detr or timm."),
    ] = "mmdet",
    partial: Annotated[
        bool, typer.Option(help="Write it though tensors are missing, unused or of another shape.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="Name every such tensor.")] = False,
    old_from: OldFrom = None,
) -> None:
    """Take over another toolbox's weights.

    Every tensor is accounted for, and nothing guessed.
    """
    from boxwright import import_checkpoint as convert

    report = convert(checkpoint, config, output, old_from or toolbox, partial)
    typer.echo(report.describe())
    if every:
        for what in ("missing", "unused", "mismatched"):
            for name in getattr(report, what):
                typer.echo(f"{what}: {name}")
    typer.echo(f"Checkpoint: {output}")
