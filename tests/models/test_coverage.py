"""Who answers for whom: counted against the assigners' own matches, drawn, and warned of."""

import json

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

import boxwright
from boxwright.config import check_config, dump_config
from boxwright.data.dataset import DetectionDataset, collate
from boxwright.data.tables import Tables
from boxwright.errors import ConfigError, DataError
from boxwright.models.checkpoint import save_detector
from boxwright.models.coverage import coverage
from boxwright.training import run as training
from tests.cli.test_cli import run
from tests.models.test_detectors import CONFIGS, make
from tests.scenes import square_tables

WHOLE_BOX = "model.assigner.radius=0"


def with_tiny_boxes(tables):
    """Every second box is 2 x 2 px, between the points of all levels."""
    tiny = np.arange(len(tables.boxes)) % 2 == 0
    boxes = tables.boxes.with_columns(
        x=pl.Series(np.where(tiny, 17.0, tables.boxes["x"])),
        y=pl.Series(np.where(tiny, 17.0, tables.boxes["y"])),
        w=pl.Series(np.where(tiny, 2.0, tables.boxes["w"])),
        h=pl.Series(np.where(tiny, 2.0, tables.boxes["h"])),
    )
    return tables.with_boxes(boxes), tiny


def experiment(folder, tables, model: dict):
    boxwright.write(tables, folder / "labels.parquet")
    source = {"root": str(folder / "labels.parquet")}
    return check_config(
        {"data": {"train": source, "val": source}, "model": model, "image_size": [64, 64]}, "test"
    )


@pytest.mark.parametrize("name", ["fcos", "retinanet", "yolox"])
def test_every_box_is_counted_with_its_priors(name, tmp_path):
    tables, _ = with_tiny_boxes(square_tables(tmp_path, 5))
    model, dataset = make(name).eval(), DetectionDataset(tables, (64, 64))
    found = coverage(model, dataset)
    counts = []
    for n in range(5):
        batch = collate([dataset[n]])
        with torch.no_grad():
            matched = model.assign(model(batch.images), batch.targets).matched_gt[0]
        counts += [int((matched == g).sum()) for g in range(batch.targets.boxes.shape[1])]
    assert found.priors.tolist() == counts
    assert found.images.tolist() == tables.boxes["image_id"].to_list()
    whole = found.rows()[-1]
    assert (whole["boxes"], whole["none"]) == (len(counts), counts.count(0))
    assert coverage(model, dataset, limit=2).images.max() == 4


def test_boxes_between_the_points_are_lost_and_the_training_warns(tmp_path, capsys):
    tables, tiny = with_tiny_boxes(square_tables(tmp_path, 6))
    found = coverage(make("fcos").eval(), DetectionDataset(tables, (64, 64)), possible=True)
    assert (found.priors[tiny] == 0).all()
    assert (found.priors[~tiny] > 0).all()
    config = experiment(tmp_path, tables, CONFIGS["fcos"])
    training._warn_of_lost_boxes(make("fcos").train(), tables, config)
    text = " ".join(capsys.readouterr().err.split())
    assert f"{tiny.sum()} of {len(tiny)} boxes get no anchor or point" in text
    assert "smaller than 2 px at 64 x 64" in text
    training._warn_of_lost_boxes(make("fcos").train(), square_tables(tmp_path, 6), config)
    assert "no anchor" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["yolox", "compact"])
def test_some_detectors_can_serve_a_box_between_the_points(name, tmp_path):
    tables, _ = with_tiny_boxes(square_tables(tmp_path, 4))
    found = coverage(make(name).eval(), DetectionDataset(tables, (64, 64)), possible=True)
    assert (found.priors > 0).all()


def test_assignments_are_drawn_from_a_file_or_a_checkpoint(tmp_path):
    tables, tiny = with_tiny_boxes(square_tables(tmp_path, 4))
    (tmp_path / "fcos.yaml").write_text(dump_config(experiment(tmp_path, tables, CONFIGS["fcos"])))
    words = [
        "assign",
        "show",
        tmp_path / "fcos.yaml",
        "-o",
        tmp_path / "a.png",
        "--json",
        tmp_path / "a.json",
    ]
    text = run(*words).stdout
    assert f"{tiny.sum()} of {len(tiny)} boxes get no prior" in text
    assert max(len(line) for line in text.splitlines() if "Picture" not in line) <= 80
    assert json.loads((tmp_path / "a.json").read_text())[-1]["none"] == tiny.sum()
    # The lost boxes stand out in their colour.
    pixels = np.asarray(Image.open(tmp_path / "a.png"))
    assert (pixels == (0xD5, 0x5E, 0x00)).all(-1).any()
    name = tables.images["file_name"][1]
    every = boxwright.show_assignment(tmp_path / "fcos.yaml", tmp_path / "b.png", [name], changes=[WHOLE_BOX])
    assert every.priors.sum() > json.loads((tmp_path / "a.json").read_text())[-1]["priors a box"] * len(tiny)
    with pytest.raises(ConfigError, match="no such image"):
        boxwright.show_assignment(tmp_path / "fcos.yaml", tmp_path / "b.png", ["x.png"])
    config = experiment(tmp_path, tables, CONFIGS["compact"])
    (tmp_path / "compact.yaml").write_text(dump_config(config))
    with pytest.raises(ConfigError, match="give a run folder or a checkpoint"):
        boxwright.show_assignment(tmp_path / "compact.yaml", tmp_path / "b.png")
    save_detector(make("compact"), config, ["bright", "dark"], tmp_path / "c.safetensors")
    assert len(boxwright.show_assignment(tmp_path / "c.safetensors", tmp_path / "b.png").priors) == len(tiny)


def test_no_image_is_an_error(tmp_path):
    tables = square_tables(tmp_path, 2)
    empty = Tables(tables.images.clear(), tables.boxes.clear(), tables.categories)
    with pytest.raises(DataError, match="nothing to assign"):
        coverage(make("fcos"), DetectionDataset(empty, (64, 64)))
