"""`boxwright benchmark`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: boxwright benchmark runs/bccd bccd.onnx --batch 1,8 -o benchmark.html"


def benchmark(
    checkpoints: Annotated[
        list[Path], typer.Argument(help="Run folders, .safetensors files, files of `export`.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="A page (.html), or the numbers (.json, .csv, .parquet)."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Truth of the images; each experiment's own if left out.")
    ] = None,
    images: Annotated[int, typer.Option(help="That are timed, the first ones.", min=1)] = 100,
    batch: Annotated[str, typer.Option(help="Images at once; several numbers between commas.")] = "1",
    image_size: Annotated[
        str | None, typer.Option(help="That images are fitted into; each experiment's if left out.")
    ] = None,
    threads: Annotated[
        str | None, typer.Option(help="Of the processor; several numbers between commas.")
    ] = None,
    runtimes: Annotated[str, typer.Option(help="torch, onnx or both.")] = "torch,onnx",
    device: Annotated[str | None, typer.Option(help="For torch; a GPU where there is one.")] = None,
) -> None:
    """Time detectors on the same images, beside their AP.

    Timed is what happens between fitted pixels in memory and detections, in one view, warmed up.
    """
    from boxwright.cli.options import numbers, size_of
    from boxwright.cli.tables import print_rows
    from boxwright.config.places import find_checkpoint
    from boxwright.errors import ConfigError

    if output is not None and output.suffix not in (".html", ".json", ".csv", ".parquet"):
        raise ConfigError(f"{output}: expected a .html, .json, .csv or .parquet to write.")
    for place in checkpoints:
        find_checkpoint(place)
    size = None if image_size is None else size_of("--image-size", image_size)
    sizes = [int(n) for n in numbers("--batch", batch)]
    counts = None if threads is None else [int(n) for n in numbers("--threads", threads)]
    from boxwright import benchmark as measure

    found = measure(checkpoints, data, images, sizes, size, counts, runtimes.split(","), device)
    rows = [asdict(timing) for timing in found]
    print_rows(
        [
            {
                "checkpoint": r["name"], "runtime": r["runtime"], "batch": r["batch"],
                "threads": r["threads"], "p50 ms": r["p50"], "p95 ms": r["p95"],
                "images/s": r["images_per_second"], "AP": r["ap"],
            }
            for r in rows
        ]
    )  # fmt: skip
    if output is not None and output.suffix == ".html":
        from boxwright.reporting.benchmark import write_benchmark

        write_benchmark(output, rows)
    elif output is not None:
        import polars as pl

        from boxwright.data.formats.files import write_frame

        write_frame(pl.DataFrame(rows), output)
    if output is not None:
        typer.echo(f"{len(rows)} rows: {output}")
