"""Prediction on a cluster is that of one process, though a worker and then a machine are lost on the way."""

import logging
import os
import threading
import time

import cv2
import numpy as np
import psutil
import pytest
import torch
from PIL import Image

import boxwright
from boxwright.config import check_config
from boxwright.errors import CheckpointError, ConfigError
from boxwright.models import build_detector
from boxwright.models.checkpoint import save_detector
from tests.prediction.test_video import moving_square, save_random

ray = pytest.importorskip("ray", reason="the extra cluster is not installed")
pytestmark = pytest.mark.slow  # the parts themselves are tested beside it
COUNT, SIZE = 240, 4  # images, and of a part


@pytest.fixture(scope="module")
def cluster():
    """Two machines of a core each, on this one."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
    made.other = made.add_node(num_cpus=1, num_gpus=0)
    own = {"env_vars": {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}}
    ray.init(address=made.address, logging_level=logging.ERROR, runtime_env=own)
    yield made
    ray.shutdown()
    made.shutdown()


def parts(folder) -> int:
    return len(list(folder.glob("part-*.parquet")))


def until(happened, seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_nothing_is_lost_or_doubled_with_a_worker_and_a_machine(cluster, tmp_path):
    save_random(tmp_path / "random.safetensors")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for n in range(COUNT):
        Image.fromarray(moving_square(n % 40)).save(pictures / f"{n:03d}.png")
    (pictures / "100.png").write_bytes(b"no picture")
    options = {"max_detections": 10, "device": "cpu"}
    done_before: list[int] = []

    def kill() -> None:
        until(lambda: parts(tmp_path / "found") >= 2)
        workers = [
            p
            for p in psutil.process_iter(["cmdline"])
            if "ray::MapWorker" in "".join(p.info["cmdline"] or [])
        ]
        workers[0].kill()
        done_before.append(parts(tmp_path / "found"))
        until(lambda: parts(tmp_path / "found") >= 8)
        cluster.remove_node(cluster.other, allow_graceful=False)
        done_before.append(parts(tmp_path / "found"))

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    done = boxwright.predict_on_ray(
        pictures, tmp_path / "random.safetensors", tmp_path / "found", part_size=SIZE, **options
    )
    killer.join(10)
    assert len(done_before) == 2
    assert max(done_before) < COUNT // SIZE
    whole = boxwright.predict(pictures, tmp_path / "random.safetensors", **options)
    found = boxwright.read(tmp_path / "found")
    assert found.images["file_name"].equals(whole.images["file_name"])
    assert len(found.boxes) > COUNT
    assert found.boxes.drop("score", *"xywh", "area").equals(whole.boxes.drop("score", *"xywh", "area"))
    assert abs(found.boxes["score"] - whole.boxes["score"]).max() < 1e-5
    assert abs(found.upright() - whole.upright()).max() < 1e-2
    assert [f.place.rpartition("/")[2] for f in done.faults if f.dropped] == ["100.png"]
    assert "100.png" in (tmp_path / "found" / "faults.csv").read_text()

    again = boxwright.predict_on_ray(
        pictures, tmp_path / "random.safetensors", tmp_path / "found", part_size=SIZE, **options
    )
    assert (again.images, again.boxes) == (0, 0)
    assert again.faults == done.faults


def save_decided(place, pixels) -> None:
    """A detector of random weights whose scores lie far apart on such pixels (H, W, 3)."""
    model = {"name": "compact", "width": 0.25, "selection": {"score_threshold": 0.9}}
    data = {"train": {"root": "nowhere"}, "val": {"root": "nowhere"}}
    config = check_config({"data": data, "image_size": [96, 64], "model": model}, "test")
    torch.manual_seed(0)
    detector = build_detector(config.model, 2)
    for module in detector.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        for name, parameter in detector.named_parameters():
            if name.endswith("cls.weight"):
                parameter.normal_(std=0.3)
        detector.train()(torch.from_numpy(pixels).permute(2, 0, 1)[None].float())
    save_detector(detector.eval(), config, ["bright", "dark"], place)


def test_tiles_of_a_large_image_are_shared_out(cluster, tmp_path):
    rows, columns = np.mgrid[:1500, :2000]
    pixels = ((rows // 90 + columns // 70) % 2 * 200).astype(np.uint8)
    pixels = np.ascontiguousarray(np.repeat(pixels[..., None], 3, axis=2))
    save_decided(tmp_path / "random.safetensors", cv2.resize(pixels[:256, :256], None, fx=4, fy=4))
    Image.fromarray(pixels).save(tmp_path / "large.png")
    Image.fromarray(moving_square(0)).save(tmp_path / "small.png")
    places = [tmp_path / "large.png", tmp_path / "small.png"]
    options = {"tiling": boxwright.TilingOptions(size=(1024, 1024), scale=8.0), "device": "cpu"}
    shares: set[str] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            shares.update(f.name for f in tmp_path.glob("found/tiles-*"))

    threading.Thread(target=watch, daemon=True).start()
    boxwright.predict_on_ray(places, tmp_path / "random.safetensors", tmp_path / "found", **options)
    done.set()
    whole = boxwright.predict(places, tmp_path / "random.safetensors", **options)
    found = boxwright.read(tmp_path / "found")
    assert len(shares) >= 2
    assert len(found.boxes) == len(whole.boxes) > 100
    assert abs(found.boxes["score"] - whole.boxes["score"]).max() < 1e-4
    assert not list(tmp_path.glob("found/tiles-*"))


def test_what_cannot_be_is_told_in_our_words(cluster, tmp_path):
    save_random(tmp_path / "random.safetensors")
    Image.fromarray(moving_square(0)).save(tmp_path / "a.png")
    with pytest.raises(ConfigError, match="--workers 9: the cluster has"):
        boxwright.predict_on_ray(
            tmp_path / "a.png", tmp_path / "random.safetensors", tmp_path / "a", workers=9
        )
    (tmp_path / "random.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError):
        boxwright.predict_on_ray(tmp_path / "a.png", tmp_path / "random.safetensors", tmp_path / "b")
