"""A run as an ONNX file: judged beside the original, and used in its place."""

import numpy as np
import onnx
import pytest
import torch

import boxwright
from boxwright.data import formats
from boxwright.errors import CheckpointError, ConfigError, ExportError
from boxwright.models.exported import load_exported
from tests.cli.test_cli import run
from tests.scenes import oriented_tables, square_experiment, square_tables
from tests.training.test_distilling import saved

CLASSES = ["bright", "dark"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint, images with truth, and the file made of it, judged by them."""
    place = tmp_path_factory.mktemp("export")
    checkpoint = saved(place, classes=CLASSES)
    checkpoint.rename(place / "model.safetensors")
    formats.write(square_tables(place / "images", 4, 64), place / "truth.parquet")
    return place


@pytest.fixture(scope="module")
def done(folder):
    return boxwright.export(
        folder / "model.safetensors", folder / "model.onnx", data=folder / "truth.parquet"
    )


def test_the_file_is_as_good_and_takes_the_checkpoints_place(folder, done):
    assert done.images == 4
    assert done.numbers["AP"][0] == pytest.approx(done.numbers["AP"][1], abs=1e-6)
    assert done.gap[0] < 0.1
    assert done.gap[1] < 1e-3
    assert done.lost == 0
    assert done.bytes == (folder / "model.onnx").stat().st_size
    images = folder / "images"
    first = boxwright.predict(images, folder / "model.safetensors", views=["plain"])
    second = boxwright.predict(images, folder / "model.onnx", views=["plain"])
    assert first.categories.equals(second.categories)
    columns = ["image_id", "category_id", "x", "y", "w", "h", "score"]
    ours, theirs = (
        t.boxes.filter(t.boxes["score"] > 0.05).select(columns).to_numpy() for t in (first, second)
    )
    assert len(ours) == len(theirs) > 0
    np.testing.assert_allclose(theirs, ours, atol=0.05)
    both = boxwright.predict(images, [folder / "model.safetensors", folder / "model.onnx"])
    assert len(both.boxes)


@pytest.mark.parametrize("name", ["model.onnx", "model.xml", "model.pt2"])
def test_boxes_where_an_image_ends_amid_padding_are_the_same(folder, tmp_path, name):
    done = boxwright.export(
        folder / "model.safetensors", tmp_path / name, (100, 100), data=folder / "truth.parquet", force=True
    )
    assert done.gap[0] < 0.01
    assert done.gap[1] < 1e-4
    assert done.lost == 0


def test_what_the_file_cannot_do_is_told(folder, done):
    with pytest.raises(ConfigError, match="gives 300 at most"):
        boxwright.predict(folder / "images", folder / "model.onnx", max_detections=500)
    with pytest.raises(ConfigError, match="is for the processor"):
        boxwright.predict(folder / "images", folder / "model.onnx", device="cuda")
    with pytest.raises(CheckpointError):
        boxwright.export(folder / "model.onnx", folder / "again.onnx")


def test_a_loss_is_refused_and_leaves_nothing_behind(folder, tmp_path):
    target = tmp_path / "worse.onnx"
    with pytest.raises(ExportError, match=r"more than -1: .*worse\.onnx isn't written"):
        boxwright.export(folder / "model.safetensors", target, data=folder / "truth.parquet", tolerance=-1)
    assert list(tmp_path.iterdir()) == []
    truth = folder / "truth.parquet"
    boxwright.export(folder / "model.safetensors", target, data=truth, tolerance=-1, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["worse.onnx"]


def test_the_command_shows_both_and_takes_a_size(folder, tmp_path):
    words = [
        "export",
        folder / "model.safetensors",
        "-o",
        tmp_path / "a.onnx",
        "--data",
        folder / "truth.parquet",
    ]
    shown = run(*words, "--image-size", "96x64", "--max-detections", 50).stdout
    assert "original" in shown
    assert "a.onnx" in shown
    assert len(boxwright.predict(folder / "images", tmp_path / "a.onnx", max_detections=50).boxes)
    told = run("export", folder / "model.safetensors", "-o", tmp_path / "a.tflite", check=2).stderr
    assert "expected one of .onnx, .xml, .pt2" in told
    told = run("export", folder / "model.safetensors", "-o", tmp_path / "a.engine", check=2).stderr
    assert "trtexec" in told
    assert "no weights there" in run("export", tmp_path / "none", check=2).stderr


def test_eight_bits_are_smaller_and_nearly_the_same(tmp_path):
    run_folder = boxwright.train(square_experiment(tmp_path, epochs=6), name="squares", runs=tmp_path).folder
    files = tmp_path / "whole.onnx", tmp_path / "small.onnx"
    sizes = [
        boxwright.export(run_folder, path, (64, 64), images=8, int8=path is files[1]).bytes for path in files
    ]
    assert sizes[1] < 0.6 * sizes[0]
    images = torch.randint(0, 255, (4, 3, 64, 64), generator=torch.Generator().manual_seed(0)).float()
    whole, small = (load_exported(path).model(images)["scores"] for path in files)
    assert 0 < (whole - small).abs().max() < 0.1 * whole.max()
    assert boxwright.predict(tmp_path / "images", files[1]).categories["name"].to_list() == CLASSES
    nodes = onnx.load(files[1]).graph.node
    kept = {node.input[0] for node in nodes if node.op_type == "QuantizeLinear"}
    gates = [n.output[0] for n in nodes if n.op_type == "Sigmoid" and "/backbone/" in n.name]
    assert gates
    assert kept.issuperset(gates)  # activations stay in eight bits


def test_oriented_boxes(tmp_path):
    oriented_tables(tmp_path / "bars", 3, 96, headings=True)
    checkpoint = saved(tmp_path, {"name": "compact_obb", "heading": True}, classes=CLASSES)
    done = boxwright.export(checkpoint, tmp_path / "a.onnx", (96, 96), images=0)
    assert done.numbers is None
    assert done.images == 0
    found = boxwright.predict(tmp_path / "bars", tmp_path / "a.onnx", views=["plain"])
    wanted = boxwright.predict(tmp_path / "bars", checkpoint, views=["plain"])
    columns = ["image_id", "category_id", "x", "y", "w", "h", "angle", "score"]
    best = [
        t.boxes.sort("score", descending=True).head(10).select(columns).to_numpy() for t in (found, wanted)
    ]
    np.testing.assert_allclose(*best, atol=0.02)


def test_tiles_take_the_file_and_tell_where_it_gives_no_more(folder, done, tmp_path):
    tiling = boxwright.TilingOptions(size=(64, 64), scale=1.0)
    found, wanted = (
        boxwright.predict(folder / "images", folder / name, views=["plain"], tiling=tiling)
        for name in ("model.onnx", "model.safetensors")
    )
    assert found.boxes["score"].max() == pytest.approx(wanted.boxes["score"].max(), abs=1e-3)
    assert not [f for f in found.faults if f.code == "detection-limit"]
    few = boxwright.export(folder / "model.safetensors", tmp_path / "few.onnx", max_detections=2, images=0)
    cut = boxwright.predict(folder / "images", few.path, views=["plain"], tiling=tiling)
    assert "detection-limit" in [f.code for f in cut.faults]
    with pytest.raises(ConfigError, match="runtime 'tensorrt'"):
        boxwright.predict(folder / "images", folder / "model.onnx", runtime="tensorrt")


@pytest.mark.parametrize("name", ["a.xml", "a.pt2"])
def test_other_runtimes_are_judged_too(folder, tmp_path, name):
    truth = folder / "truth.parquet"
    done = boxwright.export(folder / "model.safetensors", tmp_path / name, data=truth, raw=True)
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == (["a.bin", "a.xml"] if name == "a.xml" else ["a.pt2"])
    assert done.bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert done.numbers["AP"][0] == pytest.approx(done.numbers["AP"][1], abs=1e-6)
    assert done.gap[0] < 0.1
    assert done.lost == 0
    with pytest.raises(ConfigError, match="expected one of them"):
        boxwright.export(folder / "model.safetensors", tmp_path / name, int8=True, fp16=True)
    with pytest.raises(ConfigError, match="eight bits are for an"):
        boxwright.export(folder / "model.safetensors", tmp_path / name, int8=True)


def test_openvinos_file_takes_the_checkpoints_place(folder, tmp_path):
    place = tmp_path / "new" / "a.xml"  # in a folder that isn't there yet
    boxwright.export(folder / "model.safetensors", place, images=0, fp16=True)
    found, wanted = (
        boxwright.predict(folder / "images", path, views=["plain"])
        for path in (place, folder / "model.safetensors")
    )
    assert found.boxes["score"].max() == pytest.approx(wanted.boxes["score"].max(), abs=0.01)
    assert found.categories.equals(wanted.categories)
