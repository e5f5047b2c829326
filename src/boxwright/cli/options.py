"""Options that several commands share, spelled once."""

from pathlib import Path
from typing import Annotated

import typer

Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="coco, coco-results, voc, yolo, odgt, citypersons, eurocity, text or parquet."
        " Told from the path if left out.",
    ),
]
ListName = Annotated[str | None, typer.Option("--list", help="VOC's list or YOLO's split, trainval for one.")]
Images = Annotated[
    Path | None, typer.Option("--images", help="Folder of the images, where it isn't beside the labels.")
]
Boxes = Annotated[str | None, typer.Option("--boxes", help="Which box of a person: full, visible, head.")]
Layout = Annotated[str | None, typer.Option("--layout", help="Of the text format: xyxy, xywh, relative.")]


def read_source(
    path: Path,
    format: str | None,
    list_name: str | None,
    images: Path | None,
    boxes: str | None,
    layout: str | None,
):
    """Tables of a source as the options above describe it."""
    from boxwright.data import formats
    from boxwright.data.formats.options import ReadOptions

    return formats.read(path, format, ReadOptions(list_name, images, boxes, layout))
