"""`boxwright data audit`, `corrupt`, `repair` and `images`."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from boxwright.cli.options import Angles, Boxes, Format, Images, Layout, ListName, read_source, unique_names
from boxwright.errors import ConfigError

EXAMPLES = {
    "audit": "Example: boxwright data audit labels.json -o audit --minutes 60",
    "corrupt": "Example: boxwright data corrupt labels.json -o faulty.parquet --shares class=0.02",
    "repair": "Example: boxwright data repair labels.json audit/audit.parquet -o repaired.parquet",
    "images": "Example: boxwright data images train.json val.json -o images.html",
}
Labels = Annotated[Path, typer.Argument(help="File or folder of annotations.")]
Seed = Annotated[int, typer.Option(help="Same seed, same result.")]
LABELS, CONFIG = "labels.parquet", "experiment.yaml"


def audit(
    source: Labels,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")] = Path("audit"),
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="Of every image, by a model that hasn't learnt from them; if left out, folds are trained."
        ),
    ] = None,
    folds: Annotated[
        int, typer.Option(help="Each image is predicted by a detector trained on the others.", min=2, max=50)
    ] = 5,
    minutes: Annotated[float, typer.Option(help="For all folds together, about.", min=0.1)] = 60.0,
    epochs: Annotated[int | None, typer.Option(help="Of each fold, in place of minutes.", min=1)] = None,
    config: Annotated[
        Path | None, typer.Option(help="Experiment whose detector is trained; if left out, init's.")
    ] = None,
    others: Annotated[
        list[Path] | None,
        typer.Option("--other", help="Another person's labels of these images, shown beside each suspicion."),
    ] = None,
    ignore: Annotated[
        str | None, typer.Option(help="Classes whose boxes are neither objects nor background, as DontCare.")
    ] = None,
    answers: Annotated[
        Path | None, typer.Option(help="Of `data corrupt`: tells what was found of the planted faults.")
    ] = None,
    seed: Seed = 0,
    format: Format = None,
    list_name: ListName = None,
    images: Images = None,
    boxes: Boxes = None,
    layout: Layout = None,
    angles: Angles = None,
) -> None:
    """Find labels that are wrong: missing, spurious, loose, shifted, double, of a wrong class or angle.

    Each suspicion has the probability that it is a fault, and the AP that its repair would gain. Stopped, the
    same command goes on with the fold that it was at.
    """
    from boxwright.auditing.planting import ANSWER_SCHEMA
    from boxwright.data import formats
    from boxwright.data.formats.files import read_frame
    from boxwright.data.sources import mark_ignored
    from boxwright.errors import import_extra
    from boxwright.evaluation.pairing import align

    labels = read_source(source, format, list_name, images, boxes, layout, angles)
    ignored = ignore.split(",") if ignore else []
    labels = mark_ignored(labels, ignored)
    planted = None if answers is None else read_frame(answers, ANSWER_SCHEMA, "the answers of data corrupt")
    import_extra("sklearn", "audit")
    paths = others or []
    drawn = {name: formats.read(path) for name, path in zip(unique_names(paths) if paths else [], paths)}
    for tables in drawn.values():
        align(labels, tables, scored=False)  # what doesn't fit is told before anything is trained
    output.mkdir(parents=True, exist_ok=True)
    formats.write(labels, output / LABELS)
    if predictions is None:
        predictions = output / "predictions.parquet"
        length = {"minutes": minutes / folds} if epochs is None else {"epochs": epochs, "minutes": None}
        content = _experiment(config, labels, output, length | {"seed": seed}, ignored)
        training = import_extra("boxwright.training.folds", "train")
        formats.write(training.out_of_fold(labels, content, output / "folds", folds, seed), predictions)

    from boxwright.auditing.scoring import score_audit
    from boxwright.cli.tables import print_rows
    from boxwright.reporting.audit import PAGE, TABLE
    from boxwright.reporting.audit import audit as judge
    from boxwright.reporting.audit_page import summarize

    found = judge(labels, predictions, output, seed, drawn)
    print_rows(summarize(found))
    if planted is not None:
        typer.echo("\nOf the planted faults:")
        print_rows(score_audit(found, planted))
    typer.echo(f"Table: {output / TABLE}\nPage: {output / PAGE}")
    typer.echo(
        f"Repair: boxwright data repair {output / LABELS} {output / TABLE} --above 0.9 -o repaired.parquet"
    )


def _experiment(config: Path | None, labels, output: Path, train: dict, ignored: list[str]) -> dict:
    """What each fold is trained by, written beside the result."""
    import yaml

    from boxwright.config import load_config
    from boxwright.data.formats.files import write_atomic
    from boxwright.data.suggesting import suggest

    if config is not None:
        content = load_config(config).model_dump(mode="json")
    else:
        content = suggest(labels, (output / LABELS).resolve())
    del content["train"]["epochs"]
    # Judged at the end alone: nothing is chosen by the images of a fold.
    content["train"] |= train | {"evaluate_every": 1_000_000}
    content["data"]["ignore"] = ignored
    write_atomic(output / CONFIG, yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode())
    return content


def corrupt(
    source: Labels,
    output: Annotated[Path, typer.Option("-o", "--output", help="Labels to write.")],
    answers: Annotated[
        Path | None, typer.Option(help="Table of what was planted; OUTPUT.answers.parquet if left out.")
    ] = None,
    shares: Annotated[
        str | None, typer.Option(help="Of the boxes, by kind; if left out, a few of each kind.")
    ] = None,
    strength: Annotated[str, typer.Option(help="Shift or growth of a location, in shares of a side.")] = (
        "0.15,0.4"
    ),
    seed: Seed = 0,
    format: Format = None,
    list_name: ListName = None,
    images: Images = None,
    boxes: Boxes = None,
    layout: Layout = None,
    angles: Angles = None,
) -> None:
    """Plant faults into labels, to see what an audit of one's own data finds.

    Kinds: missing, spurious, location, class, duplicate; of oriented boxes angle, and heading where angles
    tell front from back.
    """
    from boxwright.auditing.planting import STRENGTH
    from boxwright.auditing.planting import corrupt as plant
    from boxwright.cli.tables import print_lost, print_rows
    from boxwright.data.conversion import convert
    from boxwright.data.formats.files import write_frame

    wanted = None if shares is None else _numbers("--shares", shares)
    try:
        low, high = (float(part) for part in strength.split(","))
    except ValueError as error:
        raise ConfigError(f"--strength {strength}: expected {STRENGTH[0]:g},{STRENGTH[1]:g}.") from error
    labels = read_source(source, format, list_name, images, boxes, layout, angles)
    planted = plant(labels, wanted, (low, high), seed)
    left = convert(planted.tables, output)
    place = answers or output.with_name(f"{output.stem}.answers.parquet")
    write_frame(planted.answers, place)
    print_rows([dict(row) for row in planted.answers["kind"].value_counts(sort=True).iter_rows(named=True)])
    typer.echo(f"{len(planted.tables.boxes):,} labels: {output}; what is wrong with them: {place}")
    print_lost(left)


def _numbers(option: str, text: str) -> dict[str, float]:
    """`a=0.1,b=0.2` as a dict."""
    try:
        return {name.strip(): float(value) for name, value in (part.split("=") for part in text.split(","))}
    except ValueError as error:
        raise ConfigError(f"{option} {text}: expected missing=0.05,class=0.02 or the like.") from error


def repair(
    source: Labels,
    suspicions: Annotated[Path, typer.Argument(help="audit.parquet; with --undo, the record of repairs.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Labels to write.")],
    above: Annotated[float, typer.Option(help="Least probability of a fault.", min=0, max=1)] = 0.9,
    kinds: Annotated[
        str | None, typer.Option(help="Of faults, such as missing,class; all if left out.")
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take repairs back.")] = False,
    format: Format = None,
    list_name: ListName = None,
    images: Images = None,
    boxes: Boxes = None,
    layout: Layout = None,
    angles: Angles = None,
) -> None:
    """Repair labels that an audit suspects, into a new file; a record beside it takes the repairs back."""
    import polars as pl

    from boxwright.auditing.repair import RECORD_SCHEMA
    from boxwright.auditing.repair import repair as apply
    from boxwright.auditing.repair import undo as take_back
    from boxwright.cli.tables import print_lost, print_rows
    from boxwright.data.conversion import convert
    from boxwright.data.formats.files import read_frame, write_frame

    labels = read_source(source, format, list_name, images, boxes, layout, angles)
    if undo:
        table = read_frame(suspicions, RECORD_SCHEMA, "the record of repairs")
        left = convert(take_back(labels, table), output)
        typer.echo(f"{len(table):,} repairs taken back: {output}")
        print_lost(left)
        return
    table = read_frame(suspicions, {"probability": pl.Float64()}, "the table of an audit")
    done = apply(labels, table, above, kinds.split(",") if kinds else None)
    left = convert(done.tables, output)
    record = output.with_name(f"{output.stem}.repairs.parquet")
    write_frame(done.record, record)
    print_rows([{"kind": kind, "repaired": count} for kind, count in done.counts.items()])
    typer.echo(f"{len(done.record):,} repairs: {output}")
    print_lost(left)
    typer.echo(
        f"Take them back: boxwright data repair {output} {record} --undo -o {source.stem}-again.parquet"
    )


def images(
    sources: Annotated[
        list[Path],
        typer.Argument(help="Labels or folders of images, such as those to train and to judge by."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="A page, a .parquet or a .json.")] = Path(
        "images.html"
    ),
    format: Format = None,
    overlaps: Annotated[
        bool,
        typer.Option(
            help="Images of different sources that show a piece of the same place are looked for too."
        ),
    ] = True,
) -> None:
    """Find images that are there twice, mirrored and turned ones too, leak from one source, or part of a
    folder, into another or show a piece of its places, are dark, blurred or empty, or can't be read; exit
    code 1 if any leaks or can't be.
    """
    from boxwright.auditing.images import audit_images
    from boxwright.cli.tables import print_rows
    from boxwright.data.formats.files import write_frame
    from boxwright.errors import DataError
    from boxwright.progress import progress_bar
    from boxwright.reporting.images_page import summarize_images, write_images_page

    if output.suffix not in (".html", ".parquet", ".json"):
        raise DataError(f"{output}: expected a .html, .parquet or .json to write.")
    parts = {
        "/".join(filter(None, (name, part))) or path.resolve().name: tables
        for name, path in _named(sources).items()
        for part, tables in _with_images(path, format).items()
    }
    with progress_bar("look at images", sum(len(tables.images) for tables in parts.values())) as tell:
        found = audit_images(parts, tell, overlaps)
    if output.suffix == ".html":
        write_images_page(found, output, "Images of " + ", ".join(parts))
    else:
        write_frame(found, output)
    print_rows(summarize_images(found))
    typer.echo(f"{len(found):,} findings: {output}")
    if (found["severity"] == "error").any():
        raise typer.Exit(1)


def _named(paths: list[Path]) -> dict[str, Path]:
    """Paths by what tells them apart."""
    if len({path.resolve() for path in paths}) < len(paths):
        raise ConfigError("a source is given twice.")
    if len(paths) == 1:
        return {"": paths[0]}
    common = os.path.commonpath([path.resolve() for path in paths])
    return {os.path.relpath(path.resolve(), common): path for path in paths}


def _with_images(path: Path, format: str | None) -> dict[str, Any]:
    """Tables of a data set's parts, or of the images of a folder that has no labels."""
    from boxwright.data import formats
    from boxwright.data.sources import images_of
    from boxwright.errors import DataError

    try:
        return formats.read_parts(path, format)
    except DataError:
        if format is not None or not path.is_dir():
            raise
        return {"": images_of(path)}
