"""`boxwright evaluate`."""

from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from boxwright.cli.options import OldMaxDets, PredictionsFormat, TruthFormat, TruthImages

EXAMPLE = (
    "Example: boxwright evaluate truth.json a.parquet b.parquet --metric lrp --metric tide --report page.html"
)
METRIC_HELP = (
    "Beside COCO's: voc, voc-plus-one, oriented, oriented-coco, crowd, lrp, tide, tidecv, correction, bound, "
    "sensitivity, confidence, pdq, tubes, vehicle, landmarks, or by-size, by-aspect, by-position, "
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
    json: Annotated[
        Path | None, typer.Option(help="Write the numbers there; with --report, all that its page holds.")
    ] = None,
    max_detections: Annotated[
        str,
        typer.Option(
            help="Limits of detections an image and class; the last is AP's, TIDE's and the bounds'."
        ),
    ] = "1,10,100",
    ious: Annotated[
        str | None, typer.Option(help="IoU grid of COCO's AP, 0.5,0.6 for one; 0.50:0.95 if left out.")
    ] = None,
    areas: Annotated[str, typer.Option(help="COCO's small is up to, large from, px^2.")] = "1024,9216",
    relative_areas: Annotated[bool, typer.Option(help="Areas are shares of the image.")] = False,
    class_agnostic: Annotated[
        bool, typer.Option(help="COCO's numbers call a box right whatever its class.")
    ] = False,
    resamples: Annotated[
        int,
        typer.Option(
            "--intervals",
            help="Bootstrap draws of images for 95 % intervals of every number; with several models, of the"
            " differences from the first. Other metrics than COCO's are slow: 200 will do. 0: none.",
            min=0,
        ),
    ] = 0,
    calibration: Annotated[
        Path | None, typer.Option(help="A file of `boxwright calibrate`, applied first.")
    ] = None,
    truth_format: TruthFormat = None,
    truth_list: Annotated[str | None, typer.Option(help="VOC's list or YOLO's split.")] = None,
    truth_layout: Annotated[str | None, typer.Option(help="Of the text format.")] = None,
    truth_angles: Annotated[str | None, typer.Option(help="Convention of oriented boxes.")] = None,
    truth_images: TruthImages = None,
    predictions_format: PredictionsFormat = None,
    predictions_layout: Annotated[str | None, typer.Option(help="Of the text format.")] = None,
    predictions_angles: Annotated[str | None, typer.Option(help="Convention of oriented boxes.")] = None,
    old_max_dets: OldMaxDets = None,
) -> None:
    """Judge predictions by COCO's and other metrics.

    COCO's twelve numbers, a table by class, any other metric; several models side by side.
    """
    from boxwright import evaluate as evaluate_tables
    from boxwright.cli.options import numbers, read_predictions, read_truth, skip_blas, unique_names
    from boxwright.cli.tables import print_evaluation, print_models, print_readings, write_json
    from boxwright.data.formats.parts import is_parts
    from boxwright.errors import ConfigError
    from boxwright.evaluation.pairing import read_pair
    from boxwright.progress import track

    skip_blas()
    max_detections = old_max_dets or max_detections
    limits = numbers("--max-detections", max_detections)
    if any(n != int(n) for n in limits):
        raise ConfigError(f"--max-detections {max_detections}: expected whole numbers such as 1,10,100.")
    limits = tuple(int(n) for n in limits)
    edges = numbers("--areas", areas, 2)
    shown = tuple(metric or ())
    judges = {}
    if shown or report is not None:
        from boxwright.evaluation.metrics import USUAL, find_metric

        judges = {name: find_metric(name, limits[-1]) for name in shown or USUAL}
    options = {"list_name": truth_list, "layout": truth_layout, "angles": truth_angles}
    true = read_truth(truth, truth_format, truth_images, **options)
    grid = numbers("--ious", ious) if ious else None
    evaluations = {}
    whole = judges or resamples or calibration or relative_areas or class_agnostic
    for name, path in zip(unique_names(predictions), predictions):
        if is_parts(path) and predictions_format in (None, "parts") and not whole:
            from boxwright.evaluation.bounded import evaluate_parts  # one part in memory at a time

            evaluations[name] = evaluate_parts(true, path, limits, grid, (edges[0], edges[1]))
            continue
        theirs = read_predictions(path, predictions_format, predictions_layout, predictions_angles, true)
        found = read_pair(true, theirs, calibration)
        evaluations[name] = evaluate_tables(
            *found, limits, None, grid, (edges[0], edges[1]), relative_areas, class_agnostic
        )
    if len(evaluations) == 1:
        print_evaluation(next(iter(evaluations.values())))
    else:
        print_models(evaluations)
    readings = {}
    for name, judge in track("metrics", judges.items()):
        readings[name] = {model: judge(e.truth, e.predictions) for model, e in evaluations.items()}
    for name in shown:
        print_readings(readings[name])
    chance = {}
    if resamples or report is not None:
        from boxwright.evaluation.intervals import all_intervals

        drawn = {name: judges[name] for name in shown} if resamples else {}
        chance = all_intervals(evaluations, drawn, resamples or 300)
    if resamples:
        for reading in chain.from_iterable(chance.values()):
            print_readings({"": reading})
    if json is not None:
        write_json(_content(evaluations, readings, chance), json)
    if report is not None:
        from boxwright.reporting.judgement import judgement_page

        typer.echo(f"Report: {judgement_page(report, evaluations, readings, chance)}")


def _content(evaluations: dict, readings: dict, chance: dict) -> dict:
    """What the JSON file holds: of one model at the top, of several by name."""
    content = {}
    for model, evaluation in evaluations.items():
        content[model] = evaluation.to_dict()
        content[model] |= {metric: by_model[model].to_dict() for metric, by_model in readings.items()}
        if model in chance:
            content[model]["intervals"] = [reading.to_dict() for reading in chance[model]]
    return next(iter(content.values())) if len(content) == 1 else content
