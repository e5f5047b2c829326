"""`boxwright predict`."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: boxwright predict images/ --checkpoint runs/bccd -o predictions.parquet"


def predict(
    images: Annotated[Path, typer.Argument(help="An image or a folder of images.")],
    checkpoint: Annotated[
        list[Path],
        typer.Option(help="A run folder, a .safetensors or an exported .onnx file; several are fused."),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="predictions.parquet, or .json for COCO results.")
    ] = Path("predictions.parquet"),
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Images or tiles at a time; 8 images or 4.5 megapixels of tiles if left out.", min=1
        ),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="A file of `boxwright calibrate`, applied to what is found.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda ...; a GPU where there is one.")] = None,
    runtime: Annotated[
        str, typer.Option(help="torch, or onnx: faster on a processor, wants boxwright[onnx].")
    ] = "torch",
    views: Annotated[
        str | None,
        typer.Option(
            help="Flipped views to predict and fuse, such as plain,horizontal; default: the experiment's."
        ),
    ] = None,
    max_detections: Annotated[
        int | None,
        typer.Option(
            help="An image; the experiment's if left out, 10,000 with tiles. A warning names images that"
            " reach it.",
            min=1,
        ),
    ] = None,
    sweep: Annotated[
        int,
        typer.Option(
            help="Oriented boxes from a detector of upright ones: predicts each image at this many angles,"
            " for example 12.",
            min=0,
        ),
    ] = 0,
    tiles: Annotated[
        bool, typer.Option("--tiles", help="Predict large images tile by tile; implied by the options below.")
    ] = False,
    tile_size: Annotated[
        str | None,
        typer.Option(
            help="1280x1024, at most, in pixels of the network's input; chosen by the image if left out."
        ),
    ] = None,
    overlap: Annotated[
        float | None,
        typer.Option(help="Share of a tile that neighbours have in common; as objects are long if left out."),
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(help="Pixels of the input a pixel of the images; as in training if left out."),
    ] = None,
    object_width: Annotated[
        float | None, typer.Option(help="How wide objects are in these images, px; sets the scale.")
    ] = None,
    gsd: Annotated[
        float | None,
        typer.Option(help="Metres of ground a pixel; sets the scale, by the experiment's data.gsd."),
    ] = None,
    merge: Annotated[str | None, typer.Option(help="Of tiles: fuse, nms or soft; fuse if left out.")] = None,
) -> None:
    """Find objects in images.

    The exit code is 1 if an image can't be read.
    """
    from boxwright.cli.options import size_of, views_of
    from boxwright.config.places import find_checkpoint
    from boxwright.data.images import find_images

    # A wrong path is told before torch is imported.
    for place in checkpoint:
        find_checkpoint(place)
    find_images(images)
    seen = views_of(views) if views else None

    from boxwright import TilingOptions
    from boxwright import predict as predict_files

    given = {"overlap": overlap, "scale": scale, "object_width": object_width, "gsd": gsd, "merge": merge}
    given |= {"size": size_of("--tile-size", tile_size) if tile_size else None}
    given = {name: value for name, value in given.items() if value is not None}
    tiling = TilingOptions(**given) if tiles or given else None
    tables = predict_files(
        images,
        checkpoint,
        output,
        batch_size,
        device,
        calibration,
        seen,
        max_detections,
        tiling,
        sweep,
        runtime,
    )
    typer.echo(f"{len(tables.boxes):,} boxes in {len(tables.images):,} images: {output}")
    for fault in tables.faults:
        typer.echo(f"{'left out: ' if fault.dropped else ''}{fault}", err=True)
    if any(fault.dropped for fault in tables.faults):
        raise typer.Exit(1)
