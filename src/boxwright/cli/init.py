"""`boxwright init`."""

from pathlib import Path
from typing import Annotated

import typer

from boxwright.cli.options import Angles, Boxes, Format, Images, Layout, ListName

EXAMPLE = "Example: boxwright init my-data/ -o birds.yaml"


def init(
    source: Annotated[Path, typer.Argument(help="File or folder of annotations.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The experiment; NAME.yaml here if left out.")
    ] = None,
    val_share: Annotated[
        float,
        typer.Option(help="Of the images, to judge by, where the data has no such part.", min=0.01, max=0.9),
    ] = 0.2,
    seed: Annotated[int, typer.Option(help="Same seed, same split.")] = 0,
    labels: Annotated[
        str | None, typer.Option(help="A part of the label files' names, where a folder has several.")
    ] = None,
    format: Format = None,
    list_name: ListName = None,
    images: Images = None,
    boxes: Boxes = None,
    layout: Layout = None,
    angles: Angles = None,
) -> None:
    """Look at data and write an experiment for it.

    Detector, image size, classes and split are chosen by what is there, with a word on each in the file.
    """
    from boxwright.data.drafting import init as write_draft
    from boxwright.data.formats.options import ReadOptions

    options = ReadOptions(list_name, images, boxes, layout, angles)
    draft = write_draft(source, output, format, options, val_share, seed, labels)
    for sentence in draft.found:
        typer.echo(sentence)
    typer.echo(f"\nWritten: {draft.path}. Train it with:\n\n    boxwright train {draft.path}")
