"""`boxwright data`: annotations and tables checked, judged, changed, counted and shown."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

import typer

from boxwright.cli import audit as audit_commands
from boxwright.cli import explore as explore_command
from boxwright.cli import track as track_commands
from boxwright.cli.options import (
    Angles,
    Boxes,
    Changes,
    Experiment,
    Format,
    Images,
    Layout,
    ListName,
    OldFrom,
    Place,
    Target,
    To,
    check_experiment,
    output_of,
    placing_of,
    read_source,
)

PARTS = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}  # as trainers call them
Together = Literal["videos", "places"]

app = typer.Typer(
    help="Check, audit, explore, convert, split, count and show annotations; fit anchors; track boxes.",
    no_args_is_help=True,
)


@app.command(epilog="Example: boxwright data check ../shared/data/bccd --format voc")
def check(
    source: Annotated[Path, typer.Argument(help="File or folder of annotations.")],
    format: Format = None,
    list_name: ListName = None,
    images: Images = None,
    boxes: Boxes = None,
    layout: Layout = None,
    angles: Angles = None,
    pixels: Annotated[bool, typer.Option(help="Decode every image too.")] = True,
    every: Annotated[
        bool, typer.Option("--all", help="Print each fault, not the first of each kind.")
    ] = False,
    json: Annotated[Path | None, typer.Option(help="Write all faults there.")] = None,
) -> None:
    """Name and count every fault; exit code 1 if any is an error."""
    from boxwright.cli.tables import print_faults
    from boxwright.data.checking import check as check_tables
    from boxwright.errors import DataError, Fault

    try:
        tables = read_source(source, format, list_name, images, boxes, layout, angles)
    except DataError as error:
        if not source.exists():
            raise
        tables, faults = None, [Fault("unreadable", "error", str(source), str(error), dropped=True)]
    else:
        faults = check_tables(tables, pixels)
    print_faults(tables, faults, every, json)
    if any(f.severity == "error" for f in faults):
        raise typer.Exit(1)


@app.command(epilog="Example: boxwright data convert VOC2007 -o truth.json --format voc")
def convert(
    source: Annotated[Path, typer.Argument(help="File or folder of annotations.")],
    target: Target = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File or folder to write.")] = None,
    to: To = None,
    place: Place = None,
    format: Format = None,
    list_name: ListName = None,
    images: Images = None,
    boxes: Boxes = None,
    layout: Layout = None,
    angles: Angles = None,
    old_from: OldFrom = None,
) -> None:
    """Write annotations in another format, and say what it can't hold.

    Parts that a data set has, such as train and val, stay apart where a folder is written: in the formats
    that `data split` writes.
    """
    from boxwright.cli.tables import print_conversion, print_notes, print_split
    from boxwright.data.conversion import convert as convert_tables
    from boxwright.data.conversion import lost
    from boxwright.data.formats import part_names, read_parts
    from boxwright.data.formats.options import ReadOptions
    from boxwright.data.splitting import PARTED, write_split
    from boxwright.data.tables import concat

    target = output_of(output, target)
    images, place = placing_of(images, place)
    format = format or old_from
    tables = read_source(source, format, list_name, images, boxes, layout, angles)
    names = part_names(source, format) if list_name is None else []
    if len(names) > 1 and to in PARTED and not target.suffix:
        parts = read_parts(source, format, ReadOptions(None, images, boxes, layout, angles))
        parts = {PARTS.get(name, name): part for name, part in parts.items()}
        print_split(parts, write_split(parts, target, to, place))
        written = concat(list(parts.values()))
        print_conversion(written, target, lost(written, to))
        if left := len(tables.images) - len(written.images):
            print_notes([f"{left:,} images are in none of these parts, and were left out."])
        return
    print_conversion(tables, target, convert_tables(tables, target, to, place))
    if len(names) > 1:
        print_notes([f"{', '.join(names)} are together in it."])


@app.command(epilog="Example: boxwright data split labels.json -o OUT --shares train=0.8,val=0.2 --seed 0")
def split(
    source: Annotated[Path, typer.Argument(help="File or folder of annotations.")],
    target: Target = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder to write.")] = None,
    shares: Annotated[str, typer.Option(help="Parts and their shares.")] = "train=0.8,val=0.2",
    seed: Annotated[int, typer.Option(help="Same seed, same split.")] = 0,
    together: Annotated[
        Together | None,
        typer.Option(
            help="What comes into one part: images of a video or folder, or those that show a piece of the"
            " same place, as far as key points tell. Left out: each image for itself."
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            help="Format to write: coco, parquet and the like, a file a part; yolo or voc, one data set with"
            " a list of each part. If left out, coco, or coco-angle where boxes are oriented.",
        ),
    ] = None,
    place: Place = None,
    format: Format = None,
    list_name: ListName = None,
    images: Images = None,
    boxes: Boxes = None,
    layout: Layout = None,
    angles: Angles = None,
) -> None:
    """Split images at random so that every class is shared out alike."""
    from boxwright.cli.tables import print_lost, print_split
    from boxwright.data.conversion import lost
    from boxwright.data.splitting import parse_shares, write_split
    from boxwright.data.splitting import split as split_tables

    target = output_of(output, target)
    images, place = placing_of(images, place)
    tables = read_source(source, format, list_name, images, boxes, layout, angles)
    parts = split_tables(tables, parse_shares(shares), seed, _groups(tables, together))
    name = to or ("coco-angle" if tables.has_angles() else "coco")
    print_split(parts, write_split(parts, target, name, place))
    print_lost(lost(tables, name))


def _groups(tables, together: str | None):
    """What each image belongs to; None: each to itself."""
    if together is None:
        return None
    groups = tables.videos()
    if together == "places":
        from boxwright.auditing.fingerprints import fingerprint
        from boxwright.auditing.overlaps import find_places
        from boxwright.progress import progress_bar

        with progress_bar("look at images", len(tables.images)) as tell:
            paths = tables.images["path"].to_list()
            groups = find_places(fingerprint(paths, [None] * len(paths), tell, points=True).points).tolist()
    sizes = Counter(groups).values()
    typer.echo(
        f"{len(sizes):,} {together} of {len(groups):,} images, {max(sizes, default=0):,} of one at most"
    )
    return groups


@app.command("formats", epilog="Example: boxwright data formats")
def list_formats() -> None:
    """List the formats that are read and written."""
    from boxwright.cli.tables import print_formats

    print_formats()


@app.command(epilog="Example: boxwright data stats ../shared/data/bccd --format voc")
def stats(
    source: Annotated[Path, typer.Argument(help="File or folder of annotations.")],
    format: Format = None,
    list_name: ListName = None,
    images: Images = None,
    boxes: Boxes = None,
    layout: Layout = None,
    angles: Angles = None,
    json: Annotated[Path | None, typer.Option(help="Write the numbers there.")] = None,
) -> None:
    """Count images and boxes; sizes and aspect ratios by class."""
    from boxwright.cli.tables import print_statistics
    from boxwright.data.statistics import stats as count

    tables = read_source(source, format, list_name, images, boxes, layout, angles)
    print_statistics(count(tables), json)


@app.command(epilog="Example: boxwright data show ../shared/data/bccd --format voc -o boxes.jpg --count 9")
def show(
    source: Annotated[Path, typer.Argument(help="File or folder of annotations.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Picture to write.")] = Path("boxes.jpg"),
    count: Annotated[int, typer.Option(help="Images in the picture.", min=1, max=100)] = 9,
    seed: Annotated[int, typer.Option(help="Chooses the images.")] = 0,
    min_score: Annotated[
        float | None,
        typer.Option(
            help="Predictions below it aren't drawn; if left out, the operating thresholds of their detector,"
            " else 0.3."
        ),
    ] = None,
    format: Format = None,
    list_name: ListName = None,
    images: Images = None,
    boxes: Boxes = None,
    layout: Layout = None,
    angles: Angles = None,
) -> None:
    """Draw boxes on images, side by side in one picture."""
    from boxwright.reporting.gallery import show as show_boxes

    tables = read_source(source, format, list_name, images, boxes, layout, angles)
    drawn = show_boxes(tables, output, count, seed, min_score)
    typer.echo(f"{drawn} images with their boxes: {output}")


@app.command(
    epilog="Example: boxwright data augment configs/bccd.yaml --set augment.pipeline=strong -o changed.jpg"
)
def augment(
    experiment: Experiment,
    output: Annotated[Path, typer.Option("-o", "--output", help="Picture to write.")] = Path("augmented.jpg"),
    count: Annotated[int, typer.Option(help="Images, a row each.", min=1, max=50)] = 4,
    variants: Annotated[int, typer.Option(help="Of each, beside the image as it is.", min=1, max=20)] = 3,
    seed: Annotated[int, typer.Option(help="Chooses the images and the changes.")] = 0,
    changes: Changes = None,
) -> None:
    """Draw training images as they are, and as an experiment changes them, with their boxes."""
    check_experiment(experiment, changes)
    from boxwright.training.augmented import show_augmented

    show_augmented(experiment, output, count, variants, seed, changes)
    typer.echo(
        f"{count} images, each as it is and {variants} times changed; ignored boxes are dashed: {output}"
    )


@app.command(epilog="Example: boxwright data anchors ../shared/data/bccd --format voc --image-size 416x416")
def anchors(
    source: Annotated[Path, typer.Argument(help="File or folder of annotations.")],
    count: Annotated[int, typer.Option(help="Anchors to fit.", min=1)] = 9,
    image_size: Annotated[
        str, typer.Option(help="Width and height that images are fitted into.")
    ] = "640x640",
    generations: Annotated[int, typer.Option(help="Of the genetic search after k-means.", min=0)] = 1000,
    seed: Annotated[int, typer.Option(help="Same seed, same anchors.")] = 0,
    format: Format = None,
    list_name: ListName = None,
    images: Images = None,
    boxes: Boxes = None,
    layout: Layout = None,
    angles: Angles = None,
    json: Annotated[Path | None, typer.Option(help="Write the anchors there.")] = None,
) -> None:
    """Fit anchors; tell their mean IoU and the recall they allow."""
    from boxwright.cli.options import size_of
    from boxwright.cli.tables import print_anchors, write_json
    from boxwright.data.anchors import fit_anchors

    size = size_of("--image-size", image_size)
    tables = read_source(source, format, list_name, images, boxes, layout, angles)
    fit = fit_anchors(tables, count, size, generations, seed)
    print_anchors(fit)
    if json is not None:
        write_json(fit.to_dict(), json)


@app.command(epilog="Example: boxwright data smooth tracked.parquet -o smooth.parquet --window 3")
def smooth(
    source: Annotated[Path, typer.Argument(help="Boxes whose attributes hold a track_id.")],
    target: Target = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File or folder to write.")] = None,
    window: Annotated[
        float, typer.Option(help="Frames that angles are averaged over, as a deviation; 0: none.", min=0)
    ] = 2.0,
    headings: Annotated[
        bool,
        typer.Option(
            "--headings/--no-headings", help="Rotate boxes by half a turn so that they point where they move."
        ),
    ] = True,
    to: To = None,
    format: Format = None,
    images: Images = None,
    angles: Angles = None,
    old_from: OldFrom = None,
    old_fronts: Annotated[bool | None, typer.Option("--fronts/--no-fronts", hidden=True)] = None,
) -> None:
    """Make the angles of oriented boxes agree along their tracks through a video."""
    from boxwright.cli.tables import print_conversion
    from boxwright.data.conversion import convert as convert_tables
    from boxwright.data.smoothing import smooth_angles

    target = output_of(output, target)
    headings = headings if old_fronts is None else old_fronts
    tables = read_source(source, format or old_from, None, images, angles=angles)
    tables = smooth_angles(tables, window, headings)
    print_conversion(tables, target, convert_tables(tables, target, to))


for command in (audit_commands.audit, audit_commands.corrupt, audit_commands.repair, audit_commands.images):
    app.command(epilog=audit_commands.EXAMPLES[command.__name__])(command)

app.command(epilog=explore_command.EXAMPLE)(explore_command.explore)

for command in (track_commands.track, track_commands.traffic):
    app.command(epilog=track_commands.EXAMPLES[command.__name__])(command)
