"""`boxwright card`."""

from pathlib import Path
from typing import Annotated

import typer

from boxwright.cli.options import Angles, Boxes, Format, Images, Layout, ListName, read_source

EXAMPLE = "Example: boxwright card runs/bccd --licence apache-2.0"


def card(
    source: Annotated[Path, typer.Argument(help="A finished run's folder, or annotations.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A .md or .html; card.md and card.html if left out.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Of the model or data, such as apache-2.0.")] = None,
    format: Format = None,
    list_name: ListName = None,
    images: Images = None,
    boxes: Boxes = None,
    layout: Layout = None,
    angles: Angles = None,
) -> None:
    """Write a model card of a run, or a data card of annotations.

    What it is, how good with intervals, where it fails, calibration, training and licence; Markdown with the
    metadata that Hugging Face reads, and HTML.
    """
    from boxwright.reporting.card import card as write_card

    tables = None
    if not (source / "config.yaml").is_file():
        tables = read_source(source, format, list_name, images, boxes, layout, angles)
    for path in write_card(source, output, licence, tables):
        typer.echo(f"Card: {path}")
