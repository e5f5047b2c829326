"""`boxwright serve`."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: boxwright serve runs/bccd cars=runs/hituav --port 8000"


def serve(
    checkpoints: Annotated[
        list[str], typer.Argument(help="Runs, .safetensors or exported files, or NAME=CHECKPOINT.")
    ],
    host: Annotated[str, typer.Option(help="Address to listen at; others than localhost want a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Port to listen at.", min=0, max=65535)] = 8000,
    device: Annotated[str | None, typer.Option(help="cpu, cuda ...; the processor if left out.")] = None,
    runtime: Annotated[
        str | None, typer.Option(help="torch or onnx; onnx on a processor if left out.")
    ] = None,
    max_detections: Annotated[
        int | None, typer.Option(help="An image; the experiment's if left out.", min=1)
    ] = None,
    views: Annotated[
        str | None, typer.Option(help="Flipped views to look in and fuse; default: the experiment's.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Images that the network sees at once.", min=1)] = 8,
    wait: Annotated[float, typer.Option(help="Milliseconds that a batch waits for more.", min=0)] = 5.0,
    queue: Annotated[int, typer.Option(help="Images that may wait; then 429.", min=1)] = 64,
    max_bytes: Annotated[int, typer.Option(help="Of a request.", min=1)] = 20_000_000,
    max_pixels: Annotated[int, typer.Option(help="Of an image.", min=1)] = 50_000_000,
    max_memory: Annotated[
        int, typer.Option(help="Bytes of bodies and pixels of all requests at a time; then 429.", min=1)
    ] = 600_000_000,
    max_images: Annotated[int, typer.Option(help="Of a request.", min=1)] = 16,
    timeout: Annotated[float, typer.Option(help="Seconds for a request.", min=0.1)] = 30.0,
    token: Annotated[
        str | None,
        typer.Option(envvar="BOXWRIGHT_TOKEN", help="That requests must bring; made where one is needed."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder whose images GET /predict?image=PATH may name.")
    ] = None,
    fetch: Annotated[
        list[str] | None, typer.Option(help="Host whose addresses it may name; repeat it for more.")
    ] = None,
    watch: Annotated[bool, typer.Option(help="Load checkpoints that change, while requests go on.")] = False,
) -> None:
    """Answer requests for boxes over HTTP: POST /predict, and a page to try it on.

    /openapi.json describes it; /models, /health, /ready and /metrics (Prometheus) are there.
    """
    from boxwright.config.places import find_checkpoint

    # A wrong path is told before torch is imported.
    for given in checkpoints:
        find_checkpoint(Path(given.rpartition("=")[2]))

    from boxwright.cli.options import views_of
    from boxwright.errors import import_extra

    seen = views_of(views) if views else None
    import_extra("fastapi", "serve")
    import_extra("multipart", "serve")
    limits = import_extra("boxwright.serving.limits", "serve").Limits(
        max_bytes, max_pixels, max_memory, max_images, queue, batch, wait / 1000, timeout
    )
    serving = import_extra("boxwright.serving.serve", "serve")
    serving.serve(
        checkpoints,
        host,
        port,
        device,
        runtime,
        max_detections,
        limits,
        token,
        images,
        fetch or (),
        watch,
        seen,
    )
