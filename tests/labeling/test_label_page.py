"""The review page in a real Chromium: keys, pointer, two people at once, a server that is killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from boxwright.auditing.schema import BOX, SUSPICION_SCHEMA
from boxwright.data import formats
from boxwright.data.synthetic import make_scenes
from boxwright.data.tables import Tables, frame
from boxwright.labeling.store import Store

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
WAIT = 30_000  # ms
HOSTILE = '<img src=x onerror="document.title=1">'


class Server:
    """`boxwright label` as a person starts it."""

    def __init__(self, labels: Path, store: Path, port: int = 0, more: tuple = ()):
        command = [sys.executable, "-m", "boxwright", "label", labels, "-o", store, "--port", port, *more]
        self.process = subprocess.Popen(
            [*map(str, command), "--person", "ada"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        self.told = []
        for line in self.process.stdout:
            self.told.append(line.strip())
            if line.startswith("http://localhost:"):
                break
        self.url = self.told[-1]
        assert self.url.startswith("http://localhost:"), self.told
        self.port = int(self.url.rpartition(":")[2])

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def labels(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    scenes = make_scenes(folder, 3, size=(320, 256))
    first = pl.when(pl.col("image_id") == 0).then(pl.lit(HOSTILE)).otherwise("file_name")
    names = scenes.categories["name"].to_list()
    categories = scenes.categories.with_columns(name=pl.Series([HOSTILE, *names[1:]]))
    made = Tables(scenes.images.with_columns(file_name=first), scenes.boxes, categories)
    formats.write(made, folder / "labels.parquet")
    return folder / "labels.parquet"


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def server(labels, tmp_path):
    made = Server(labels, tmp_path / "review.sqlite")
    yield made
    made.kill()


def opened(chromium, server):
    page = chromium.new_context(viewport={"width": 1100, "height": 700}).new_page()
    page.set_default_timeout(WAIT)
    page.trouble = []
    page.on("pageerror", lambda error: page.trouble.append(str(error)))
    page.goto(server.url)
    wait(page, "Boolean(window.review?.view?.levels) && review.state.boxes.length > 0")
    return page


def wait(page, script: str) -> None:
    """Until a script says true; the page's own policy forbids Playwright's way of waiting."""
    for _ in range(WAIT // 50):
        if page.evaluate(script):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"{script}: {page.evaluate('document.body.innerText')}")


def boxes(page) -> list[dict]:
    return page.evaluate("review.state.boxes.filter((b) => !b.gone).map((b) => ({ ...b }))")


def saved(page) -> None:
    wait(page, "document.getElementById('saved').textContent === 'all is saved'")


def stored(tmp_path) -> list[dict]:
    store = Store(tmp_path / "review.sqlite")
    found = store.boxes(0)
    store.close()
    return found


def drag(page, start: list[float], end: list[float]) -> None:
    """Between two places of the image."""
    frame = page.locator("#boxes").bounding_box()
    for n, place in enumerate((start, end)):
        x, y = page.evaluate("(p) => review.view.toScreen(p)", place)
        page.mouse.move(frame["x"] + x, frame["y"] + y, steps=1 if n == 0 else 8)
        (page.mouse.down if n == 0 else page.mouse.up)()


def test_draw_move_turn_and_undo(chromium, server, tmp_path):
    page = opened(chromium, server)
    before = boxes(page)
    page.keyboard.press("Escape")
    page.keyboard.press("2")
    page.keyboard.press("b")
    drag(page, [40, 50], [90, 80])
    saved(page)
    (drawn,) = [b for b in boxes(page) if b["box_id"] not in {o["box_id"] for o in before}]
    assert [drawn[n] for n in "xywh"] == pytest.approx([40, 50, 50, 30], abs=1)
    assert drawn["category_id"] == 1
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("e")
    page.keyboard.press("Shift+e")
    saved(page)
    after = next(b for b in stored(tmp_path) if b["box_id"] == drawn["box_id"])
    assert after["x"] == pytest.approx(drawn["x"] + 10)
    assert after["angle"] == pytest.approx(11 * 3.14159265 / 180)
    handle = page.evaluate(
        "import('/page/shapes.js').then((m) => m.handles(review.state.chosen(), true, 24 / review.view.scale)"
        ".find((h) => h.turn).at)"
    )
    middle = [after["x"] + after["w"] / 2, after["y"] + after["h"] / 2]
    drag(page, handle, [middle[0], middle[1] + 60])
    saved(page)
    turned = next(b for b in stored(tmp_path) if b["box_id"] == drawn["box_id"])
    assert turned["angle"] == pytest.approx(3.14159265 / 2, abs=0.05)
    page.keyboard.press("Delete")
    for _ in range(6):
        page.keyboard.press("Control+z")
    saved(page)
    assert [b["box_id"] for b in stored(tmp_path)] == [b["box_id"] for b in before]
    page.keyboard.press("Control+y")
    saved(page)
    assert len(stored(tmp_path)) == len(before) + 1
    assert page.trouble == []


def test_handles_pull_one_side_and_leave_the_other(chromium, server, tmp_path):
    page = opened(chromium, server)
    page.keyboard.press("Tab")
    page.keyboard.press("z")
    box = page.evaluate("({ ...review.state.chosen() })")
    script = """(uv) => import('/page/shapes.js').then((shapes) =>
        shapes.handles(review.state.chosen(), true, 9).find((h) => h.u === uv[0] && h.v === uv[1]).at)"""
    opposite, pulled = (page.evaluate(script, uv) for uv in ([-1, 0], [1, 0]))
    step = [(b - a) * 0.25 for a, b in zip(opposite, pulled)]
    drag(page, pulled, [p + s for p, s in zip(pulled, step)])
    saved(page)
    after = next(b for b in stored(tmp_path) if b["box_id"] == box["box_id"])
    assert after["w"] == pytest.approx(box["w"] * 1.25, rel=0.03)
    assert after["h"] == pytest.approx(box["h"])
    assert page.evaluate(script, [-1, 0]) == pytest.approx(opposite, abs=1e-6)


def test_hostile_names_are_text(chromium, server):
    page = opened(chromium, server)
    assert page.text_content("#name") == HOSTILE
    assert HOSTILE in page.text_content("#classes")
    assert page.locator("#classes img, header img").count() == 0
    assert page.title() == "boxwright label"
    assert page.trouble == []


def test_two_browsers_see_each_other(chromium, server):
    ada, bob = opened(chromium, server), opened(chromium, server)
    bob.fill("#person", "bob")
    bob.evaluate("document.getElementById('person').blur()")
    count = len(boxes(ada))
    ada.keyboard.press("Tab")
    ada.keyboard.press("Delete")
    bob.keyboard.press("b")
    drag(bob, [20, 20], [60, 70])
    for page in (ada, bob):
        wait(page, f"review.state.boxes.filter((b) => !b.gone).length === {count}")
        saved(page)
        wait(page, "document.getElementById('people').textContent.includes('bob')")
    assert {b["box_id"] for b in boxes(ada)} == {b["box_id"] for b in boxes(bob)}


def test_a_killed_server_loses_nothing(chromium, server, labels, tmp_path):
    page = opened(chromium, server)
    count = len(boxes(page))
    for n in range(3):
        page.keyboard.press("b")
        drag(page, [20 + 30 * n, 20], [40 + 30 * n, 60])
    saved(page)
    server.kill()
    assert len(stored(tmp_path)) == count + 3
    page.keyboard.press("b")
    drag(page, [20, 100], [60, 140])
    wait(page, "document.getElementById('saved').textContent.includes('answer')")
    again = Server(labels, tmp_path / "review.sqlite", server.port)
    try:
        saved(page)
        assert len(stored(tmp_path)) == count + 4
    finally:
        again.kill()


def test_accepting_goes_on_and_is_kept(chromium, server, tmp_path):
    page = opened(chromium, server)
    page.keyboard.press("Enter")
    wait(page, "document.getElementById('place').textContent.startsWith('2 / 3')")
    saved(page)
    store = Store(tmp_path / "review.sqlite")
    assert [row["state"] for row in store.images()] == ["accepted", "open", "open"]
    page.select_option("#only-state", "open")
    wait(page, "document.getElementById('place').textContent.startsWith('1 / 2')")
    done = subprocess.run(
        [sys.executable, "-m", "boxwright", "label", "report", str(tmp_path / "review.sqlite")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "images accepted" in " ".join(done.stdout.split())
    target = tmp_path / "out.json"
    command = [sys.executable, "-m", "boxwright", "label", "export", str(tmp_path / "review.sqlite")]
    subprocess.run(
        [*command, "-o", str(target), "--to", "coco", "--accepted"], check=True, capture_output=True
    )
    assert len(json.loads(target.read_text())["images"]) == 1


def test_what_the_model_and_the_audit_know_is_taken_by_a_key(chromium, labels, tmp_path):
    tables = formats.read(labels)
    first = tables.boxes.filter(image_id=0)
    found = tables.with_boxes(tables.boxes.with_columns(score=pl.lit(0.9), x=pl.col("x") + 2))
    formats.write(found, tmp_path / "found.parquet")
    names = tables.categories["name"]
    spurious, missing = first.row(0, named=True), first.row(1, named=True)
    rows = [
        {"kind": "spurious", "probability": 0.9, "row": 0, "category": names[spurious["category_id"]]}
        | {name: spurious[name] for name in BOX},
        {"kind": "missing", "probability": 0.8, "new_category": names[2]}
        | {f"new_{name}": missing[name] + (30.0 if name == "y" else 0.0) for name in BOX},
    ]
    blank = {"image_id": 0, "gain": 0.1, "file_name": HOSTILE}
    columns = {n: [(blank | row).get(n) for row in rows] for n in SUSPICION_SCHEMA}
    frame(SUSPICION_SCHEMA, columns).write_parquet(tmp_path / "audit.parquet")
    more = ("--predictions", tmp_path / "found.parquet", "--audit", tmp_path / "audit.parquet")
    server = Server(labels, tmp_path / "review.sqlite", more=more)
    try:
        page = opened(chromium, server)
        assert page.input_value("#queue") == "wrong labels"
        before = boxes(page)
        page.keyboard.press("s")
        assert page.evaluate("review.state.chosen().box_id") == before[0]["box_id"]
        page.keyboard.press("r")
        page.keyboard.press("r")
        saved(page)
        after = stored(tmp_path)
        assert before[0]["box_id"] not in [b["box_id"] for b in after]
        (added,) = [b for b in after if b["box_id"] > max(o["box_id"] for o in before)]
        assert (added["category_id"], added["origin"]) == (2, "model")
        assert added["y"] == pytest.approx(missing["y"] + 30)
        page.keyboard.press("f")
        page.keyboard.press("Tab")
        chosen = page.evaluate("({ ...review.state.chosen() })")
        page.keyboard.press("m")
        saved(page)
        moved = next(b for b in stored(tmp_path) if b["box_id"] == chosen["box_id"])
        assert moved["x"] in [pytest.approx(x + 2) for x in first["x"]]
        assert moved["x"] != chosen["x"]
        assert page.trouble == []
    finally:
        server.kill()


def test_boxes_are_drawn_from_nothing_on_a_folder_of_images(chromium, labels, tmp_path):
    tables = formats.read(labels)
    found = tables.boxes.filter(image_id=0).with_columns(score=pl.lit(0.9))
    names = pl.Series([f"{n:05d}.png" for n in range(len(tables.images))])
    known = Tables(tables.images.with_columns(file_name=names), found, tables.categories)
    formats.write(known, tmp_path / "found.parquet")
    wanted = f"wheel,{tables.categories['name'][2]}"
    more = ("--classes", wanted, "--draw", "headings", "--predictions", tmp_path / "found.parquet")
    (tmp_path / "images").mkdir()
    for path, name in zip(tables.images["path"], names):
        shutil.copy(path, tmp_path / "images" / name)
    server = Server(tmp_path / "images", tmp_path / "review.sqlite", more=more)
    try:
        others = found.filter(pl.col("category_id") != 2)
        assert server.told[0].startswith(f"{len(others)} predictions of <img src=x")
        page = chromium.new_context(viewport={"width": 1100, "height": 700}).new_page()
        page.goto(server.url)
        wait(page, "Boolean(window.review?.view?.levels)")
        assert boxes(page) == []
        page.keyboard.press("b")
        drag(page, [20, 30], [80, 60])
        saved(page)
        (box,) = stored(tmp_path)
        assert [box[name] for name in "xywh"] == pytest.approx([20, 30, 60, 30], abs=1.5)
        assert (box["category_id"], box["angle"]) == (0, 0.0)
        shown = page.evaluate("review.state.predictions.map((b) => b.category_id)")
        assert shown == [1] * (len(found) - len(others))
    finally:
        server.kill()


def test_ctrl_c_ends_it_with_where_the_labels_are(labels, tmp_path):
    server = Server(labels, tmp_path / "review.sqlite")
    time.sleep(1)
    server.process.send_signal(signal.SIGINT)
    text, _ = server.process.communicate(timeout=30)
    assert server.process.returncode in (0, 130, -2)
    assert "boxwright label export" in text
    assert "Traceback" not in text
