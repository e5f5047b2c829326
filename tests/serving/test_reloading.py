"""Newer checkpoints: no request is lost while one takes another's place, and a broken one changes nothing."""

import asyncio
import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient

from boxwright.errors import CheckpointError
from boxwright.serving.app import create_app
from boxwright.serving.limits import Limits
from boxwright.serving.reloading import Reloader
from boxwright.serving.served import Served
from tests.prediction.test_video import finder
from tests.serving.test_service import SQUARE, is_square

LIMITS = Limits(seconds=60.0, queue=1000)


def until(happened, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "detector.safetensors"
    path.write_text("first")
    return path


def opened(place: str) -> Served:
    """A detector whose digest is the file's text, and whose name too."""
    with open(place) as file:
        text = file.read()
    if text == "broken":
        raise CheckpointError("it is broken.")
    if text == "worse":
        raise KeyError("of a library")
    return Served(replace(finder(), name=text), LIMITS, text)


def put(checkpoint, text):
    """In one go: while it is written a file is empty, which two looks in a row may find."""
    fresh = checkpoint.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(checkpoint)


def test_no_request_is_lost_while_models_change(checkpoint):
    models = {"bright": opened(str(checkpoint))}
    reloader = Reloader(models, {"bright": str(checkpoint)}, opened, every=0.02)
    seen, digests = [models["bright"]], []
    with TestClient(create_app(models, LIMITS, reloader=reloader)) as client, ThreadPoolExecutor(8) as pool:
        stop = False

        def ask() -> None:
            while not stop:
                answer = client.post("/predict", content=SQUARE)
                assert answer.status_code == 200, answer.text
                assert is_square(answer.json()["images"][0]["boxes"][0])
                digests.append(answer.json()["digest"])

        asking = [pool.submit(ask) for _ in range(8)]
        for text in ("second", "third", "fourth"):
            until(lambda: len(digests) > 20 and digests[-1] == seen[-1].digest)
            put(checkpoint, text)
            until(lambda text=text: models["bright"].digest == text)
            seen.append(models["bright"])
        until(lambda: digests[-1] == "fourth")
        stop = True
        for asked in asking:
            asked.result(30)
        assert list(dict.fromkeys(digests)) == ["first", "second", "third", "fourth"]
        until(lambda: not any(old.batcher.alive or old.tiler.alive for old in seen[:-1]))
        assert client.get("/models").json()["bright"]["digest"] == "fourth"
        assert seen[-1].batcher.alive
    seen[-1].close()


def test_what_cannot_be_loaded_or_is_gone_changes_nothing(checkpoint, caplog):
    models = {"bright": opened(str(checkpoint))}
    first = models["bright"]
    reloader = Reloader(models, {"bright": str(checkpoint)}, opened, every=0.02)
    caplog.set_level(logging.INFO, "boxwright.serving")
    with TestClient(create_app(models, LIMITS, reloader=reloader)) as client:
        put(checkpoint, "broken")
        until(lambda: "it is broken" in caplog.text)
        put(checkpoint, "worse")
        until(lambda: "KeyError" in caplog.text)
        checkpoint.unlink()
        time.sleep(0.2)
        assert models["bright"] is first
        assert client.post("/predict", content=SQUARE).status_code == 200
        put(checkpoint, "mended")
        until(lambda: models["bright"].digest == "mended")
    told = [json.loads(r.getMessage()) for r in caplog.records if "reload" in r.getMessage()]
    assert [t["reload"] for t in told] == ["failed", "failed", "done"]
    models["bright"].close()


def test_a_file_that_is_still_written_is_left_alone(checkpoint):
    models = {"bright": opened(str(checkpoint))}
    reloader = Reloader(models, {"bright": str(checkpoint)}, opened)
    for n in range(3):
        checkpoint.write_text("part" * (n + 1))
        asyncio.run(reloader.check())
        assert models["bright"].digest == "first"
    asyncio.run(reloader.check())
    assert models["bright"].digest == "part" * 3
    models["bright"].close()
