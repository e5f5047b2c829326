"""`boxwright evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: boxwright evaluate truth.json predictions.parquet --json numbers.json"


def evaluate(
    truth: Annotated[Path, typer.Argument(help="Truth, in any known format.")],
    predictions: Annotated[
        Path, typer.Argument(help="Predictions: Parquet, COCO results, or any format with scores.")
    ],
    json: Annotated[Path | None, typer.Option(help="Write the numbers there.")] = None,
    max_dets: Annotated[str, typer.Option(help="Limits of detections an image and class.")] = "1,10,100",
    truth_format: Annotated[str | None, typer.Option(help="Told from the path if left out.")] = None,
    truth_list: Annotated[str | None, typer.Option(help="VOC's list or YOLO's split.")] = None,
    truth_layout: Annotated[str | None, typer.Option(help="Of the text format.")] = None,
    predictions_format: Annotated[str | None, typer.Option(help="Told from the path if left out.")] = None,
    predictions_layout: Annotated[str | None, typer.Option(help="Of the text format.")] = None,
) -> None:
    """Judge predictions by COCO's metric: the twelve numbers and a table by class."""
    from boxwright import evaluate as evaluate_tables
    from boxwright.cli.options import read_source
    from boxwright.cli.tables import print_evaluation, write_json
    from boxwright.data import formats
    from boxwright.data.formats.options import ReadOptions
    from boxwright.errors import ConfigError

    try:
        limits = tuple(int(n) for n in max_dets.split(","))
    except ValueError:
        raise ConfigError(f"--max-dets {max_dets}: expected numbers such as 1,10,100.") from None
    truth_tables = read_source(truth, truth_format, truth_list, None, None, truth_layout)
    name = predictions_format or formats.guess_format(predictions)
    known = truth_tables if name == "coco-results" else None
    options = ReadOptions(layout=predictions_layout, truth=known)
    evaluation = evaluate_tables(truth_tables, formats.read(predictions, name, options), limits)
    print_evaluation(evaluation)
    if json is not None:
        write_json(evaluation.to_dict(), json)
