"""`boxwright evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = (
    "Example: boxwright evaluate truth.json a.parquet b.parquet --metric lrp --metric tide --report page.html"
)
METRIC_HELP = (
    "Beside COCO's: voc, voc-plus-one, oriented, oriented-coco, crowd, lrp, tide, tidecv, correction, bound, "
    "sensitivity, confidence, pdq, tubes, vehicle, intervals, or by-size, by-aspect, by-position, "
    "by-density, by-source, by-image:KEY, by-box:KEY. Repeat it for more."
)


def evaluate(
    truth: Annotated[Path, typer.Argument(help="Truth, in any known format.")],
    predictions: Annotated[
        list[Path],
        typer.Argument(help="Predictions of one model or more: Parquet, COCO results, or any with scores."),
    ],
    metric: Annotated[list[str] | None, typer.Option(help=METRIC_HELP)] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write an HTML page there, models side by side.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the numbers there.")] = None,
    max_dets: Annotated[str, typer.Option(help="Limits of detections an image and class.")] = "1,10,100",
    ious: Annotated[
        str | None, typer.Option(help="IoU grid, 0.5,0.6 for one; 0.50:0.95 if left out.")
    ] = None,
    areas: Annotated[str, typer.Option(help="Small is up to, large from, px^2.")] = "1024,9216",
    relative_areas: Annotated[bool, typer.Option(help="Areas are shares of the image.")] = False,
    class_agnostic: Annotated[bool, typer.Option(help="A box is right whatever its class.")] = False,
    resamples: Annotated[
        int,
        typer.Option(
            "--intervals",
            help="Bootstrap draws of images for 95 % intervals of every number; with several models, of the"
            " differences from the first. 0: none.",
            min=0,
        ),
    ] = 0,
    calibration: Annotated[
        Path | None, typer.Option(help="A file of `boxwright calibrate`, applied first.")
    ] = None,
    truth_format: Annotated[str | None, typer.Option(help="Told from the path if left out.")] = None,
    truth_list: Annotated[str | None, typer.Option(help="VOC's list or YOLO's split.")] = None,
    truth_layout: Annotated[str | None, typer.Option(help="Of the text format.")] = None,
    predictions_format: Annotated[str | None, typer.Option(help="Told from the path if left out.")] = None,
    predictions_layout: Annotated[str | None, typer.Option(help="Of the text format.")] = None,
) -> None:
    """Judge predictions by COCO's and other metrics.

    COCO's twelve numbers, a table by class, any other metric; several models side by side.
    """
    from boxwright import evaluate as evaluate_tables
    from boxwright.cli.options import numbers, read_predictions, read_source, skip_blas, unique_names
    from boxwright.cli.tables import (
        print_evaluation,
        print_intervals,
        print_models,
        print_readings,
        write_json,
    )
    from boxwright.errors import ConfigError
    from boxwright.evaluation.pairing import read_pair

    skip_blas()
    limits = numbers("--max-dets", max_dets)
    if any(n != int(n) for n in limits):
        raise ConfigError(f"--max-dets {max_dets}: expected whole numbers such as 1,10,100.")
    limits = tuple(int(n) for n in limits)
    edges = numbers("--areas", areas, 2)
    judges = {}
    if metric:
        from boxwright.evaluation.metrics import find_metric

        judges = {name: find_metric(name) for name in metric}
    true = read_source(truth, truth_format, truth_list, None, None, truth_layout)
    models = {}
    for name, path in zip(unique_names(predictions), predictions):
        found = read_predictions(path, predictions_format, predictions_layout, true)
        models[name] = read_pair(true, found, calibration)[1]
    grid = numbers("--ious", ious) if ious else None
    evaluations = {
        name: evaluate_tables(
            true, found, limits, None, grid, (edges[0], edges[1]), relative_areas, class_agnostic
        )
        for name, found in models.items()
    }
    if len(models) == 1:
        print_evaluation(next(iter(evaluations.values())))
    else:
        print_models(evaluations)
    readings = {
        m: {name: judge(true, found) for name, found in models.items()} for m, judge in judges.items()
    }
    for by_model in readings.values():
        print_readings(by_model)
    if resamples:
        print_intervals(true, models, judges, resamples, limits[-1])
    if json is not None:
        content = {
            name: e.to_dict() | {m: by_model[name].to_dict() for m, by_model in readings.items()}
            for name, e in evaluations.items()
        }
        write_json(next(iter(content.values())) if len(content) == 1 else content, json)
    if report is not None:
        from boxwright.evaluation.metrics import USUAL
        from boxwright.reporting.judgement import judgement_page

        page = judgement_page(report, true, models, tuple(metric or USUAL), limits)
        typer.echo(f"Report: {page}")
