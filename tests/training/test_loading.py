"""What is told of the data before a run."""

import pytest

from boxwright.config import check_config
from boxwright.data import formats
from boxwright.training.train import load_data
from tests.scenes import square_tables


@pytest.mark.parametrize(("first", "told"), [(3, "1 of 3 images to judge by are trained on too"), (4, "")])
def test_images_that_are_learnt_and_judged_are_told(first, told, tmp_path, capsys, monkeypatch):
    tables = square_tables(tmp_path / "images", 6)
    number = tables.images["image_id"]
    formats.write(tables.select_images((number < 4).to_numpy()), tmp_path / "train.parquet")
    formats.write(tables.select_images((number >= first).to_numpy()), tmp_path / "val.parquet")
    monkeypatch.chdir(tmp_path)  # one source's paths are relative
    source = {"train": {"root": str(tmp_path / "train.parquet")}, "val": {"root": "val.parquet"}}
    load_data(check_config({"data": source, "model": {"name": "compact"}}, "test"))
    assert " ".join(capsys.readouterr().err.split()) == told + (", first: ./images/003.png" if told else "")
