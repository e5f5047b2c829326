"""`boxwright pseudo-label`."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = (
    "Example: boxwright pseudo-label unlabelled/ --checkpoint runs/teacher --precision 0.9 -o pseudo.parquet"
)


def pseudo_label(
    images: Annotated[Path, typer.Argument(help="An image or a folder of images.")],
    checkpoint: Annotated[Path, typer.Option(help="A run folder or a .safetensors file.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="A .parquet file.")] = Path("pseudo.parquet"),
    precision: Annotated[
        float | None, typer.Option(help="Of certain boxes, on the run's own validation images.", min=0, max=1)
    ] = None,
    score: Annotated[
        float | None,
        typer.Option(help="Threshold of all classes; with neither, the run's own.", min=0, max=1),
    ] = None,
    labelled: Annotated[
        Path | None, typer.Option(help="Truth of images that are left out, as they need no pseudo-labels.")
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Truth of these images, to see how many are right.")
    ] = None,
    views: Annotated[
        str | None, typer.Option(help="Flipped views to predict and fuse; default: the experiment's.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda ...; a GPU where there is one.")] = None,
) -> None:
    """Find objects in images without labels, to learn from.

    A source of an experiment with `role: pseudo` reads the file: boxes at their class's threshold or above it
    are objects, doubtful ones are neither objects nor background.
    """
    from boxwright.cli.options import views_of
    from boxwright.config.places import find_checkpoint
    from boxwright.data.images import find_images

    # A wrong path is told before torch is imported.
    find_checkpoint(checkpoint)
    find_images(images)
    seen = views_of(views) if views else None

    from boxwright import pseudo_label as label
    from boxwright.cli.tables import print_rows

    made = label(images, checkpoint, output, precision, score, labelled, truth, views=seen, device=device)
    print_rows(made.rows)
    typer.echo(f"{len(made.tables.boxes):,} boxes in {len(made.tables.images):,} images: {output}")
    typer.echo(f"Learn from them: train: [..., {{root: {output}, role: pseudo}}]")
