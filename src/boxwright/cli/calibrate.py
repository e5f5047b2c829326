"""`boxwright calibrate`."""

from pathlib import Path
from typing import Annotated

import typer

from boxwright.cli.options import PredictionsFormat, TruthFormat, TruthImages

EXAMPLE = "Example: boxwright calibrate val.json predictions.parquet -o calibration.json --by class"


def calibrate(
    truth: Annotated[Path, typer.Argument(help="Truth of a validation set, in any known format.")],
    predictions: Annotated[Path, typer.Argument(help="Predictions on it.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The calibration.")] = Path(
        "calibration.json"
    ),
    by: Annotated[str, typer.Option(help="A fit for all boxes, each class, or each source.")] = "class",
    folds: Annotated[int, typer.Option(help="Of the cross-validation.", min=2)] = 5,
    ious: Annotated[str | None, typer.Option(help="IoU grid; 0.50:0.95 if left out.")] = None,
    max_detections: Annotated[int, typer.Option(help="An image and class.", min=1)] = 100,
    report: Annotated[Path | None, typer.Option(help="Write an HTML page with the curves there.")] = None,
    truth_format: TruthFormat = None,
    truth_images: TruthImages = None,
    predictions_format: PredictionsFormat = None,
    old_max_dets: Annotated[int | None, typer.Option("--max-dets", hidden=True)] = None,
) -> None:
    """Fit what makes boxes and scores right.

    Factors of width and height, an angle, a temperature; `predict` and `evaluate` apply them.
    """
    import numpy as np

    from boxwright import calibrate as fit
    from boxwright.cli.options import numbers, read_predictions, read_truth, skip_blas
    from boxwright.cli.tables import print_calibration
    from boxwright.evaluation.coco import IOU_THRESHOLDS

    skip_blas()
    true = read_truth(truth, truth_format, truth_images)
    found = read_predictions(predictions, predictions_format, None, None, true)
    grid = np.array(numbers("--ious", ious)) if ious else IOU_THRESHOLDS
    calibration = fit(true, found, by, folds, grid, old_max_dets or max_detections)
    calibration.save(output)
    print_calibration(calibration)
    typer.echo(f"Calibration: {output}")
    if report is not None:
        from boxwright.reporting.judgement import calibration_page

        typer.echo(f"Report: {calibration_page(report, calibration)}")
