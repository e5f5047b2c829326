"""The server of the review page, asked without a browser."""

import numpy as np
import polars as pl
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from boxwright.auditing.schema import SUSPICION_SCHEMA
from boxwright.data.synthetic import make_scenes
from boxwright.data.tables import frame
from boxwright.errors import ConfigError
from boxwright.labeling.app import PAGE, create_app, make_help
from boxwright.labeling.queues import describe, queues, unlike_order
from boxwright.labeling.serve import is_local, serve
from boxwright.labeling.store import Store
from boxwright.labeling.tiles import TILE, Tiles

ACTION = {"key": "a" * 12, "person": "ada", "image_id": 0}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return make_scenes(tmp_path_factory.mktemp("scenes"), 3, size=(160, 128))


@pytest.fixture
def store(tmp_path, scenes):
    return Store(tmp_path / "review.sqlite", scenes)


@pytest.fixture
def client(store, scenes):
    found = scenes.with_boxes(scenes.boxes.with_columns(score=pl.lit(0.7)))
    app = create_app(store, make_help(scenes, found, None), "ada")
    return TestClient(app, base_url="http://localhost")


def test_the_page_gets_what_it_shows(client, store, scenes):
    project = client.get("/api/project").json()
    assert project["categories"] == scenes.categories["name"].to_list()
    assert project["oriented"]
    assert len(project["images"]) == 3
    assert set(project["queues"]) == {"uncertainty", "disagreement", "to learn from"}
    image = client.get("/api/images/1").json()
    assert image["levels"][0] == [160, 128]
    assert len(image["boxes"]) == len(image["predictions"]) == (scenes.boxes["image_id"] == 1).sum()


def test_pages_and_scripts_are_there_and_nothing_else_may_run(client):
    for place in ("/", *(f"/page/{path.name}" for path in PAGE.iterdir())):
        response = client.get(place)
        assert response.status_code == 200
        assert "default-src 'self'" in response.headers["Content-Security-Policy"]
    assert client.get("/page/../app.py").status_code == 404
    assert client.get("/page/%2e%2e/app.py").status_code == 404


def test_actions_are_taken_and_seen_by_others(client, store):
    box = store.boxes(0)[0]
    shape = {name: box[name] for name in ("category_id", "x", "y", "w", "h", "angle")}
    asked = ACTION | {"box_id": box["box_id"], "version": 0, "after": shape | {"x": 3.0}}
    assert client.post("/api/actions", json=asked).json()["box"]["version"] == 1
    again = client.post("/api/actions", json=asked | {"key": "b" * 12})
    assert again.status_code == 409
    assert again.json()["box"]["x"] == 3.0
    seen = client.get("/api/changes", params={"since": 0, "person": "bob", "image": 0}).json()
    assert [b["x"] for b in seen["boxes"]] == [3.0]
    assert seen["people"] == [{"name": "bob", "image": 0}]


@pytest.mark.parametrize(
    "asked",
    [
        {"after": {"category_id": 0, "x": 1, "y": 1, "w": -1, "h": 1, "angle": 0}},
        {"after": {"category_id": 0, "x": 1, "y": 1, "w": 1, "h": 1}},
        {"after": {"category_id": 0, "x": "1e999", "y": 1, "w": 1, "h": 1, "angle": 0}},
        {"state": "gone"},
        {"image_id": -1},
        {"person": ""},
        {"key": "short"},
        {"surprise": 1},
    ],
)
def test_nonsense_is_refused(client, store, asked):
    assert client.post("/api/actions", json=ACTION | asked).status_code in (400, 422)
    assert store.last_action() == 0


def test_a_page_elsewhere_cannot_ask(client):
    assert client.get("/api/project", headers={"Host": "evil.example"}).status_code == 400
    # What a form of another page can send is no JSON.
    plain = {"Content-Type": "text/plain"}
    assert client.post("/api/actions", content="{}", headers=plain).status_code == 422
    assert client.post("/api/actions", content=b"x" * 70_000).status_code == 413


def test_others_than_this_machine_bring_a_token(store, scenes):
    app = create_app(store, make_help(scenes, None, None), "ada", "secret", ("*",))
    client = TestClient(app, base_url="http://10.0.0.1")
    assert client.get("/api/project").status_code == 401
    assert client.get("/", params={"token": "wrong"}).status_code == 401
    assert client.get("/", params={"token": "secret"}).status_code == 200
    assert client.get("/api/project").status_code == 200  # by the cookie


def test_only_loopback_is_local(store, scenes):
    assert [is_local(h) for h in ("localhost", "127.0.0.1", "127.5.5.5", "::1")] == [True] * 4
    assert [is_local(h) for h in ("0.0.0.0", "10.0.0.1", "example.com", "::")] == [False] * 4
    with pytest.raises(ConfigError, match="can't be listened at"):
        serve(store, make_help(scenes, None, None), "ada", host="192.0.2.1", port=1)


def test_tiles_put_together_are_the_image(tmp_path):
    rng = np.random.default_rng(0)
    smooth = np.kron(rng.integers(40, 220, (16, 20, 3)), np.ones((64, 64, 1))).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.png")
    tiles = Tiles([(str(tmp_path / "a.png"), 1280, 1024)])
    assert tiles.levels(0) == [(1280, 1024), (640, 512), (320, 256)]
    for level, (width, height) in enumerate(tiles.levels(0)):
        whole = np.zeros((height, width, 3), dtype=np.uint8)
        for row in range(-(-height // TILE)):
            for column in range(-(-width // TILE)):
                part = _decoded(tiles.tile(0, level, column, row))
                y, x = row * TILE, column * TILE
                whole[y : y + part.shape[0], x : x + part.shape[1]] = part
        wanted = smooth[:: 2**level, :: 2**level]
        assert np.abs(whole.astype(int) - wanted).mean() < 4
    with pytest.raises(ConfigError, match="no tile"):
        tiles.tile(0, 0, 5, 0)
    with pytest.raises(ConfigError, match="level 7"):
        tiles.tile(0, 7, 0, 0)


def _decoded(content: bytes) -> np.ndarray:
    from io import BytesIO

    return np.asarray(Image.open(BytesIO(content)))


def test_an_image_that_is_gone_is_told(store, scenes):
    lost = scenes.images.with_columns(path=pl.lit("/nowhere/a.png"))
    with pytest.raises(ConfigError):
        Tiles([]).levels(0)
    other = Store(store.path.with_name("lost.sqlite"), type(scenes)(lost, scenes.boxes, scenes.categories))
    client = TestClient(create_app(other, make_help(scenes, None, None), "ada"), base_url="http://localhost")
    response = client.get("/api/images/0")
    assert response.status_code == 422
    assert "no such file" in response.json()["error"]


def test_queues_put_first_what_is_most_in_doubt(scenes):
    boxes, doubt = scenes.boxes, scenes.boxes["image_id"] == 2
    score = pl.when(doubt).then(0.5).otherwise(0.999)
    found = scenes.with_boxes(boxes.with_columns(score=score))
    suspicions = frame(
        SUSPICION_SCHEMA, {"image_id": [1, 1, 0], "probability": [0.5, 0.25, 0.6], "gain": [0.0, 0.1, 0.2]}
    )
    made = queues(scenes, found, suspicions)
    assert made["uncertainty"].argmax() == 2
    assert made["uncertainty"][2] == pytest.approx(doubt.sum())
    assert not made["disagreement"].any()
    assert made["wrong labels"].tolist() == [0.6, 0.75, 0.0]
    assert made["gain"].argmax() == 0
    fewer = queues(scenes, found.with_boxes(found.boxes.filter(~doubt)), None)
    assert fewer["disagreement"].tolist() == [0, 0, doubt.sum()]


def test_images_to_learn_from_are_uncertain_and_unlike_each_other():
    rng = np.random.default_rng(0)
    middle = np.repeat([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]], 20, axis=0)
    points, weight = middle + rng.normal(0, 0.1, (60, 2)), rng.uniform(0.5, 1.0, 60)
    weight[:20] += 0.4  # by doubt alone, all of the first group come first
    order = unlike_order(weight, points, np.zeros(60, dtype=bool))
    assert sorted(order) == list(range(60))
    assert order[0] == weight.argmax()
    assert {n // 20 for n in order[:3]} == {0, 1, 2}
    known = np.arange(60) < 20
    order = unlike_order(weight, points, known)
    assert sorted(order) == list(range(20, 60))
    assert {n // 20 for n in order[:2]} == {1, 2}
    few = unlike_order(weight, points, known, most=2)
    assert few[:2].tolist() == order[:2].tolist()
    assert (np.diff(weight[few[2:]]) <= 0).all()


def test_distances_to_known_images_are_those_of_all_pairs():
    rng = np.random.default_rng(1)
    points, known = rng.normal(size=(700, 5)), rng.random(700) < 0.6  # more than are compared at once
    apart = np.linalg.norm(points[:, None] - points[known], axis=2).min(axis=1)
    first = unlike_order(np.ones(700), points, known, most=1)[0]
    assert first == np.where(known, -1.0, apart).argmax()


def test_images_are_described_by_what_is_expected_in_them(scenes):
    found = scenes.with_boxes(scenes.boxes.with_columns(score=pl.lit(0.5)))
    points = describe(found)
    assert points.shape == (3, len(scenes.categories) + 3)
    twice = found.with_boxes(pl.concat([found.boxes, found.boxes.filter(image_id=1)]))
    moved = np.linalg.norm(describe(twice) * _spread(twice) - points * _spread(found), axis=1)
    assert moved[1] > 0
    assert moved[[0, 2]] == pytest.approx(0)


def _spread(found) -> np.ndarray:
    boxes, count = found.boxes, np.zeros((3, len(found.categories) + 3))
    for image, category, w, h in boxes.select("image_id", "category_id", "w", "h").iter_rows():
        count[image, category] += 0.5
        count[image, len(found.categories) + (min(w, h) >= 32) + (min(w, h) >= 96)] += 0.5
    spread = np.log1p(count).std(axis=0)
    return np.where(spread > 0, spread, 1.0)
