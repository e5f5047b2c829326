"""`boxwright threshold`."""

from pathlib import Path
from typing import Annotated

import typer

from boxwright.cli.options import PredictionsFormat, TruthFormat, TruthImages

EXAMPLE = "Example: boxwright threshold val.json predictions.parquet --precision 0.9"


def threshold(
    truth: Annotated[Path, typer.Argument(help="Truth of a validation set, in any known format.")],
    predictions: Annotated[Path, typer.Argument(help="Predictions on it.")],
    precision: Annotated[float | None, typer.Option(help="Wanted, for the most recall.")] = None,
    recall: Annotated[float | None, typer.Option(help="Wanted, for the most precision.")] = None,
    iou: Annotated[float, typer.Option(help="From which a detection is true.")] = 0.5,
    best: Annotated[str, typer.Option(help="Where neither is wanted: least lrp, or greatest f1.")] = "lrp",
    json: Annotated[Path | None, typer.Option(help="Write the thresholds there.")] = None,
    truth_format: TruthFormat = None,
    truth_images: TruthImages = None,
    predictions_format: PredictionsFormat = None,
) -> None:
    """Find the score threshold of each class.

    For a precision, for a recall, or (both left out) the best one.
    """
    from boxwright import threshold as find
    from boxwright.cli.options import read_predictions, read_truth, skip_blas
    from boxwright.cli.tables import print_readings, write_json

    skip_blas()
    true = read_truth(truth, truth_format, truth_images)
    found = read_predictions(predictions, predictions_format, None, None, true)
    reading = find(true, found, precision, recall, iou, best)
    print_readings({"": reading})
    if json is not None:
        write_json(reading.to_dict(), json)
