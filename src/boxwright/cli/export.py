"""`boxwright export`."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: boxwright export runs/bccd -o bccd.onnx"


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A run folder or a .safetensors file.")],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="To write: .onnx, .xml of OpenVINO or .pt2 of torch.export."),
    ] = Path("model.onnx"),
    image_size: Annotated[
        str | None,
        typer.Option(help="Width and height that images are fitted into; the experiment's if left out."),
    ] = None,
    max_detections: Annotated[
        int | None, typer.Option(help="An image; the experiment's if left out.", min=1)
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Truth to judge by; the experiment's own images if left out.")
    ] = None,
    images: Annotated[int, typer.Option(help="To judge by at most; 0: judge nothing.", min=0)] = 100,
    tolerance: Annotated[
        float | None,
        typer.Option(help="AP that may be lost; else 0.001, in fewer bits 0.01.", min=0),
    ] = None,
    int8: Annotated[
        bool,
        typer.Option("--int8", help="Of an .onnx, convolutions in eight bits; training images tell ranges."),
    ] = False,
    fp16: Annotated[
        bool, typer.Option("--fp16", help="The network in float16, of OpenVINO its weights.")
    ] = False,
    raw: Annotated[
        bool,
        typer.Option("--raw", help="Candidates, for programs that suppress and vote."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write it though more is lost.")] = False,
) -> None:
    """Write a detector as one graph, from pixels to detections, judged beside the original.

    Normalising, decoding, suppression and vote are inside; any number of images of any size can be given to
    it. `boxwright predict --checkpoint model.onnx` takes it too.
    """
    from boxwright.cli.options import size_of
    from boxwright.cli.tables import print_rows
    from boxwright.config.places import check_export, find_checkpoint

    size = None if image_size is None else size_of("--image-size", image_size)
    check_export(output, int8, fp16)
    find_checkpoint(checkpoint)
    from boxwright import export as write

    done = write(checkpoint, output, size, max_detections, data, images, tolerance, force, int8, fp16, raw)
    if done.numbers is not None and done.milliseconds is not None and done.gap is not None:
        rows = [
            {
                "": which,
                **{name: pair[n] for name, pair in done.numbers.items()},
                "ms an image": done.milliseconds[n],
            }
            for n, which in enumerate(("original", output.name))
        ]
        print_rows(rows)
        typer.echo(
            f"{done.images:,} images; boxes differ by {done.gap[0]:.2g} px and scores by {done.gap[1]:.2g} at"
            f" most, {done.lost:,} detections are of one alone."
        )
    typer.echo(f"{done.bytes / 1e6:,.1f} MB: {done.path}")
