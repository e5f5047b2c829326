"""`boxwright data track` and `boxwright data traffic`."""

from pathlib import Path
from typing import Annotated

import typer

from boxwright.cli.options import Angles, Format, Images, Target, To, output_of, read_source

EXAMPLES = {
    "track": "Example: boxwright data track predictions.parquet -o tracks.parquet --fill 10",
    "traffic": "Example: boxwright data traffic traffic.mp4 --count 500 --labels truth.parquet",
}


def track(
    source: Annotated[Path, typer.Argument(help="Boxes in the frames of one or several videos.")],
    target: Target = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File or folder to write.")] = None,
    method: Annotated[str, typer.Option(help="byte (ByteTrack) or ocsort (OC-SORT).")] = "byte",
    high: Annotated[
        float | None,
        typer.Option(help="Score of a strong box; the class's operating threshold if left out, else 0.5."),
    ] = None,
    low: Annotated[float, typer.Option(help="Score below which boxes are left out.")] = 0.1,
    overlap: Annotated[
        float | None, typer.Option(help="Least IoU with the predicted place; as published if left out.")
    ] = None,
    lost: Annotated[int, typer.Option(help="Frames after which an unseen track ends.", min=0)] = 30,
    across_classes: Annotated[
        bool, typer.Option("--across-classes", help="A track takes boxes of any class, and the likeliest.")
    ] = False,
    fill: Annotated[int, typer.Option(help="Fill gaps of so many frames along a line.", min=0)] = 0,
    smooth: Annotated[
        float | None,
        typer.Option(
            help="Smooth the angles of oriented boxes over so many frames, with headings from the motion.",
            min=0,
        ),
    ] = None,
    to: To = None,
    format: Format = None,
    images: Images = None,
    angles: Angles = None,
) -> None:
    """Join boxes to tracks through videos, upright or oriented.

    Frames are images in order; a video is their attribute "video", else their folder. Boxes on no track are
    left out. `boxwright evaluate --metric tracks` judges the result.
    """
    from boxwright.cli.tables import print_conversion
    from boxwright.data.builder import unpack
    from boxwright.data.conversion import convert
    from boxwright.data.smoothing import smooth_angles
    from boxwright.tracking.options import TrackOptions
    from boxwright.tracking.track import track as track_boxes

    target = output_of(output, target)
    options = TrackOptions(method, high, low, overlap, lost, across_classes)
    tables = read_source(source, format, None, images, angles=angles)
    tracked = track_boxes(tables, options, fill)
    if smooth is not None:
        tracked = smooth_angles(tracked, smooth)
    print_conversion(tracked, target, convert(tracked, target, to))
    videos, image = tracked.videos(), tracked.boxes["image_id"]
    attributes = [unpack(text) for text in tracked.boxes["attributes"]]
    count = len({(videos[i], a["track_id"]) for i, a in zip(image, attributes)})
    new = sum("interpolated" in a for a in attributes)
    left = len(tables.boxes) - len(tracked.boxes) + new
    typer.echo(f"{count:,} tracks in {len(set(videos)):,} videos; {left:,} boxes on none, {new:,} filled in")


def traffic(
    place: Annotated[Path, typer.Argument(help="A folder for images, or a video such as traffic.mp4.")],
    count: Annotated[int, typer.Option(help="Frames, 25 a second.", min=1)] = 250,
    size: Annotated[str, typer.Option(help="Width and height.")] = "640x480",
    seed: Annotated[int, typer.Option(help="Same seed, same frames.")] = 0,
    labels: Annotated[
        Path | None, typer.Option(help="Where the truth goes; PLACE with .parquet if left out.")
    ] = None,
) -> None:
    """Make a drone's video of synthetic traffic, with oriented boxes and tracks as truth."""
    from boxwright.cli.options import size_of
    from boxwright.cli.tables import print_lost
    from boxwright.data.conversion import convert
    from boxwright.data.traffic import make_traffic
    from boxwright.progress import progress_bar

    with progress_bar("draw", count) as tell:
        tables = make_traffic(place, count, size_of("--size", size), seed, tell)
    target = labels or place.with_suffix(".parquet")
    left = convert(tables, target)
    typer.echo(f"{count:,} frames: {place}; {len(tables.boxes):,} boxes: {target}")
    print_lost(left)
