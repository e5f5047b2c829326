"""A detector that is opened once and called with images in memory."""

import numpy as np
import pytest
from PIL import Image

import boxwright
from boxwright.data.images import load_image
from boxwright.errors import DataError
from boxwright.models.detections import Selection
from boxwright.prediction.tiling import Tiling
from tests.prediction.test_video import finder
from tests.scenes import square_experiment


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that has learnt the squares somewhat, and its folder of images."""
    folder = tmp_path_factory.mktemp("run")
    config = square_experiment(folder, epochs=10, evaluate_every=10)
    return boxwright.train(config, name="small", runs=folder / "runs").folder, folder / "images"


@pytest.mark.parametrize("tiling", [None, boxwright.TilingOptions(size=(64, 64), scale=1.5)])
def test_images_in_memory_are_predicted_as_their_files(run, tiling):
    checkpoint, folder = run
    expected = boxwright.predict(folder, checkpoint, tiling=tiling)
    detector = boxwright.open_predictor(checkpoint, tiling=tiling)
    paths = expected.images["path"].to_list()
    arrays, pictures = [load_image(path) for path in paths], [Image.open(path) for path in paths]
    assert len(expected.boxes) > 0
    for images in (arrays, pictures, np.stack(arrays)):
        found = detector(images)
        assert found.boxes.equals(expected.boxes)
        assert found.images["file_name"].to_list() == [str(n) for n in range(len(paths))]
    own = expected.select_images(np.arange(len(paths)) == 1)
    for one in (arrays[1], pictures[1]):
        found = detector(one).boxes
        assert found["category_id"].equals(own.boxes["category_id"])
        numbers = [boxes.select(*"xywh", "score").to_numpy() for boxes in (found, own.boxes)]
        np.testing.assert_allclose(*numbers, rtol=1e-4, atol=1e-3)  # sums of another batch


def test_more_images_than_a_batch_and_none(run):
    checkpoint, folder = run
    detector = boxwright.open_predictor(checkpoint)
    pixels = load_image(folder / "000.png")
    one, many = detector(pixels), detector([pixels] * 19)
    assert many.boxes["image_id"].value_counts()["count"].to_list() == [len(one.boxes)] * 19
    assert len(detector([]).images) == 0


def test_a_limit_that_is_reached_is_told(run):
    checkpoint, folder = run
    detector = boxwright.open_predictor(checkpoint, max_detections=1)
    found = detector([load_image(folder / "000.png"), np.full((64, 64), 120, np.uint8)])
    assert ("detection-limit", "0") in [(fault.code, fault.place) for fault in found.faults]


def test_a_limit_that_a_tile_alone_reaches_is_told():
    detector = finder(Tiling((96, 96), 40.0))
    detector.model.selection = Selection(0.1, 0.5, 2, 1000)
    pixels = np.zeros((128, 192, 3), np.uint8)
    for x, y in ((4, 4), (40, 4), (4, 40)):  # all in the first tile
        pixels[y : y + 16, x : x + 16] = 255
    found = detector([pixels, np.zeros_like(pixels)])
    assert 0 < len(found.boxes) < detector.limit
    assert [(fault.code, fault.place) for fault in found.faults] == [("detection-limit", "0")]


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((3, 64, 64), np.uint8),
        np.zeros((64, 64, 3), np.float32),
        np.zeros((64, 64, 4), np.uint8),
        np.zeros((0, 64, 3), np.uint8),
        "a.jpg",
    ],
    ids=["channels first", "floats", "alpha", "empty", "a path"],
)
def test_what_is_no_image_is_told(run, wrong):
    with pytest.raises(DataError, match=r"expected \(height, width, 3\) of uint8"):
        boxwright.open_predictor(run[0])([wrong])
