"""`boxwright data explore`."""

from pathlib import Path
from typing import Annotated

import typer

from boxwright.cli.options import Angles, Boxes, Format, Images, Layout, ListName, read_source

EXAMPLE = "Example: boxwright data explore labels.json --predictions runs/bccd -o explore.html"


def explore(
    source: Annotated[Path, typer.Argument(help="File or folder of annotations.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Page to write.")] = Path("explore.html"),
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="Of the same images, for hard examples; or a run folder, whose own images are shown."
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="A run or checkpoint whose backbone tells what boxes look like (extra: train)."),
    ] = None,
    crops: Annotated[
        int,
        typer.Option(help="Boxes that are arranged by what they look like (extra: audit); 0: none.", min=0),
    ] = 2000,
    iou: Annotated[
        float, typer.Option(help="From which a prediction has found an object.", min=0.01, max=1)
    ] = 0.5,
    score: Annotated[
        float, typer.Option(help="From which a wrong prediction is a confident mistake.", min=0, max=1)
    ] = 0.5,
    seed: Annotated[int, typer.Option(help="Chooses the boxes.")] = 0,
    format: Format = None,
    list_name: ListName = None,
    images: Images = None,
    boxes: Boxes = None,
    layout: Layout = None,
    angles: Angles = None,
) -> None:
    """Write a page to look through a data set: sizes, places, density, headings, sources, times and a map;
    boxes by what they look like, odd ones first; and what a detector finds hard.
    """
    from boxwright.config.places import find_checkpoint
    from boxwright.reporting.explore import explore as write

    if checkpoint is not None:
        find_checkpoint(checkpoint)
    tables = read_source(source, format, list_name, images, boxes, layout, angles)
    page = write(tables, output, predictions, checkpoint, crops, iou, score, seed, source.resolve().name)
    typer.echo(f"{len(tables.images):,} images with {len(tables.boxes):,} boxes: {page}")
