"""The service: right boxes in every notation, and no way to make it stumble."""

import asyncio
import base64
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

import boxwright
from boxwright.data.images import decode_upload, open_upload
from boxwright.errors import DataError
from boxwright.evaluation.operating import Operating, OperatingPoint
from boxwright.models.detections import Selection
from boxwright.serving import app
from boxwright.serving.app import create_app
from boxwright.serving.limits import Limits
from boxwright.serving.serve import open_served
from boxwright.serving.served import Served, coco_of
from tests.prediction.test_video import finder, moving_square, save_random

LIMITS = Limits(bytes=300_000, pixels=200_000, images=3, seconds=60.0)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


SQUARE = encoded(moving_square(5))  # x 23, y 40, 24 px wide and high


@pytest.fixture(scope="module")
def client():
    served = Served(finder(), LIMITS)
    with TestClient(create_app({"bright": served}, LIMITS), raise_server_exceptions=False) as made:
        yield made
    served.close()


def is_square(box: dict) -> bool:
    return box["class"] == "square" and [box[k] for k in "xywh"] == pytest.approx([23, 40, 24, 24], abs=1e-4)


def test_a_picture_in_every_way_that_it_can_come(client):
    raw = client.post("/predict", content=SQUARE, headers={"Content-Type": "image/png"}).json()
    files = [("images", ("a.png", SQUARE, "image/png")), ("images", ("b.png", SQUARE, "image/png"))]
    form = client.post("/predict?model=bright", files=files).json()
    texts = [base64.b64encode(SQUARE).decode(), "data:image/png;base64," + base64.b64encode(SQUARE).decode()]
    told = client.post("/predict", json={"images": texts}).json()
    curl = {"Content-Type": "application/x-www-form-urlencoded"}  # of --data-binary
    assert client.post("/predict", content=SQUARE, headers=curl).json() == raw
    assert raw["model"] == "bright"
    assert (raw["images"][0]["width"], raw["images"][0]["height"]) == (192, 128)
    for answer, count in ((raw, 1), (form, 2), (told, 2)):
        assert len(answer["images"]) == count
        assert all(len(i["boxes"]) == 1 and is_square(i["boxes"][0]) for i in answer["images"])


def test_answers_in_every_notation(client):
    coco = client.post("/predict?format=coco", content=SQUARE).json()
    assert coco[0]["category_id"] == 1
    assert coco[0]["bbox"] == pytest.approx([23, 40, 24, 24], abs=1e-4)
    picture = client.post("/predict?format=picture", content=SQUARE)
    assert picture.headers["content-type"] == "image/jpeg"
    pixels = np.asarray(Image.open(io.BytesIO(picture.content))).astype(int)
    assert pixels.shape == (128, 192, 3)
    assert np.ptp(pixels[52, 22:25], axis=1).max() > 40  # the outline has a colour, the picture none
    assert client.post("/predict?score=0.95", content=SQUARE).json()["images"][0]["boxes"] == []


def test_answers_of_many_boxes_are_the_same_and_leave_the_event_loop(client, monkeypatch):
    loops, write = [], app._answer

    def watched(*given):
        try:
            loops.append(asyncio.get_running_loop())
        except RuntimeError:
            loops.append(None)
        return write(*given)

    monkeypatch.setattr(app, "_answer", watched)
    few = client.post("/predict", content=SQUARE).json()
    monkeypatch.setattr(app, "FEW", 0)
    assert client.post("/predict", content=SQUARE).json() == few
    assert len(few["images"][0]["boxes"]) == 1
    assert [loop is None for loop in loops] == [False, True]


@pytest.mark.parametrize("kind", ["upright", "oriented", "landmarks"])
@pytest.mark.parametrize("score", [None, 0.0, 0.5])
def test_boxes_are_those_of_the_tables_that_predict_makes(kind, score):
    known = finder()
    point = OperatingPoint(0.4, 0.9, 0.9, 0.9, slope=0.5, shift=0.3)
    loaded = replace(known.loaded, categories=["a", "b"], operating=Operating({"b": point}))
    served = Served(replace(known, loaded=loaded), LIMITS)
    rng = np.random.default_rng(0)
    boxes = rng.uniform(-20, 200, (40, 4))
    size = rng.uniform(1, 90, (40, 2))
    boxes[:, 2:] = size if kind == "oriented" else boxes[:, :2] + size  # many of them beyond the borders
    more = {"upright": 0, "oriented": 1, "landmarks": 10}[kind]
    columns = [np.full(40, 3.0), rng.integers(0, 2, 40), rng.uniform(0.01, 0.99, 40), boxes]
    rows = np.column_stack([*columns, rng.uniform(-3, 3, (40, more))])
    tables = served.tables(rows, (192, 128), score)
    found = served.boxes(rows, (192, 128), score)
    expected = tables.boxes.sort("score", descending=True)
    assert 0 < len(found) <= 40
    names = ["a", "b"]
    assert [b["class"] for b in found] == [names[k] for k in expected["category_id"]]
    for name in ("score", *"xywh", *({"oriented": ["angle"], "landmarks": ["landmarks"]}.get(kind, []))):
        assert np.allclose([b[name] for b in found], expected[name].to_list(), atol=1e-12)
    hulls = tables.with_boxes(expected).upright()
    assert np.allclose([r["bbox"] for r in coco_of(found, 0)], hulls, atol=1e-9)
    assert served.boxes(rows[:0], (192, 128), score) == []
    served.close()


def test_a_large_picture_in_tiles():
    """Fitted whole into 192 x 128 the square has two pixels."""
    pixels = np.zeros((1280, 1920, 3), np.uint8)
    pixels[900:924, 1000:1024] = 255
    served = Served(finder(), Limits())
    client = TestClient(create_app({"bright": served}, Limits()))
    box = client.post("/predict?tiles=true", content=encoded(pixels)).json()["images"][0]["boxes"][0]
    assert [box[k] for k in "xywh"] == pytest.approx([1000, 900, 24, 24], abs=1e-4)
    assert client.post("/predict?tiles=maybe", content=SQUARE).status_code == 422
    served.tiled.model.selection = Selection(0.1, 0.5, 1, 1000)  # of a tile
    answer = client.post("/predict?tiles=true", content=encoded(pixels)).json()["images"][0]
    assert answer["at_limit"]
    assert len(answer["boxes"]) < served.tiled.limit
    served.close()


def test_images_of_any_shape_need_few_graphs(tmp_path):
    save_random(tmp_path / "random.safetensors")
    served = open_served(str(tmp_path / "random.safetensors"), None, None, None, Limits(wait=0.2))
    client = TestClient(create_app({"random": served}, Limits()))
    for width, height in ((192, 128), (100, 200), (70, 200), (60, 200), (300, 100), (300, 90), (10, 500)):
        picture = encoded(np.full((height, width, 3), 90, np.uint8))
        answer = client.post("/predict?score=0", content=picture).json()["images"][0]
        assert (answer["width"], answer["height"]) == (width, height)
        assert all(b["x"] >= 0 and b["x"] + b["w"] <= width + 1e-6 for b in answer["boxes"])
    sizes = {key[:2] for key in served.predictor.model.graphs}
    assert sizes <= {(h, w) for h in (32, 64, 96, 128) for w in (64, 128, 192)}
    served.close()


def test_what_the_service_tells_of_itself(client):
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").status_code == 200
    assert client.get("/models").json()["bright"]["classes"] == ["square"]
    assert "/predict" in client.get("/openapi.json").json()["paths"]
    assert 'boxwright_requests_total{path="/health",status="200"}' in client.get("/metrics").text
    page = client.get("/")
    assert "script" in page.text
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert len({client.get("/health").headers["x-request-id"] for _ in range(3)}) == 3


def bomb(side: int = 60_000) -> bytes:
    """A PNG whose header announces more pixels than a machine holds."""
    whole = bytearray(SQUARE)
    whole[16:24] = side.to_bytes(4, "big") * 2
    whole[29:33] = zlib.crc32(whole[12:29]).to_bytes(4, "big")
    return bytes(whole)


HOSTILE = [
    ({"content": b""}, 422),
    ({"content": b"text"}, 422),
    ({"content": SQUARE[:200]}, 422),
    ({"content": bomb()}, 422),
    ({"content": encoded(np.zeros((500, 500, 3), np.uint8))}, 422),  # too many pixels
    ({"content": encoded(np.zeros((10, 10, 3), np.uint8), "GIF")}, 422),
    ({"content": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>"}, 422),
    ({"content": bytes(400_000)}, 413),
    ({"content": iter([bytes(100_000)] * 4)}, 413),  # without a length
    ({"files": [("images", ("a.png", SQUARE))] * 4}, 413),
    ({"files": [("images", ("../../etc/passwd", b"root"))]}, 422),
    ({"content": b"--x", "headers": {"Content-Type": "multipart/form-data"}}, 422),
    ({"content": b"--x\r\n\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=y"}}, 422),
    ({"data": {"images": "file:///etc/passwd"}, "files": {"other": ("", b"")}}, 422),
    ({"json": {"images": ["file:///etc/passwd"]}}, 422),
    ({"json": {"images": ["http://169.254.169.254/latest"]}}, 422),
    ({"json": {"images": "x"}}, 422),
    ({"json": {"images": []}}, 422),
    ({"json": [1, 2]}, 422),
    ({"json": {"images": [base64.b64encode(bomb()).decode()]}}, 422),
    ({"content": b"[" * 100_000, "headers": {"Content-Type": "application/json"}}, 422),
    ({"content": b'{"images": [NaN]}', "headers": {"Content-Type": "application/json"}}, 422),
    ({"content": b"a=b", "headers": {"Content-Type": "application/x-www-form-urlencoded"}}, 422),
    ({"content": SQUARE, "headers": {"Content-Type": "text/plain"}}, 415),
    ({"content": SQUARE, "params": {"model": "../bright"}}, 404),
    ({"content": SQUARE, "params": {"score": "nan"}}, 422),
    ({"content": SQUARE, "params": {"score": "2"}}, 422),
    ({"content": SQUARE, "params": {"format": "xml"}}, 422),
]


@pytest.mark.parametrize(("asked", "status"), HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_request_is_refused_and_harms_nobody(client, asked, status):
    answer = client.post("/predict", **asked)
    assert answer.status_code == status, answer.text
    assert not any(word in answer.text for word in ("Traceback", "site-packages", "/src/", "PIL"))
    assert is_square(client.post("/predict", content=SQUARE).json()["images"][0]["boxes"][0])


@pytest.mark.parametrize(
    "path", ["/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/docs"]
)
def test_nothing_beside_the_page_is_served(client, path):
    assert client.get(path).status_code == 404


def test_random_damage_is_never_a_fault_of_the_service(client):
    rng = np.random.default_rng(0)
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF"):
        whole = encoded(moving_square(3), kind)
        for _ in range(40):
            damaged = bytearray(whole)
            for at in rng.integers(0, len(damaged), int(rng.integers(1, 20))):
                damaged[at] = int(rng.integers(256))
            answer = client.post("/predict", content=bytes(damaged[: int(rng.integers(1, len(damaged) + 1))]))
            assert answer.status_code in (200, 422), answer.text


def test_a_token_is_wanted_where_there_is_one():
    served = Served(finder(), LIMITS)
    client = TestClient(create_app({"bright": served}, LIMITS, "secret", ("testserver",)))
    assert client.get("/health").status_code == 200
    assert client.get("/models").status_code == 401
    assert (
        client.post("/predict", content=SQUARE, headers={"Authorization": "Bearer wrong"}).status_code == 401
    )
    good = {"Authorization": "Bearer secret"}
    assert client.post("/predict", content=SQUARE, headers=good).status_code == 200
    assert client.get("/models", headers=good | {"Host": "evil.example"}).status_code == 400
    served.close()


@contextmanager
def held_up(limits: Limits):
    """A client of a service whose network waits for an event, and that event."""
    go, served = threading.Event(), Served(finder(), limits)
    work = served.batcher._work
    served.batcher._work = lambda items: (go.wait(10), work(items))[1]
    yield TestClient(create_app({"bright": served}, limits)), go
    served.close()


def test_a_full_queue_says_when_to_come_back():
    with held_up(Limits(queue=1, batch=1, wait=0.0)) as (client, go):
        with ThreadPoolExecutor(12) as pool:
            asked = [pool.submit(client.post, "/predict", content=SQUARE) for _ in range(12)]
            while sum(a.done() for a in asked) < 9:
                threading.Event().wait(0.01)
            go.set()
            answers = [a.result(20) for a in asked]
        refused = [a for a in answers if a.status_code == 429]
        assert len(refused) >= 9
        assert all(a.headers["retry-after"] == "1" for a in refused)
        assert all(a.status_code in (200, 429) for a in answers)
        assert any(a.status_code == 200 for a in answers)


def test_bodies_and_pixels_of_all_requests_are_held_within_a_limit():
    with held_up(Limits(memory=90_000, batch=1, wait=0.0)) as (client, go):  # one picture of 192 x 128
        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(client.post, "/predict", content=SQUARE) for _ in range(4)]
            while sum(a.done() for a in asked) < 3:
                threading.Event().wait(0.01)
            go.set()
            assert sorted(a.result(20).status_code for a in asked) == [200, 429, 429, 429]
        two = [("images", ("a.png", SQUARE)), ("images", ("b.png", SQUARE))]
        assert client.post("/predict", files=two).status_code == 413
        assert client.post("/predict", content=SQUARE).status_code == 200  # nothing is held any more


def test_a_fault_of_ours_is_logged_and_told_without_its_traceback(caplog):
    served = Served(finder(), LIMITS)
    served.batcher._work = lambda items: 1 / 0
    client = TestClient(create_app({"bright": served}, LIMITS), raise_server_exceptions=False)
    answer = client.post("/predict", content=SQUARE)
    assert answer.status_code == 500
    assert answer.json() == {"error": "something went wrong here", "request": answer.headers["x-request-id"]}
    assert "ZeroDivisionError" in caplog.text
    served.close()


def test_a_header_is_believed_before_pixels_are_decoded():
    with pytest.raises(DataError, match="20000 x 20000, expected at most 1,000 pixels"):
        open_upload(bomb(20_000), 1000)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((4, 9, 3), np.uint8)).save(buffer, "JPEG", exif=exif)
    assert decode_upload(open_upload(buffer.getvalue())).shape == (9, 4, 3)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """`boxwright serve` as a person starts it, and its address."""
    folder = tmp_path_factory.mktemp("served")
    save_random(folder / "random.safetensors")
    command = [
        sys.executable,
        "-m",
        "boxwright",
        "serve",
        f"mine={folder / 'random.safetensors'}",
        "--port",
        "0",
    ]
    process = subprocess.Popen(
        [*command, "--max-detections", "5", "--views", "horizontal"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    told = []
    for line in process.stdout:
        told.append(line)
        if line.startswith("http://localhost:"):
            break
    assert told[-1].startswith("http://localhost:"), told
    yield process, told[-1].split()[0], folder
    process.kill()
    process.wait()


def test_the_command_answers_as_predict_does(server, tmp_path):
    _, address, folder = server
    (tmp_path / "square.png").write_bytes(SQUARE)
    views = ("horizontal",)  # other than the experiment's
    expected = boxwright.predict(
        tmp_path / "square.png", folder / "random.safetensors", max_detections=5, runtime="onnx", views=views
    ).boxes
    with ThreadPoolExecutor(8) as pool:
        url = f"{address}/predict?score=0"
        answers = list(pool.map(lambda _: httpx.post(url, content=SQUARE, timeout=30), range(24)))
    for answer in answers:
        boxes = answer.json()["images"][0]["boxes"]
        assert [b["score"] for b in boxes] == pytest.approx(expected["score"].to_list(), abs=1e-4)
        assert [b["x"] for b in boxes] == pytest.approx(expected["x"].to_list(), abs=0.05)
    assert answers[0].json()["images"][0]["at_limit"]
    assert httpx.get(f"{address}/models").json()["mine"]["views"] == [*views]


def until(page, condition: str) -> None:
    """Wait for a condition; the page's policy forbids Playwright's own way."""
    end = time.monotonic() + 30
    while not page.evaluate(condition):
        assert time.monotonic() < end, page.evaluate("document.getElementById('told').textContent")
        page.wait_for_timeout(50)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_page_draws_boxes_in_a_browser(server, tmp_path):
    from playwright.sync_api import sync_playwright

    _, address, _ = server
    (tmp_path / "square.png").write_bytes(SQUARE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        faults = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.goto(address)
        until(page, "document.getElementById('model').value === 'mine'")
        page.set_input_files("#file", str(tmp_path / "square.png"))
        until(page, "document.getElementById('told').textContent.endsWith('reached')")
        page.evaluate("score.value = 0; score.dispatchEvent(new Event('input'))")
        counts = page.evaluate(
            "[...document.querySelectorAll('#counts tr')].map((r) => +r.cells[1].textContent)"
        )
        assert sum(counts) == 5
        page.evaluate("score.value = 1; score.dispatchEvent(new Event('input'))")
        assert page.evaluate("document.querySelectorAll('#counts tr').length") == 0
        page.evaluate("score.value = 0; tiles.click()")  # asks again
        until(page, "!document.getElementById('told').textContent.endsWith('asked')")
        assert 1 <= page.evaluate("boxes.length") <= 5  # boxes of tiles are fused
        (tmp_path / "no.png").write_text("no picture")
        page.set_input_files("#file", str(tmp_path / "no.png"))
        until(page, "document.getElementById('told').className === 'error'")
        assert not faults, faults
        browser.close()


def test_a_stop_is_graceful(server):
    process, address, _ = server
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(httpx.post, f"{address}/predict", content=SQUARE, timeout=30) for _ in range(4)]
        assert all(a.result().status_code == 200 for a in asked)
    process.send_signal(signal.SIGTERM)
    assert process.wait(40) in (0, -signal.SIGTERM)
    lines = [line for line in process.stdout.read().splitlines() if line.startswith("{")]
    assert json.loads(lines[-1])["status"] == 200
