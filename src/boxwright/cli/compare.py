"""`boxwright compare`."""

from pathlib import Path
from typing import Annotated

import typer

from boxwright.cli.options import TruthImages

EXAMPLE = "Example: boxwright compare anna.json ben.json --report agreement.html"


def compare(
    a: Annotated[Path, typer.Argument(help="Labels or predictions, in any known format.")],
    b: Annotated[Path, typer.Argument(help="The other ones, over the same images.")],
    iou: Annotated[float, typer.Option(help="From which two boxes are the same.")] = 0.5,
    min_score: Annotated[float, typer.Option(help="Boxes of a lower score are left out.")] = 0.0,
    report: Annotated[Path | None, typer.Option(help="Write an HTML page with pictures there.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the numbers there.")] = None,
    pairs: Annotated[Path | None, typer.Option(help="Write matched pairs there, as Parquet.")] = None,
    a_format: Annotated[str | None, typer.Option(help="Told from the path if left out.")] = None,
    b_format: Annotated[str | None, typer.Option(help="Told from the path if left out.")] = None,
    truth_images: TruthImages = None,
) -> None:
    """What two sets of boxes agree on.

    Two annotators, two models, or old labels and new: what matches, and what only one has.
    """
    from boxwright import compare as compare_tables
    from boxwright.cli.options import read_predictions, read_truth, skip_blas, unique_names
    from boxwright.cli.tables import print_comparison, write_json

    skip_blas()
    first = read_truth(a, a_format, truth_images)
    comparison = compare_tables(first, read_predictions(b, b_format, None, None, first), iou, min_score)
    print_comparison(comparison)
    if json is not None:
        write_json(comparison.to_dict(), json)
    if pairs is not None:
        comparison.pairs.write_parquet(pairs)
    if report is not None:
        from boxwright.reporting.judgement import comparison_page

        names = unique_names([a, b])
        typer.echo(f"Report: {comparison_page(report, comparison, (names[0], names[1]))}")
