"""`boxwright model`: a look inside a detector."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from boxwright.cli.options import Changes, Experiment, check_experiment

app = typer.Typer(help="Look inside a detector.", no_args_is_help=True)
Json = Annotated[Path | None, typer.Option(help="Write the numbers there.")]


@app.command(epilog="Example: boxwright model summary runs/bccd --depth 3")
def summary(
    experiment: Experiment,
    depth: Annotated[int, typer.Option(help="Of the parts: 1 backbone, 2 its stages ...", min=1)] = 2,
    changes: Changes = None,
    json: Json = None,
) -> None:
    """Show parts, parameters, FLOPs, and receptive fields beside the data's box sizes."""
    check_experiment(experiment, changes)
    from boxwright.cli.tables import print_rows, write_json
    from boxwright.training.inspection import summarize

    found = summarize(experiment, depth, changes)
    parts = [
        {"part": p.name, "parameters": p.parameters, "trained": p.trained, "GFLOPs": round(p.gflops, 3)}
        | {"output": p.shape}
        for p in found.parts
    ]
    print_rows(parts, digits=3)
    typer.echo("\nReceptive fields of the pyramid's levels, pixels of the network's input:")
    print_rows(found.fields, digits=2)
    low, middle, high = found.sides
    typer.echo(f"Longer sides of the data's boxes: 5 % {low:.0f}, 50 % {middle:.0f}, 95 % {high:.0f} px.")
    if json is not None:
        write_json({"parts": parts, "fields": found.fields, "sides": found.sides}, json)


@app.command(epilog="Example: boxwright model activations runs/bccd --report inside.html")
def activations(
    experiment: Experiment,
    report: Annotated[
        Path | None,
        typer.Option(help="Write an HTML page there, with filters, feature maps and where queries look."),
    ] = None,
    image: Annotated[
        list[str] | None, typer.Option(help="File name of a training image; repeat it for more.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Print every layer, not the marked alone.")] = False,
    changes: Changes = None,
    json: Json = None,
) -> None:
    """Show what flows through each layer in a training step: dead, exploding and unused ones are marked."""
    check_experiment(experiment, changes)
    from boxwright.cli.tables import print_notes, print_rows, write_json
    from boxwright.training.inspection import activations as find
    from boxwright.training.inspection import flow_row

    flows, notes = find(experiment, report, image, changes)
    shown = ("layer", "marks", "mean", "deviation", "greatest", "dead", "gradient")
    rows = [flow_row(flow) for flow in flows if every or flow.marks]
    print_rows([{key: row[key] for key in shown} for row in rows], digits=2)
    typer.echo(f"{len(flows):,} layers, {sum(bool(flow.marks) for flow in flows):,} marked.")
    print_notes(notes)
    if json is not None:
        write_json([asdict(flow) for flow in flows], json)
    if report is not None:
        typer.echo(f"Report: {report}")


@app.command(epilog="Example: boxwright model filters runs/bccd -o filters.png")
def filters(
    experiment: Experiment,
    output: Annotated[Path, typer.Option("-o", "--output", help="Picture to write.")] = Path("filters.png"),
    changes: Changes = None,
) -> None:
    """Draw the filters of the first convolution."""
    check_experiment(experiment, changes)
    from boxwright.training.inspection import filters as draw

    name, count = draw(experiment, output, changes)
    typer.echo(f"{count} filters of {name}. Picture: {output}")
