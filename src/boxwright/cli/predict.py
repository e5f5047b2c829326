"""`boxwright predict`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from boxwright.errors import Fault

SHOWN = 20  # faults of a prediction in parts
EXAMPLE = "Example: boxwright predict images/ --checkpoint runs/bccd -o predictions.parquet"


def predict(
    images: Annotated[
        list[str],
        typer.Argument(help="Images, folders, patterns, lists (.txt); or a video, camera or address."),
    ],
    checkpoint: Annotated[
        list[Path],
        typer.Option(help="A run folder, a .safetensors or an exported file; several are fused."),
    ],
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "-o",
            "--output",
            help="By suffix: .parquet, .json (COCO results), .txt (MOT), .mp4 (boxes drawn), a folder"
            " (pictures with boxes); several are written. predictions.parquet if left out.",
        ),
    ] = None,
    to: Annotated[
        str | None, typer.Option(help="Format of the output: yolo, dota-results, mot, pictures ...")
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(help="Boxes below aren't drawn; the class's operating threshold if left out, else 0.3."),
    ] = None,
    every: Annotated[int, typer.Option(help="Of a video: predict one of so many frames.", min=1)] = 1,
    frames: Annotated[int | None, typer.Option(help="Of a video: stop after so many.", min=1)] = None,
    track: Annotated[
        str | None,
        typer.Option(help="Of a video: join boxes to tracks by byte or ocsort; those on none are left out."),
    ] = None,
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
    on: Annotated[
        str | None,
        typer.Option(
            help="ray: on a cluster, of images in folders, .tar or .parquet shards; -o is a folder."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Of --on ray: processes; one a GPU or a core if left out.", min=1)
    ] = None,
    part_size: Annotated[
        int | None, typer.Option(help="Of --on ray: images of a part; 256 if left out.", min=1)
    ] = None,
) -> None:
    """Find objects in images or in a video.

    The exit code is 1 if an image can't be read, and 130 after Ctrl-C, which ends a video early and writes
    what was found.
    """
    from boxwright.cli.options import size_of, views_of
    from boxwright.config.places import find_checkpoint
    from boxwright.data.images import list_images
    from boxwright.data.video import is_video
    from boxwright.tracking.options import TrackOptions

    # A wrong path or option is told before torch is imported.
    for place in checkpoint:
        find_checkpoint(place)
    if on is None and not any(is_video(place) for place in images):
        list_images(images)
    seen = views_of(views) if views else None
    tracking = None if track is None else TrackOptions(track)
    given = {"overlap": overlap, "scale": scale, "object_width": object_width, "gsd": gsd, "merge": merge}
    given |= {"size": size_of("--tile-size", tile_size) if tile_size else None}
    given = {name: value for name, value in given.items() if value is not None}
    cut = given if tiles or given else None
    of_videos = {"--frames": frames, "--track": track, "--every": None if every == 1 else every}
    options = {
        "batch_size": batch_size, "device": device, "calibration": calibration, "views": seen,
        "max_detections": max_detections, "sweep": sweep, "runtime": runtime,
    }  # fmt: skip
    if on is not None:
        others = of_videos | {"--to": to, "--min-score": min_score}
        found = [name for name, value in others.items() if value is not None]
        if on != "ray" or found or len(output or []) > 1:
            raise typer.BadParameter(
                f"--on {on} with {', '.join(found) or 'these outputs'}: expected --on ray, one folder -o, and"
                " nothing that is for videos or pictures."
            )
        folder = output[0] if output else Path("predictions")
        parts = {"workers": workers} | ({"part_size": part_size} if part_size else {})
        _predict_on_ray(images, checkpoint, folder, cut, options | parts)
    elif workers or part_size:
        raise typer.BadParameter("--workers and --part-size are for --on ray.")
    else:
        video = None if set(of_videos.values()) == {None} else (every, frames, tracking)
        outputs = output or [Path("predictions.parquet")]
        _predict_here(images, checkpoint, outputs, cut, video, options | {"to": to, "min_score": min_score})


def _predict_here(
    images: list[str],
    checkpoint: list[Path],
    outputs: list[Path],
    cut: dict | None,
    video: tuple | None,
    options: dict,
) -> None:
    from boxwright import TilingOptions, VideoOptions
    from boxwright import predict as predict_files

    tiling = None if cut is None else TilingOptions(**cut)
    of_video = None if video is None else VideoOptions(*video)
    tables = predict_files(images, checkpoint, outputs, tiling=tiling, video=of_video, **options)
    places = ", ".join(map(str, outputs))
    typer.echo(f"{len(tables.boxes):,} boxes in {len(tables.images):,} images: {places}")
    _tell_faults(tables.faults, len(tables.faults))


def _predict_on_ray(
    images: list[str], checkpoint: list[Path], output: Path, cut: dict | None, options: dict
) -> None:
    from boxwright.errors import import_extra

    import_extra("ray", "cluster")
    from boxwright import TilingOptions, predict_on_ray

    tiling = None if cut is None else TilingOptions(**cut)
    done = predict_on_ray(images, checkpoint, output, tiling=tiling, **options)
    rate = f", {done.images / done.seconds:,.1f} images/s" if done.images else "; nothing was missing"
    typer.echo(f"{done.boxes:,} boxes in {done.images:,} images: {done.folder}{rate}")
    if len(done.faults) > SHOWN:
        typer.echo(f"{len(done.faults):,} faults are in {done.folder / 'faults.csv'}; the first:", err=True)
    _tell_faults(done.faults, SHOWN)


def _tell_faults(faults: Sequence[Fault], most: int) -> None:
    """The first of them, and the exit code that they have."""
    for fault in faults[:most]:
        typer.echo(f"{'left out: ' if fault.dropped else ''}{fault}", err=True)
    if any(fault.code == "stopped" for fault in faults):
        raise typer.Exit(130)
    if any(fault.dropped for fault in faults):
        raise typer.Exit(1)
