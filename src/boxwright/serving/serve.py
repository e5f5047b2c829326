"""`boxwright.serve`: detectors behind an address, until somebody stops it."""

import logging
import os
import secrets
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import uvicorn

from boxwright.config.experiment import View
from boxwright.config.places import find_checkpoint
from boxwright.data.formats.files import sha256_of
from boxwright.errors import ConfigError
from boxwright.models.exported import ExportedDetector
from boxwright.prediction.predictor import open_predictor
from boxwright.progress import console
from boxwright.serving.app import create_app
from boxwright.serving.fetching import Sources
from boxwright.serving.limits import Limits
from boxwright.serving.listening import LOCAL, is_local, listen, protocol
from boxwright.serving.reloading import Reloader
from boxwright.serving.served import Served


def serve(
    checkpoints: Sequence[str | os.PathLike],
    host: str = "127.0.0.1",
    port: int = 8000,
    device: str | None = None,
    runtime: str | None = None,
    max_detections: int | None = None,
    limits: Limits | None = None,
    token: str | None = None,
    images: str | os.PathLike | None = None,
    fetch: Sequence[str] = (),
    watch: bool = False,
    views: Sequence[View] | None = None,
) -> None:
    """Answer requests for boxes; Ctrl-C or SIGTERM ends it once what has begun is answered.

    Args:
        checkpoints: as of `predict`, or NAME=CHECKPOINT; the name is the checkpoint's own if left out.
        host: address to listen at; another than this machine's wants a token, made where none is given.
        port: to listen at.
        device: "cpu", "cuda" ...; None: the processor.
        runtime: "torch" or "onnx"; None: onnx on a processor.
        max_detections: an image; None: the experiment's.
        limits: of requests.
        token: that every request must bring.
        images: folder whose images `GET /predict?image=` may name; None: none.
        fetch: hosts whose addresses it may name; private addresses are never asked.
        watch: checkpoints that change are loaded again, while requests go on.
        views: flips that each image is looked at in; None: those of the experiment.

    Raises:
        CheckpointError: a checkpoint can't be used.
        ConfigError: two models of one name, an address that can't be listened at, or a missing runtime.

    Example:
        >>> boxwright.serve(["runs/bccd"], port=8000)
    """
    limits = limits or Limits()
    if not is_local(host) and token is None:
        token = secrets.token_urlsafe(24)
    places = named(checkpoints)
    sources = Sources(None if images is None else Path(images), fetch, limits.bytes)

    def open_model(place: str) -> Served:
        return open_served(place, device, runtime, max_detections, limits, views)

    with listen(host, port) as (listening, address):
        models: dict[str, Served] = {}
        reloader = Reloader(models, places, open_model) if watch else None  # knows them as they are loaded
        models.update({name: open_model(place) for name, place in places.items()})
        hosts = (*LOCAL, host) if is_local(host) else ("*",)
        app = create_app(models, limits, token, hosts, sources, reloader)
        console.print(f"{address}  {', '.join(models)}", soft_wrap=True)
        for name, served in models.items():
            if (looks := len(served.predictor.views)) > 1:
                console.print(f"{name} looks at an image {looks} times; --views plain: once", soft_wrap=True)
        if token is not None:
            console.print(f"Authorization: Bearer {token}", soft_wrap=True)
        _log_to_stderr()
        config = uvicorn.Config(
            app, http=protocol(limits.seconds), log_level="warning", access_log=False, server_header=False,
            timeout_graceful_shutdown=round(limits.seconds), timeout_keep_alive=10,
        )  # fmt: skip
        uvicorn.Server(config).run(sockets=[listening])
        for served in models.values():
            served.close()


def named(checkpoints: Sequence[str | os.PathLike]) -> dict[str, str]:
    """Places of checkpoints by their names.

    Raises:
        ConfigError: none, or two of one name.
    """
    if not checkpoints:
        raise ConfigError("no checkpoint is given, expected one at least.")
    places = {}
    for given in map(str, checkpoints):
        name, _, place = given.rpartition("=")
        name = name or Path(place).stem
        if name in places:
            raise ConfigError(f"two models named '{name}'; NAME=CHECKPOINT gives them others.")
        places[name] = place
    return places


def open_served(
    place: str,
    device: str | None,
    runtime: str | None,
    max_detections: int | None,
    limits: Limits,
    views: Sequence[View] | None = None,
) -> Served:
    """A checkpoint that has seen one image, so that the first request doesn't wait."""
    digest = sha256_of(find_checkpoint(place))[:16]
    kind = runtime or ("torch" if device not in (None, "cpu") else "onnx")
    predictor = open_predictor(place, device or "cpu", views, max_detections, runtime=kind)
    width, height = predictor.loaded.config.image_size
    sample = predictor.fitted(np.zeros((height, width, 3), np.uint8))
    if not isinstance(predictor.model, ExportedDetector):
        sure = copy(predictor.model)  # that boxes are found, and what works on them is loaded too
        sure.selection = replace(sure.selection, score_threshold=0.0)
        replace(predictor, model=sure).find_fitted([sample])
    served = Served(predictor, limits, digest, max_detections)
    served.batcher.submit(sample).result()
    return served


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("boxwright.serving")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
