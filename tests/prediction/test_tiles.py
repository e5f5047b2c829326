"""Large images tile by tile: the same detections as whole, memory of a band, positions, honest limits."""

import json
from dataclasses import replace

import cv2
import numpy as np
import polars as pl
import pytest
import rasterio
import torch
from rasterio.transform import from_origin

import boxwright
from boxwright.config import check_config
from boxwright.data import formats, windows
from boxwright.data.statistics import input_statistics
from boxwright.data.windows import WindowedImage, image_position
from boxwright.errors import ConfigError, DataError
from boxwright.geometry.conventions import corners
from boxwright.models.checkpoint import save_detector
from boxwright.models.detections import Detections, Scored, Selection, select_detections
from boxwright.models.detector import Detector
from boxwright.prediction import tiles
from boxwright.prediction.predictor import RUNTIMES
from boxwright.prediction.tiles import count_tiles, detect_tiles
from boxwright.prediction.tiling import Tiling
from tests.cli.test_cli import run
from tests.models.test_detectors import make
from tests.scenes import oriented_tables


class Bright(Detector):
    """Finds what is bright, whole or cut, by its outline: a detector whose every answer is known."""

    def __init__(self, oriented: bool):
        super().__init__()
        self.oriented = oriented
        self.selection = Selection(0.1, 0.5, 300, 1000)

    def forward(self, images):
        return {"images": images.float()}

    def assign(self, outputs, targets):
        raise NotImplementedError

    def loss(self, outputs, targets):
        raise NotImplementedError

    def scored(self, outputs, image_sizes):
        raise NotImplementedError

    def decode(self, outputs, image_sizes):
        found = []
        for image in outputs["images"]:
            mask = (image[0] > 200).byte().numpy()
            outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            rows = []
            for outline in outlines:
                if self.oriented:
                    (cx, cy), (w, h), angle = cv2.minAreaRect(outline)
                    rows.append([cx + 0.5, cy + 0.5, w + 1, h + 1, np.radians(angle)])
                else:
                    x, y, w, h = cv2.boundingRect(outline)
                    rows.append([x, y, x + w, y + h])
            boxes = torch.tensor(rows, dtype=torch.float32).reshape(1, -1, 5 if self.oriented else 4)
            scores = torch.full((1, boxes.shape[1], 1), 0.9)
            empty = Detections(boxes[0], scores[0, :, 0], torch.zeros(0, dtype=torch.long))
            found += select_detections(Scored(boxes, scores), self.selection) if boxes.shape[1] else [empty]
        return found


def bars(folder, size: tuple[int, int], suffix: str = ".png") -> tuple[pl.DataFrame, np.ndarray]:
    """An image table of one picture with oriented bars far from each other, and the bars."""
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(40, size[0] - 39, 80), np.arange(40, size[1] - 39, 80))
    count = x.size
    columns = [x.ravel(), y.ravel(), rng.uniform(30, 50, count), rng.uniform(12, 20, count)]
    truth = np.column_stack([*columns, rng.uniform(-1.5, 1.5, count)])
    pixels = np.full((size[1], size[0], 3), 60, np.uint8)
    for points in corners(truth):
        cv2.fillPoly(pixels, [np.rint(points - 0.5).astype(np.int32)], (255, 255, 255))
    path = folder / f"bars{suffix}"
    cv2.imwrite(str(path), pixels)
    columns = {"image_id": [0], "path": [str(path)], "width": [size[0]], "height": [size[1]]}
    return pl.DataFrame(columns), truth


@pytest.mark.parametrize("oriented", [False, True])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_tiles_find_what_is_there_once(oriented, scale, tmp_path):
    images, truth = bars(tmp_path, (1010, 730))
    tiling = Tiling((256, 256), 100, scale)
    (rows,), broken, full = detect_tiles(Bright(oriented), images, tiling, torch.device("cpu"), batch_size=3)
    assert not broken
    assert not full
    assert len(rows) == len(truth)
    centers = rows[:, 3:5] if oriented else (rows[:, 3:5] + rows[:, 5:7]) / 2
    gap = np.linalg.norm(centers[:, None] - truth[:, :2], axis=2).min(axis=0)
    assert gap.max() < 2 / scale


def test_what_views_tell_of_headings_goes_through_tiles(tmp_path):
    images, truth = bars(tmp_path, (500, 400))

    def detect(model, pixels, sizes):
        """As several views would have it: the surer the farther to the right in its tile."""
        found = model.decode(model(pixels), sizes)
        return [replace(d, heading_certainty=(d.boxes[:, 0] / 256).clamp(0, 1)) for d in found]

    (rows,), _, _ = detect_tiles(Bright(True), images, Tiling((256, 256), 100), torch.device("cpu"), detect)
    assert rows.shape == (len(truth), 9)  # image, label, score, box and angle, certainty
    left = rows[:, 3] < 100  # which the first column of tiles alone shows
    np.testing.assert_allclose(rows[left, 8], rows[left, 3] / 256, atol=0.01)
    assert left.sum() > 3


def test_images_of_several_sizes_share_batches_and_a_broken_one_is_told(tmp_path):
    parts = []
    for n, size in enumerate([(300, 200), (700, 500), (90, 90)]):
        (tmp_path / str(n)).mkdir()
        images, truth = bars(tmp_path / str(n), size)
        parts.append((images.with_columns(image_id=pl.lit(n)), truth))
    broken_path = tmp_path / "broken.png"
    broken_path.write_bytes(b"no image")
    images = pl.concat([p for p, _ in parts])
    images = pl.concat([images, images[:1].with_columns(image_id=pl.lit(3), path=pl.lit(str(broken_path)))])
    tiling, told = Tiling((256, 256), 100), []
    rows, broken, _ = detect_tiles(
        Bright(True), images, tiling, torch.device("cpu"), batch_size=5, tell=told.append
    )
    assert sum(told) == count_tiles(images[:3], tiling, Bright(True))
    assert max(told) <= 5
    counts = [sum(len(r) for r in rows if len(r) and r[0, 0] == n) for n in range(4)]
    assert counts == [*(len(t) for _, t in parts), 0]
    assert [n for n, _ in broken] == [3]
    assert "broken.png" in broken[0][1]


def test_reaching_a_limit_is_told(tmp_path):
    images, _ = bars(tmp_path, (700, 500))
    tiling = Tiling((256, 256), 100, max_detections=5)
    (rows,), _, full = detect_tiles(Bright(True), images, tiling, torch.device("cpu"))
    assert len(rows) == 5
    assert full == [0]
    model = Bright(True)
    model.selection = Selection(0.1, 0.5, 2, 1000)
    _, _, full = detect_tiles(model, images, Tiling((256, 256), 100), torch.device("cpu"))
    assert full == [0]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_bands_are_the_pixels_of_the_whole_image(suffix, tmp_path):
    images, _ = bars(tmp_path, (403, 507), suffix)
    path, size = images["path"][0], (403, 507)
    whole, band = WindowedImage(path, size), WindowedImage(path, size, whole=1000)
    for window in windows_of(size):
        # Two decoders of JPEG may round differently.
        gap = np.abs(whole.read(window).astype(int) - band.read(window)).max()
        assert gap <= (3 if suffix == ".jpg" else 0)
        assert band._pixels is not None
        assert band._pixels.shape[0] <= 100
    band.close()


def windows_of(size):
    from boxwright.geometry.tiling import tile_windows

    return tile_windows(size, (100, 100), (20.0, 20.0))


def test_sixteen_bits_and_grey_are_read_by_bands_as_they_are_whole(tmp_path):
    grey = np.random.default_rng(0).integers(0, 65535, (200, 150), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "a.tif"), grey)
    whole = WindowedImage(tmp_path / "a.tif", (150, 200))
    band = WindowedImage(tmp_path / "a.tif", (150, 200), whole=0)
    window = np.array([10, 20, 110, 120])
    assert np.array_equal(whole.read(window), band.read(window))
    with pytest.raises(DataError, match="is 150 x 200, expected 151 x 200"):
        WindowedImage(tmp_path / "a.tif", (151, 200), whole=0)


def test_without_rasterio_a_large_image_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "rasterio", None)
    images, _ = bars(tmp_path, (90, 90))
    with pytest.raises(ConfigError, match=r"boxwright\[aerial\]"):
        WindowedImage(images["path"][0], (90, 90), whole=0)


def checkpoint(folder, name: str = "compact_obb", **data):
    """Untrained weights that know how large objects are."""
    tables = oriented_tables(folder / "train")
    formats.write(tables, folder / "t.parquet")
    source = {"root": str(folder / "t.parquet")}
    content = {"data": {"train": source, "val": source} | data, "image_size": [96, 96]}
    selection = {"score_threshold": 0.0, "max_detections": 20}
    config = check_config(content | {"model": {"name": name, "width": 0.5, "selection": selection}}, "test")
    statistics = input_statistics(tables, config.image_size)
    assert statistics["scale"] == 1
    save_detector(make(name), config, ["bright", "dark"], folder / "m.safetensors", statistics)
    return folder / "m.safetensors", tables, statistics


def test_the_scale_follows_what_is_known_of_the_images(tmp_path):
    file, _, statistics = checkpoint(tmp_path, gsd=0.1)
    loaded = boxwright.models.checkpoint.load_detector(file)
    options = boxwright.TilingOptions
    assert options().resolve(loaded, None).scale == 1
    assert options(object_width=26).resolve(loaded, None).scale == statistics["object_width"] / 26
    assert options(gsd=0.05).resolve(loaded, None).scale == pytest.approx(0.5)
    assert options(scale=2.0).resolve(loaded, 7).max_detections == 7
    with pytest.raises(ConfigError, match="scale and gsd both give"):
        options(scale=1.0, gsd=0.2).resolve(loaded, None)
    with pytest.raises(ConfigError, match=r"overlap 1\.5"):
        options(overlap=1.5).resolve(loaded, None)
    with pytest.raises(ConfigError, match="doesn't know how wide"):
        options(object_width=9).resolve(loaded.__class__(loaded.model, loaded.config, ["a"], {}), None)


def test_a_tiles_own_boxes_are_left_for_fusing():
    own = Selection(0.1, 0.6, 300, 1000)
    fused, plain = (Tiling(None, 10, merge=m, max_detections=5).selection_of(own) for m in ("fuse", "nms"))
    assert (fused.iou_threshold, plain.iou_threshold) == (1.0, 0.6)
    assert {s.max_detections for s in (fused, plain)} == {s.candidates for s in (fused, plain)} == {10_000}
    assert Tiling(None, 10, max_detections=20_000).selection_of(own).candidates == 20_000


@pytest.mark.parametrize("tiling", [None, boxwright.TilingOptions((64, 64))])
def test_both_runtimes_find_the_same(tiling, tmp_path):
    file, _, _ = checkpoint(tmp_path)
    ours, graph = (boxwright.predict(tmp_path / "train", file, tiling=tiling, runtime=r) for r in RUNTIMES)
    assert len(ours.boxes) == len(graph.boxes) > 0
    assert np.allclose(ours.boxes["score"], graph.boxes["score"], atol=1e-4)
    assert np.allclose(ours.rotated()[:, :4], graph.rotated()[:, :4], atol=1e-2)
    with pytest.raises(ConfigError, match="found the device 'cuda', expected 'cpu'"):
        boxwright.predict(tmp_path / "train", file, device="cuda", runtime="onnx")
    with pytest.raises(ConfigError, match="runtime 'tvm', expected one of torch, onnx"):
        boxwright.predict(tmp_path / "train", file, runtime="tvm")


def test_boxes_get_the_position_of_their_image(tmp_path):
    file, _, _ = checkpoint(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 255, (3, 120, 150), dtype=np.uint8)
    with rasterio.open(
        tmp_path / "city.tif", "w", driver="GTiff", width=150, height=120, count=3, dtype="uint8",
        crs="EPSG:32633", transform=from_origin(500_000, 4_600_000, 0.25, 0.25),
    ) as target:  # fmt: skip
        target.write(pixels)
    found = boxwright.predict(tmp_path / "city.tif", file, tiling=boxwright.TilingOptions(overlap=0.3))
    assert json.loads(found.images["attributes"][0])["crs"] == "EPSG:32633"
    assert len(found.boxes) > 0
    for (cx, cy), extra in zip(found.rotated()[:, :2].tolist(), found.boxes["attributes"]):
        x, y = json.loads(extra)["position"]
        assert (x, y) == pytest.approx((500_000 + cx / 4, 4_600_000 - cy / 4))
    cv2.imwrite(str(tmp_path / "b.jpg"), pixels.transpose(1, 2, 0))
    (tmp_path / "b.jgw").write_text("2\n0\n0\n-2\n11\n19\n")  # its corner is half a pixel up and left
    assert image_position(tmp_path / "b.jpg") == ((10.0, 2.0, 0.0, 20.0, 0.0, -2.0), None)
    (tmp_path / "b.jgw").unlink()
    assert image_position(tmp_path / "b.jpg") is None


def test_tiles_from_the_command_line(tmp_path):
    file, tables, _ = checkpoint(tmp_path)
    words = ["predict", tmp_path / "train", "--checkpoint", file, "-o", tmp_path / "p.parquet"]
    done = run(
        *words, "--tile-size", "64x64", "--overlap", "0.25", "--max-detections", "6", "--views", "plain"
    )
    assert "boxes in 3 images" in done.stdout
    assert "the limit of 6 detections was reached" in " ".join(done.stderr.split())
    found = formats.read(tmp_path / "p.parquet")
    assert found.boxes.group_by("image_id").len()["len"].max() <= 6
    assert "both give" in run(*words, "--scale", "1", "--object-width", "9", check=2).stderr
    assert "--views" in run(*words, "--views", "sideways", check=2).stderr
    assert "--tile-size" in run(*words, "--tile-size", "64", check=2).stderr
    whole = run(*words, "--max-detections", "4")
    assert "the limit of 4 detections was reached" in " ".join(whole.stderr.split())
    assert len(tables.images) * 4 == len(formats.read(tmp_path / "p.parquet").boxes)


def test_memory_is_a_bands_whatever_the_height(tmp_path, monkeypatch):
    monkeypatch.setattr(windows, "WHOLE", 0)
    held = []
    original = WindowedImage.read

    def watched(self, window):
        pixels = original(self, window)
        held.append(self._pixels.nbytes)
        return pixels

    monkeypatch.setattr(tiles.WindowedImage, "read", watched)
    monkeypatch.setattr(WindowedImage.__init__, "__defaults__", (0,))
    images, truth = bars(tmp_path, (300, 5000))
    (rows,), _, _ = detect_tiles(Bright(True), images, Tiling((256, 256), 100), torch.device("cpu"))
    assert len(rows) == len(truth)
    assert max(held) <= 300 * 256 * 3


def test_an_image_that_breaks_off_is_left_out_whole(tmp_path, monkeypatch):
    images, _ = bars(tmp_path, (300, 1500))
    original = WindowedImage.read

    def breaking(self, window):
        if window[1] > 600:
            raise DataError("rows 600 to 800: can't be decoded.")
        return original(self, window)

    monkeypatch.setattr(tiles.WindowedImage, "read", breaking)
    rows, broken, full = detect_tiles(Bright(True), images, Tiling((256, 256), 100), torch.device("cpu"))
    assert broken == [(0, "rows 600 to 800: can't be decoded.")]
    assert not rows
    assert not full
