"""`boxwright label`, and its `report`, `import` and `export`."""

import getpass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from boxwright.cli.options import Angles, Boxes, Format, Images, Layout, ListName, To, read_source

EXAMPLE = "Example: boxwright label labels.json --checkpoint runs/bccd --audit audit/audit.parquet"
REPORT_EXAMPLE = "Example: boxwright label report review.sqlite -o corrections.parquet"
IMPORT_EXAMPLE = "Example: boxwright label import review.sqlite annotations.xml --person anna --accept"
EXPORT_EXAMPLE = "Example: boxwright label export review.sqlite -o corrected.json --to coco"
OPEN = "open"
StoreFile = Annotated[Path, typer.Argument(help="File of a review, .sqlite.")]


class _OpensByDefault(TyperGroup):
    """`label DATA` is `label open DATA`."""

    def parse_args(self, ctx, args):
        if args and args[0] not in self.commands and args[0] != "--help":
            args = [OPEN, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_OpensByDefault,
    help=f"Correct labels by hand in a browser: `boxwright label DATA`.\n\n{EXAMPLE}",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command(OPEN, epilog=EXAMPLE)
def label(
    source: Annotated[Path, typer.Argument(help="File or folder of annotations, or a folder of images.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="File of the review; it goes on where it is there.")
    ] = Path("review.sqlite"),
    checkpoint: Annotated[
        Path | None, typer.Option(help="Run whose predictions stand beside the labels.")
    ] = None,
    predictions: Annotated[Path | None, typer.Option(help="Table of predictions, in its place.")] = None,
    audit: Annotated[
        Path | None, typer.Option(help="Of `data audit`: suspicions, and the order of images.")
    ] = None,
    next_images: Annotated[
        Path | None, typer.Option("--next", help="Of `loop`: images to be reviewed first.")
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(help="Such as car,truck: more than the labels have, or all where there are none."),
    ] = None,
    draw: Annotated[
        str | None,
        typer.Option(help="upright, oriented or headings: boxes that are drawn; the labels' if left out."),
    ] = None,
    min_score: Annotated[float, typer.Option(help="Of predictions that are shown.", min=0, max=1)] = 0.3,
    person: Annotated[str | None, typer.Option(help="Who corrects; the login if left out.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; others than localhost want a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Port to listen at.", min=0, max=65535)] = 8765,
    token: Annotated[str | None, typer.Option(help="That a browser must bring; made where needed.")] = None,
    format: Format = None,
    list_name: ListName = None,
    images: Images = None,
    boxes: Boxes = None,
    layout: Layout = None,
    angles: Angles = None,
) -> None:
    """Correct labels by hand in a browser, or draw them from nothing on a folder of images.

    The page is made for the keyboard (? shows the keys): accept, delete, draw, move, turn, class by digit,
    undo. Every action is saved when it is made; the labels' own file stays as it is until `label export`.
    """
    from boxwright.errors import ConfigError, import_extra

    serving = import_extra("boxwright.labeling.serve", "label")
    import numpy as np

    from boxwright.auditing.schema import SUSPICION_SCHEMA
    from boxwright.data.formats.files import read_frame
    from boxwright.labeling.app import make_help
    from boxwright.labeling.blank import with_classes
    from boxwright.labeling.loop import read_next
    from boxwright.labeling.store import Store, shape_of

    if checkpoint is not None and predictions is not None:
        raise ConfigError("--checkpoint and --predictions: expected one of both.")
    own = _labels_of(source, (format, list_name, images, boxes, layout, angles))
    labels = with_classes(own, classes.split(",") if classes else [])
    if output.is_file() and len(labels.categories):
        Store(output, labels, draw).close()  # a review of other labels is told before anything is predicted
    predicted = _predicted(own, checkpoint, predictions, output)
    if not len(labels.categories) and predicted is not None:
        labels = with_classes(labels, predicted.categories["name"].to_list())
    if not len(labels.categories):
        raise ConfigError(f"{source} has no labels: name the classes that are drawn, --classes car,truck.")
    if draw is None and predicted is not None and not len(labels.boxes) and not output.is_file():
        draw = shape_of(predicted)
    store = Store(output, labels, draw)
    found = None if predicted is None else _confident(labels, predicted, min_score)
    needed = {name: kind for name, kind in SUSPICION_SCHEMA.items() if name != "others"}
    suspicions = None if audit is None else read_frame(audit, needed, "the table of data audit")
    known = np.array([row["state"] == "accepted" for row in store.images()])
    help = make_help(labels, found, suspicions, known)
    if next_images is not None:
        help.orders["next round"] = read_next(next_images, labels)
    try:
        serving.serve(store, help, person or getpass.getuser(), host, port, token)
    finally:
        store.close()
        typer.echo(f"Review: {output}\nLabels: boxwright label export {output} -o labels.parquet")


def _labels_of(source: Path, options: tuple):
    """Labels, or the images of a folder that has none."""
    from boxwright.errors import DataError
    from boxwright.labeling.blank import blank_labels

    try:
        return read_source(source, *options)
    except DataError:
        if any(options) or not source.is_dir():
            raise
        return blank_labels(source)


def _predicted(labels, checkpoint: Path | None, predictions: Path | None, output: Path):
    """Predictions of the labels' images; those of a checkpoint are kept beside the review."""
    from boxwright.data import formats
    from boxwright.errors import import_extra

    if checkpoint is not None:
        predictions = output.with_suffix(".predictions.parquet")
        import_extra("boxwright.prediction.predict", "train").predict(labels, checkpoint, predictions)
    return None if predictions is None else formats.read(predictions)


def _confident(labels, predicted, min_score: float):
    """Predictions of a score, over the labels' images and classes; other classes are left out, and named."""
    import polars as pl

    from boxwright.evaluation.pairing import align

    names, own = set(labels.categories["name"]), predicted.categories["name"]
    boxes = predicted.boxes.filter(pl.col("score") >= min_score)
    known = own.is_in(names)[boxes["category_id"]]
    if not known.all():
        others = sorted({own[k] for k in boxes.filter(~known)["category_id"]})
        typer.echo(f"{(~known).sum():,} predictions of {', '.join(others)} are left out.", err=True)
    return align(labels, predicted.with_boxes(boxes.filter(known)))


@app.command(epilog=REPORT_EXAMPLE)
def report(
    store: StoreFile,
    other: Annotated[
        Path | None, typer.Argument(help="Another person's review of the same images: how far both agree.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Corrections to write: .parquet, .csv, .json."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Write those since a time (2026-11-28T09:00) or a run's begin (its folder)."),
    ] = None,
) -> None:
    """Tell what a review has corrected, what it took and saved, and how far two people agree."""
    from boxwright.cli.tables import print_rows
    from boxwright.data.formats.files import write_frame
    from boxwright.errors import ConfigError
    from boxwright.labeling.corrections import agreement, corrections, review
    from boxwright.labeling.store import Store

    if since is not None and output is None:
        raise ConfigError("--since chooses what is written; expected -o corrections.parquet with it.")
    after = None if since is None else _time(since)
    own = Store(store)
    found = review(own)
    print_rows([{"review": name, "value": value} for name, value in found.work.items()])
    for rows in (found.kinds, found.boxes, found.people):
        if rows:
            typer.echo("")
            print_rows(rows)
    if other is not None:
        typer.echo("")
        print_rows(agreement(own, Store(other)))
    if output is not None:
        table = corrections(own, after)
        write_frame(table, output)
        when = f" since {after:%Y-%m-%d %H:%M}" if after is not None else ""
        typer.echo(f"{len(table):,} corrections{when}: {output}")


def _time(text: str) -> datetime:
    """When a run was begun, or what a text says, in the local time zone where it names none."""
    from boxwright.errors import ConfigError

    config = Path(text) / "config.yaml"
    if config.is_file():
        return datetime.fromtimestamp(config.stat().st_mtime).astimezone()
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError as error:
        raise ConfigError(
            f"--since {text}: neither a run folder nor a time; expected the like of 2026-11-28T09:00."
        ) from error


@app.command("import", epilog=IMPORT_EXAMPLE)
def take_back(
    store: StoreFile,
    source: Annotated[Path, typer.Argument(help="Labels that were corrected elsewhere.")],
    person: Annotated[str, typer.Option(help="Who corrected them, or in what.")],
    accept: Annotated[bool, typer.Option(help="Their images are accepted.")] = False,
    format: Format = None,
    images: Images = None,
    layout: Layout = None,
    angles: Angles = None,
) -> None:
    """Take corrections from CVAT, Label Studio, LabelMe, FiftyOne or any other format into a review.

    What differs from the review becomes a person's actions: added, removed, moved, of another class.
    """
    from boxwright.cli.tables import print_rows
    from boxwright.labeling.exchange import take
    from boxwright.labeling.store import Store

    found = take(
        Store(store), read_source(source, format, None, images, None, layout, angles), person, accept
    )
    print_rows([{"boxes": kind, "count": count} for kind, count in found.most_common()])


@app.command(epilog=EXPORT_EXAMPLE)
def export(
    store: StoreFile,
    output: Annotated[Path, typer.Option("-o", "--output", help="Labels to write.")],
    to: To = None,
    accepted: Annotated[bool, typer.Option(help="Images that were accepted alone.")] = False,
) -> None:
    """Write the labels of a review as they are now, in any format."""
    import numpy as np

    from boxwright.cli.tables import print_conversion
    from boxwright.data.conversion import convert
    from boxwright.labeling.store import Store

    own = Store(store)
    tables = own.tables()
    if accepted:
        tables = tables.select_images(np.array([row["state"] == "accepted" for row in own.images()]))
    print_conversion(tables, output, convert(tables, output, to))
