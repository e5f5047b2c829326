"""Videos predicted, drawn and written: boxes as of their frames as images, damage told, nothing lost."""

import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import boxwright
from boxwright.config import check_config
from boxwright.data import formats, video
from boxwright.data.builder import unpack
from boxwright.data.tables import Tables
from boxwright.data.video import VideoReader, VideoWriter
from boxwright.errors import ConfigError, DataError
from boxwright.models import build_detector
from boxwright.models.checkpoint import LoadedDetector, save_detector
from boxwright.prediction.outputs import open_outputs
from boxwright.prediction.pipeline import Behind, ahead
from boxwright.prediction.predictor import Predictor
from boxwright.prediction.tiling import Tiling
from boxwright.prediction.video import VideoOptions, name_of, predict_video
from boxwright.tracking.options import TrackOptions
from tests.prediction.test_tiles import Bright

SIZE = (192, 128)


def moving_square(n: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A frame with a bright square of 24 that goes right by 3 px a frame."""
    pixels = np.full((size[1], size[0], 3), 60, np.uint8)
    x = 8 + 3 * n
    pixels[40:64, x : x + 24] = 240
    return pixels


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with VideoWriter(path, SIZE, 25) as writer:
        for n in range(40):
            writer.write(moving_square(n))
    return path


def finder(tiling: Tiling | None = None) -> Predictor:
    """A detector whose every answer is known."""
    source = {"root": "nowhere"}
    config = check_config({"data": {"train": source, "val": source}, "image_size": list(SIZE)}, "test")
    model = Bright(oriented=False).eval()
    loaded = LoadedDetector(model, config, ["square"], {})
    return Predictor("bright", loaded, model, torch.device("cpu"), ("plain",), (), tiling, 300)


def save_random(path: Path) -> None:
    source = {"root": "nowhere"}
    config = check_config({"data": {"train": source, "val": source}, "image_size": list(SIZE)}, "test")
    torch.manual_seed(0)
    save_detector(build_detector(config.model, 2), config, ["bright", "dark"], path)


def predicted(place: Path, outputs=(), tiling: Tiling | None = None, **options) -> Tables:
    return predict_video(
        str(place), [finder(tiling)], open_outputs(list(outputs)), None, VideoOptions(**options)
    )


@pytest.mark.parametrize("tiling", [None, Tiling((96, 96), 40.0)])
def test_boxes_follow_the_square(clip, tiling):
    tables = predicted(clip, tiling=tiling)
    assert len(tables.images) == len(tables.boxes) == 40
    frames = np.arange(40)
    assert tables.frames().tolist() == (frames + 1).tolist()
    assert tables.boxes["image_id"].to_list() == frames.tolist()
    expected = np.column_stack([8 + 3 * frames, np.full(40, 40), np.full(40, 24), np.full(40, 24)])
    assert np.abs(tables.upright() - expected).max() < 2  # the codec is lossy
    assert unpack(tables.images["attributes"][10]) == {"video": "clip.mp4", "frame": 11, "seconds": 0.4}
    assert not tables.faults


def test_frames_are_predicted_as_images_are(clip, tmp_path):
    save_random(tmp_path / "random.safetensors")
    for frame in VideoReader(clip):
        if frame.number <= 6:
            cv2.imwrite(str(tmp_path / f"{frame.number}.png"), frame.pixels[:, :, ::-1])
    options = {"max_detections": 20}
    images = boxwright.predict([tmp_path / "[1-6].png"], tmp_path / "random.safetensors", **options)
    frames = boxwright.predict(
        clip, tmp_path / "random.safetensors", video=boxwright.VideoOptions(most=6), **options
    )
    assert len(frames.boxes) > 50
    columns = ["image_id", "category_id", "score", *"xywh"]
    assert np.allclose(frames.boxes.select(columns), images.boxes.select(columns), atol=1e-3)


def test_everything_is_written_and_a_track_has_one_number(clip, tmp_path):
    outputs = [tmp_path / name for name in ("seen.mp4", "pictures")]
    tables = predicted(clip, outputs, track=TrackOptions(), every=2)
    open_outputs([tmp_path / "a.parquet", tmp_path / "mot.txt"]).write_tables(tables)
    assert {unpack(text)["track_id"] for text in tables.boxes["attributes"]} == {1}
    assert tables.frames().tolist() == list(range(1, 41, 2))
    assert formats.read(tmp_path / "a.parquet").boxes.equals(tables.boxes)
    back = formats.read(tmp_path / "mot.txt")
    assert np.allclose(back.upright(), tables.upright(), atol=1e-6)
    assert back.frames().tolist() == tables.frames().tolist()
    seen = list(VideoReader(tmp_path / "seen.mp4"))
    assert [round(f.seconds, 3) for f in seen] == [round(0.08 * n, 3) for n in range(20)]
    assert sorted(p.name for p in (tmp_path / "pictures" / "clip.mp4").iterdir())[0] == "000001.jpg"
    # The outline is drawn in the track's colour, where the box is.
    x, y = int(tables.boxes["x"][7]), int(tables.boxes["y"][7] + 12)
    assert np.ptp(seen[7].pixels[y, x].astype(int)) > 40
    assert np.ptp(next(iter(VideoReader(clip))).pixels.reshape(-1, 3).astype(int), axis=1).max() < 12


def test_damage_in_the_middle_is_told_and_passed(clip, tmp_path):
    path = tmp_path / "broken.avi"
    with VideoWriter(path, SIZE, 25) as writer:
        for n in range(60):
            noise = np.random.default_rng(n).integers(0, 30, (SIZE[1], SIZE[0], 1), dtype=np.uint8)
            writer.write(moving_square(n % 40) - noise)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 6000] = bytes(6000)
    path.write_bytes(content)
    tables = predicted(path)
    assert 30 < len(tables.images) < 60 or any(f.code == "broken-frames" for f in tables.faults)
    assert tables.frames().max() > 45


def test_a_turned_video_is_seen_as_players_show_it(clip, tmp_path):
    """A phone's: its matrix turns what was filmed by a quarter, clockwise."""
    content = bytearray(clip.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40
    content[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    (tmp_path / "turned.mp4").write_bytes(content)
    flat, turned = VideoReader(clip), VideoReader(tmp_path / "turned.mp4")
    assert turned.size == (SIZE[1], SIZE[0])
    assert np.array_equal(next(iter(turned)).pixels, np.rot90(next(iter(flat)).pixels, -1))


def test_a_file_keeps_its_suffix_beside_a_folder_of_another_format(tmp_path):
    given = open_outputs([tmp_path / "a.parquet", tmp_path / "out"], "yolo")
    assert given.tables == ((tmp_path / "a.parquet", None), (tmp_path / "out", "yolo"))
    given = open_outputs([tmp_path / "a.txt", tmp_path / "out", tmp_path / "b.mp4"], "pictures")
    assert (given.tables, given.pictures) == (((tmp_path / "a.txt", "mot"),), (tmp_path / "out",))
    assert open_outputs(tmp_path / "a.json", "coco").tables == ((tmp_path / "a.json", "coco"),)


def test_what_is_no_video_is_told(clip, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "cut.mp4").write_bytes(clip.read_bytes()[:600])
    for name in ("text.mp4", "cut.mp4"):
        with pytest.raises(DataError, match=f"{name}: can't be opened as a video|no frame of it can be"):
            VideoReader(tmp_path / name)
    with pytest.raises(DataError, match=r"nowhere\.mp4: no such file"):
        VideoReader(tmp_path / "nowhere.mp4")
    with pytest.raises(ConfigError, match="is a video among 2 inputs"):
        boxwright.predict([clip, tmp_path], "run")
    with pytest.raises(ConfigError, match="expected 1 or more of frames"):
        VideoOptions(every=0)
    with pytest.raises(ConfigError, match=r"can't tell what to write.*\.mp4"):
        open_outputs("boxes.xyz")
    with pytest.raises(ConfigError, match="format 'yolov' is unknown"):
        open_outputs("out", "yolov")


def test_an_address_is_named_without_its_password():
    assert name_of("rtsp://admin:secret@camera.local:554/stream1") == "camera.local/stream1"
    assert name_of("/data/clip.mp4") == "clip.mp4"


def test_a_stream_gives_its_newest_frames(clip, monkeypatch):
    monkeypatch.setattr(video, "is_live", lambda place: True)
    reader, numbers = VideoReader(clip), []
    for frame in reader:
        numbers.append(frame.number)
        time.sleep(0.05)
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 40
    assert reader.dropped == 40 - len(numbers) > 20


def test_an_interrupt_leaves_what_was_found(tmp_path):
    clip = tmp_path / "long.mp4"
    with VideoWriter(clip, SIZE, 25) as writer:
        for n in range(3000):
            writer.write(moving_square(n % 40))
    save_random(tmp_path / "random.safetensors")
    command = [
        sys.executable,
        "-m",
        "boxwright",
        "predict",
        clip,
        "--checkpoint",
        tmp_path / "random.safetensors",
    ]
    command += ["-o", tmp_path / "found.parquet", "-o", tmp_path / "seen.mp4", "--max-detections", "5"]
    # What a shell starts in the background ignores Ctrl-C, and so would all that it starts.
    process = subprocess.Popen(
        [str(w) for w in command],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    part = tmp_path / ".seen.part.mp4"
    until = time.monotonic() + 120
    while not part.exists() and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "stopped after" in errors
    assert "Traceback" not in errors
    found = formats.read(tmp_path / "found.parquet")
    assert 0 < len(found.images) < 3000
    assert 0 < len(list(VideoReader(tmp_path / "seen.mp4"))) <= len(found.images)


def test_items_are_drawn_ahead_and_written_behind():
    drawn, written = [], []

    def items():
        for n in range(10):
            drawn.append(n)
            yield n

    source = ahead(items(), 3)
    assert next(source) == 0
    time.sleep(0.1)
    assert drawn == [0, 1, 2, 3]
    source.close()
    with Behind(2) as behind:
        for n in range(5):
            behind.do(written.append, n)
    assert written == list(range(5))

    def fail():
        raise DataError("disk full")

    with pytest.raises(DataError, match="disk full"), Behind() as behind:
        behind.do(fail)
    with pytest.raises(DataError, match="disk full"):
        list(ahead(fail() for _ in range(3)))
