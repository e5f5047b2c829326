"""Options that several commands share, spelled once."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

if TYPE_CHECKING:
    from boxwright.config.experiment import View

FORMATS = "Told from the path if left out."
Format = Annotated[
    str | None, typer.Option("--format", help=f"Of the source, such as voc or coco. {FORMATS}")
]
To = Annotated[str | None, typer.Option("--to", help="Format to write; told from the suffix if left out.")]
ListName = Annotated[str | None, typer.Option("--list", help="VOC's list or YOLO's split, trainval for one.")]
Images = Annotated[
    Path | None, typer.Option("--images", help="Folder of the images, where it isn't beside the labels.")
]
Place = Annotated[
    str | None,
    typer.Option(
        "--place",
        help="copy or link: put the images into the new format's own layout. If left out, they are named"
        " where they are; linked where the format can't. (--images copy is the same.)",
    ),
]
Boxes = Annotated[str | None, typer.Option("--boxes", help="Which box of a person: full, visible, head.")]
Layout = Annotated[str | None, typer.Option("--layout", help="Of the text format: xyxy, xywh, relative.")]
Angles = Annotated[
    str | None,
    typer.Option(
        "--angles",
        help="Convention of oriented boxes: radians, degrees (clockwise), radians-ccw, degrees-ccw, le90,"
        " le135, oc, opencv-old, opencv-new, torchvision, detectron2, ultralytics. Guessed, and told, if left"
        " out.",
    ),
]
TruthFormat = Annotated[str | None, typer.Option("--truth-format", help="Told from the path if left out.")]
PredictionsFormat = Annotated[
    str | None, typer.Option("--predictions-format", help="Told from the path if left out.")
]
TruthImages = Annotated[
    Path | None,
    typer.Option(
        "--truth-images",
        help="COCO file with the ids by which COCO results name images and categories, for truth that"
        " has none (VOC, YOLO, odgt); joined by file name.",
    ),
]
Experiment = Annotated[Path, typer.Argument(help="An experiment's YAML file, a run folder or a checkpoint.")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", help="a.b.c=value, as for train; of a YAML file.")
]
Target = Annotated[Path | None, typer.Argument(hidden=True)]  # `-o` as it was once given
OldFrom = Annotated[str | None, typer.Option("--from", hidden=True)]
OldMaxDets = Annotated[str | None, typer.Option("--max-dets", hidden=True)]


def check_experiment(experiment: Path, changes: list[str] | None) -> None:
    """Tell what is wrong with a YAML file, or that there is no checkpoint, before torch is imported."""
    from boxwright.config import load_config
    from boxwright.config.places import find_checkpoint

    if experiment.suffix in (".yaml", ".yml"):
        load_config(experiment, changes)
    else:
        find_checkpoint(experiment)


def output_of(output: Path | None, target: Path | None) -> Path:
    """The place to write.

    Raises:
        ConfigError: none, or two.
    """
    from boxwright.errors import ConfigError

    place = output or target
    if place is None or (output and target):
        raise ConfigError("expected one place to write: -o PATH.")
    return place


def placing_of(images: Path | None, place: str | None):
    """The folder of a source's images, and how they are put into the target's layout.

    Raises:
        ConfigError: neither copy nor link.
    """
    from boxwright.errors import ConfigError

    if str(images) in ("copy", "link") and images is not None and not images.is_dir():
        images, place = None, str(images)
    if place not in (None, "copy", "link"):
        raise ConfigError(f"--place {place}: expected copy or link.")
    return images, place


def read_source(
    path: Path,
    format: str | None,
    list_name: str | None = None,
    images: Path | None = None,
    boxes: str | None = None,
    layout: str | None = None,
    angles: str | None = None,
):
    """Tables of a source as the options above describe it."""
    from boxwright.data import formats
    from boxwright.data.formats.options import ReadOptions

    return formats.read(path, format, ReadOptions(list_name, images, boxes, layout, angles))


def read_truth(path: Path, format: str | None, ids: Path | None = None, **options):
    """Tables of truth, with the image and category ids of the file `ids` where there is one."""
    truth = read_source(path, format, **options)
    if ids is None:
        return truth
    from boxwright.data.formats.coco_results import with_ids

    return with_ids(truth, read_source(ids, None))


def skip_blas() -> None:
    """Keep Numba from importing all of scipy, where that is installed, to find a BLAS that no kernel calls.

    It costs a quarter of a second. For commands that judge and nothing else: whatever came to need scipy in
    this process would not find it whole.
    """
    sys.modules.setdefault("scipy.linalg.cython_blas", None)  # pyright: ignore[reportArgumentType]


def read_predictions(path: Path, format: str | None, layout: str | None, angles: str | None, truth):
    """Tables of predictions; results of COCO and DOTA are of the images of `truth`."""
    from boxwright.data import formats
    from boxwright.data.formats.guessing import guess_or_none
    from boxwright.data.formats.options import ReadOptions

    known = truth if (format or guess_or_none(path)) in formats.OF_TRUTH else None
    return formats.read(path, format, ReadOptions(layout=layout, angles=angles, truth=known))


def numbers(option: str, text: str, count: int | None = None) -> list[float]:
    """Numbers between commas.

    Raises:
        ConfigError: something else, or not `count` of them.
    """
    from boxwright.errors import ConfigError

    try:
        values = [float(n) for n in text.split(",")]
    except ValueError:
        values = []
    if not values or (count is not None and len(values) != count):
        wanted = "numbers such as 1,10,100" if count is None else f"{count} numbers"
        raise ConfigError(f"{option} {text}: expected {wanted}.")
    return values


def size_of(option: str, text: str) -> tuple[int, int]:
    """Width and height out of 640x480.

    Raises:
        ConfigError: something else.
    """
    from boxwright.errors import ConfigError

    sides = numbers(option, text.replace("x", ","), 2)
    if min(sides) < 1 or any(side % 1 for side in sides):
        raise ConfigError(f"{option} {text}: expected two whole numbers such as 640x480.")
    return int(sides[0]), int(sides[1])


def views_of(text: str) -> "tuple[View, ...]":
    """Names of views between commas.

    Raises:
        ConfigError: an unknown one.
    """
    from typing import get_args

    from boxwright.config.experiment import View
    from boxwright.errors import ConfigError, nearest

    names = text.split(",")
    unknown = [name for name in names if name not in get_args(View)]
    if unknown:
        raise ConfigError(f"--views {text}: '{unknown[0]}' is none. {nearest(unknown[0], get_args(View))}")
    return tuple(cast("list[View]", names))


def unique_names(paths: list[Path]) -> list[str]:
    """Short unique names of files: their stems, after parent folders where stems repeat."""
    for depth in range(1, max(len(p.parts) for p in paths) + 1):
        names = ["/".join((*p.parts[-depth:-1], p.name.split(".")[0] or p.name)) for p in paths]
        if len(set(names)) == len(names):
            return names
    return [str(p) for p in paths]
