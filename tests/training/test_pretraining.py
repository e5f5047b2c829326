"""A backbone learns from images without boxes, with labels and without, and a detector starts from it."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import boxwright
from boxwright.config import check_config, load_config
from boxwright.data.cifar import unpack_cifar
from boxwright.data.folders import read_classes, read_unlabelled
from boxwright.data.images import load_image
from boxwright.errors import ConfigError, DataError
from boxwright.models import build_detector
from boxwright.models.checkpoint import load_detector, without_pretrained
from tests.scenes import square_tables

COLORS = {"blue": (30, 40, 220), "green": (40, 200, 60), "red": (220, 40, 30)}
NAMES = ["airplane", "cat"]
SMALL = {"name": "compact", "width": 0.25}
STEADY = ["train.precision=fp32", "train.ema=null"]
QUICK = ["train.epochs=1", "train.batch_size=4", *STEADY]


def color_folders(root: Path, images: int = 8) -> Path:
    """Images of a colour on noise in a folder of its name; every other one is wide."""
    for seed, (name, color) in enumerate(COLORS.items()):
        (root / name).mkdir(parents=True)
        for n in range(images):
            rng = np.random.default_rng([seed, n])
            noise = rng.integers(-30, 30, (48, 64 if n % 2 else 48, 3))
            Image.fromarray(np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)).save(
                root / name / f"{n}.png"
            )
    return root


def small_experiment(folder: Path, **model: object) -> Path:
    """A small compact detector on squares."""
    boxwright.write(square_tables(folder / "squares", images=4), folder / "squares.parquet")
    source = {"root": str(folder / "squares.parquet")}
    train = {"epochs": 1, "batch_size": 2, "precision": "fp32", "ema": None}
    content = {
        "data": {"train": source, "val": source}, "model": SMALL | model, "image_size": [64, 64],
        "train": train,
    }  # fmt: skip
    path = folder / "squares.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def accuracy(run) -> float | None:
    return boxwright.measure(run.evaluation.truth, run.evaluation.predictions, "accuracy").overall["top-1"]


def test_classes_are_learnt_and_a_detector_starts_from_them(tmp_path, capsys):
    images, experiment = color_folders(tmp_path / "colors"), small_experiment(tmp_path)
    changes = ["train.epochs=12", "train.batch_size=6", "train.optimizer.lr=0.003", *STEADY]
    run = boxwright.pretrain(images, experiment, changes=changes, runs=tmp_path / "runs")
    assert accuracy(run) == 1.0
    assert (run.folder / "report" / "index.html").is_file()
    pretrained = load_detector(run.folder / "checkpoints" / "best.safetensors")
    assert pretrained.categories == sorted(COLORS)
    assert max(pretrained.config.image_size) == pretrained.model.least_side == 64

    second = boxwright.train(
        experiment, [f"model.weights={run.folder}", "model.freeze=[backbone]"], runs=tmp_path / "runs"
    )
    started = load_detector(second.folder / "checkpoints" / "last.safetensors").model.state_dict()
    learnt = {n: t for n, t in pretrained.model.state_dict().items() if n.startswith("backbone.")}
    assert len(learnt) > 20
    assert all(torch.equal(started[name], tensor) for name, tensor in learnt.items())
    told = " ".join(capsys.readouterr().err.split())
    assert f"{len(learnt):,} tensors" in told
    assert "start anew: neck" in told

    other = small_experiment(tmp_path, width=0.5)
    with pytest.raises(boxwright.errors.CheckpointError, match="not of this model: backbone"):
        boxwright.train(other, [f"model.weights={run.folder}"], runs=tmp_path / "runs")


def test_images_without_labels_are_told_from_each_other(tmp_path):
    square_tables(tmp_path / "frames", images=12)
    changes = ["train.epochs=60", "train.batch_size=12", "train.optimizer.lr=0.003", *STEADY]
    run = boxwright.pretrain(
        tmp_path / "frames", small_experiment(tmp_path), True, changes=changes, runs=tmp_path / "runs"
    )
    found = accuracy(run)
    assert found is not None
    assert found > 4 / 12  # chance: 1 / 12


def test_a_run_goes_on_with_its_own_config(tmp_path):
    images, runs = color_folders(tmp_path / "colors", 2), tmp_path / "runs"
    first = boxwright.pretrain(images, small_experiment(tmp_path), changes=QUICK, runs=runs)
    again = boxwright.pretrain(images, runs=runs, resume=True)
    assert again.folder == first.folder
    with pytest.raises(ConfigError, match="drop --set"):
        boxwright.pretrain(images, runs=runs, resume=True, changes=QUICK)


def test_other_images_do_not_take_the_place_of_a_runs_own(tmp_path):
    runs, experiment = tmp_path / "runs", small_experiment(tmp_path)
    first = boxwright.pretrain(
        color_folders(tmp_path / "a", 2), experiment, changes=QUICK, name="x", runs=runs
    )
    before = load_config(first.folder / "config.yaml").data
    boxwright.pretrain(color_folders(tmp_path / "b", 3), experiment, changes=QUICK, name="x", runs=runs)
    assert isinstance(before.train, boxwright.config.data.SourceConfig)
    assert len(boxwright.read(before.train.root).images) == 3  # each of three classes gives one of its two


def test_parts_and_classes_are_folders(tmp_path):
    color_folders(tmp_path / "a" / "Train")
    color_folders(tmp_path / "a" / "val", 2)
    train, val = read_classes(tmp_path / "a", 0)
    assert (len(train.images), len(val.images)) == (24, 6)
    box = train.boxes.row(1, named=True)
    assert [box[c] for c in "xywh"] == [0, 0, 64, 48]
    whole = color_folders(tmp_path / "b", 10)
    train, val = read_classes(whole, 0)
    assert (len(train.images), len(val.images)) == (27, 3)
    assert sorted(val.boxes["category_id"]) == [0, 1, 2]
    (whole / "red" / "broken.png").write_bytes(b"no image")
    assert [fault.dropped for fault in read_classes(whole, 0)[0].faults] == [True]

    Image.new("RGB", (8, 8)).save(whole / "loose.png")
    with pytest.raises(DataError, match=r"loose.png: in no class's folder; expected b/CLASS/loose.png"):
        read_classes(whole, 0)
    (tmp_path / "c").mkdir()
    (whole / "red").rename(tmp_path / "c" / "red")
    with pytest.raises(DataError, match="one class, 'red'"):
        read_classes(tmp_path / "c", 0)


def test_no_more_unlabelled_images_than_wanted(tmp_path):
    folder = color_folders(tmp_path / "colors")
    tables = read_unlabelled(folder, 10, 0)
    assert len(tables.images) == len(tables.categories) == 10
    assert tables.categories["name"].to_list() == tables.images["file_name"].to_list()
    assert read_unlabelled(folder, 10, 0).images.equals(tables.images)


def cifar_records(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.integers(0, 2, count).astype(np.uint8), rng.integers(0, 256, (count, 3072), dtype=np.uint8)


def write_cifar(folder: Path, pickled: bool) -> Path:
    """Both published versions of a CIFAR-10 of two classes and four images a file."""
    folder.mkdir()
    for stem in ("data_batch_1", "data_batch_2", "test_batch"):
        labels, data = cifar_records(4)
        if pickled:
            content = {b"batch_label": b"x", b"labels": labels.tolist(), b"data": data, b"filenames": []}
            (folder / stem).write_bytes(pickle.dumps(content, protocol=2))
        else:
            (folder / f"{stem}.bin").write_bytes(np.column_stack([labels, data]).tobytes())
    if pickled:
        meta = {b"label_names": [name.encode() for name in NAMES]}
        (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    else:
        (folder / "batches.meta.txt").write_text("\n".join([*NAMES, "", ""]))
    return folder


@pytest.mark.parametrize("pickled", [True, False])
def test_both_versions_of_cifar_are_the_same_images(tmp_path, pickled):
    folder, target = write_cifar(tmp_path / "cifar", pickled), tmp_path / "images"
    unpack_cifar(folder, target)
    labels, data = cifar_records(4)
    for part, stem in (("train", "data_batch_2"), ("val", "test_batch")):
        for n, (label, row) in enumerate(zip(labels, data)):
            pixels = load_image(target / part / NAMES[label] / f"{stem}-{n:05d}.png")
            # Row by row of red, then of green, then of blue.
            assert pixels[5, 7].tolist() == [row[c * 1024 + 5 * 32 + 7] for c in range(3)]
    before = (target / "train").stat().st_mtime_ns
    unpack_cifar(folder, target)
    assert (target / "train").stat().st_mtime_ns == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_cifar_is_pretrained_on(tmp_path):
    folder = write_cifar(tmp_path / "cifar", True)
    run = boxwright.pretrain(folder, small_experiment(tmp_path), changes=QUICK, runs=tmp_path / "runs")
    truth = run.evaluation.truth
    assert sorted(truth.categories["name"]) == NAMES
    assert len(truth.images) == 4


class Hostile:
    def __reduce__(self):
        return (Path.touch, (Path("owned"),))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("data_batch_1", pickle.dumps(Hostile(), protocol=2), "calls"),
        ("data_batch_1", b"\x80\x02garbage", "not a usable pickle"),
        ("data_batch_1", pickle.dumps({"data": np.zeros((2, 5), np.uint8), "labels": [0, 1]}), "rows of"),
        ("data_batch_1", pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}), "labels"),
        ("data_batch_1", pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [9]}), "2 classes"),
        ("data_batch_1", pickle.dumps({"data": np.zeros((0, 3072), np.uint8), "labels": []}), "no image"),
        ("data_batch_1.bin", b"\x00" * 100, "multiple of 3,073"),
        ("batches.meta", pickle.dumps({"label_names": ["../../x"]}), "names of classes"),
    ],
)
def test_broken_and_hostile_files_are_named(tmp_path, monkeypatch, name, content, told):
    monkeypatch.chdir(tmp_path)
    folder = write_cifar(tmp_path / "cifar", True)
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=told) as error:
        unpack_cifar(folder, tmp_path / "images")
    assert str(folder / name) in str(error.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cifar"]


def test_an_images_classes_do_not_depend_on_those_beside_it(tmp_path):
    changes = {"model": {"name": "classifier", "detector": SMALL, "canvas": 96}, "image_size": [96, 96]}
    config = load_config(small_experiment(tmp_path))
    content = config.model_dump(mode="json") | changes
    model = build_detector(without_pretrained(check_config(content, "test")).model, 3).eval()
    assert model.least_side == 96
    with torch.no_grad():
        outputs = model(torch.zeros(2, 3, 96, 96))
    found = model.decode(outputs, torch.tensor([[40.0, 96.0], [96.0, 20.0]]))
    assert [d.boxes[0].tolist() for d in found] == [[0, 0, 40, 96], [0, 0, 96, 20]]
    assert [len(d.labels) for d in found] == [1, 1]
    scores = outputs["cls_logits"].softmax(-1)
    assert all(torch.equal(d.scores[0], s[d.labels[0]]) for d, s in zip(found, scores))
    assert [int(d.labels[0]) for d in found] == scores.argmax(-1).tolist()


def test_what_belongs_to_the_detectors_own_training_is_refused(tmp_path):
    content = load_config(small_experiment(tmp_path)).model_dump(mode="json")
    content["model"] = {"name": "classifier", "detector": SMALL | {"freeze": ["neck"]}}
    with pytest.raises(ConfigError, match=r"detector\.freeze is for training the detector; freeze itself"):
        check_config(content, "test")
