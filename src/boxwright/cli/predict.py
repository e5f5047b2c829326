"""`boxwright predict`."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: boxwright predict images/ --checkpoint runs/bccd -o predictions.parquet"


def predict(
    images: Annotated[Path, typer.Argument(help="An image or a folder of images.")],
    checkpoint: Annotated[Path, typer.Option(help="A run folder or a .safetensors file.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="predictions.parquet, or .json for COCO results.")
    ] = Path("predictions.parquet"),
    batch_size: Annotated[int, typer.Option(help="Images at a time.", min=1)] = 8,
    calibration: Annotated[
        Path | None, typer.Option(help="A file of `boxwright calibrate`, applied to what is found.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda ...; a GPU where there is one.")] = None,
) -> None:
    """Find objects in images.

    The exit code is 1 if an image can't be read.
    """
    from boxwright import predict as predict_files

    tables = predict_files(images, checkpoint, output, batch_size, device, calibration)
    typer.echo(f"{len(tables.boxes):,} boxes in {len(tables.images):,} images: {output}")
    for fault in tables.faults:
        typer.echo(f"left out: {fault.message}", err=True)
    if tables.faults:
        raise typer.Exit(1)
