"""`boxwright calibrate`."""

from pathlib import Path
from typing import Annotated

import typer

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
    max_dets: Annotated[int, typer.Option(help="Detections an image and class.", min=1)] = 100,
    report: Annotated[Path | None, typer.Option(help="Write an HTML page with the curves there.")] = None,
    truth_format: Annotated[str | None, typer.Option(help="Told from the path if left out.")] = None,
    predictions_format: Annotated[str | None, typer.Option(help="Told from the path if left out.")] = None,
) -> None:
    """Fit what makes boxes and scores right.

    Factors of width and height, an angle, a temperature; `predict` and `evaluate` apply them.
    """
    import numpy as np

    from boxwright import calibrate as fit
    from boxwright.cli.options import numbers, read_predictions, read_source, skip_blas
    from boxwright.cli.tables import print_calibration
    from boxwright.evaluation.coco import IOU_THRESHOLDS

    skip_blas()
    true = read_source(truth, truth_format)
    found = read_predictions(predictions, predictions_format, None, None, true)
    grid = np.array(numbers("--ious", ious)) if ious else IOU_THRESHOLDS
    calibration = fit(true, found, by, folds, grid, max_dets)
    calibration.save(output)
    print_calibration(calibration)
    typer.echo(f"Calibration: {output}")
    if report is not None:
        from boxwright.reporting.judgement import calibration_page

        typer.echo(f"Report: {calibration_page(report, calibration)}")
