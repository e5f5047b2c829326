"""Cards say what the numbers say, and show hostile names as text."""

import json
from dataclasses import replace

import polars as pl
import pytest
import yaml

import boxwright
from boxwright.config import dump_config
from boxwright.data import formats
from boxwright.errors import ConfigError, DataError
from tests.auditing.crowds import detections, labels
from tests.scenes import square_experiment

HOSTILE = "<script>alert(1)</script>|`x`"


def named(tables, names):
    return replace(tables, categories=tables.categories.with_columns(name=pl.Series(names)))


def finished_run(folder, names=("a", HOSTILE, "c")):
    """A run's folder as `train` leaves it, without training."""
    truth = labels()
    found = named(detections(truth, jitter=0.08), names)
    run = folder / "run"
    run.mkdir()
    (run / "config.yaml").write_text(dump_config(square_experiment(folder)))
    formats.write(named(truth, names), run / "truth.parquet")
    formats.write(found, run / "predictions.parquet")
    points = {"a": {"threshold": 0.5, "precision": 0.9, "recall": 0.8}}
    (run / "evaluation.json").write_text(json.dumps({"operating": {"points": points}}))
    return run


def test_a_model_card_has_the_runs_numbers(tmp_path):
    run = finished_run(tmp_path)
    paths = boxwright.card(run, licence="apache-2.0")
    assert [path.name for path in paths] == ["card.md", "card.html"]
    text = paths[0].read_text()
    head, body = text.split("---\n")[1:3]
    metadata = yaml.safe_load(head)
    evaluation = boxwright.evaluate(run / "truth.parquet", run / "predictions.parquet")
    metrics = metadata["model-index"][0]["results"][0]["metrics"]
    assert {m["type"]: m["value"] for m in metrics} == {
        key: round(evaluation.coco[key], 4) for key in ("AP", "AP50", "AP75")
    }
    assert (metadata["license"], metadata["pipeline_tag"]) == ("apache-2.0", "object-detection")
    assert f"| AP50 | {evaluation.coco['AP50']:.4f} |" in body
    for title in ("Results", "By size", "Where it fails", "Calibration", "Training", "Licence"):
        assert f"\n## {title}\n" in body
    assert "a is drawn and served from a score of 0.50: precision 0.90, recall 0.80." in body
    assert "Energy was not measured." in body


def test_names_are_text(tmp_path):
    markdown, page = (path.read_text() for path in boxwright.card(finished_run(tmp_path)))
    assert "<script>alert" not in page.replace("&lt;", "")
    assert "&lt;script&gt;alert(1)" in page
    assert r"\<script\>alert(1)\</script\>\|\`x\`" in markdown
    assert "<script>alert" not in markdown


def test_what_is_found_badly_is_told(tmp_path):
    run = finished_run(tmp_path, ("a", "b", "c"))
    found = formats.read(run / "predictions.parquet")
    # Most of class c gets another name, and small objects aren't found.
    wrong = (pl.col("category_id") == 2) & (pl.int_range(pl.len()) % 5 > 0)
    boxes = found.boxes.with_columns(
        category_id=pl.when(wrong).then(0).otherwise("category_id").cast(pl.Int32)
    )
    formats.write(
        found.with_boxes(boxes.filter(pl.col("w") * pl.col("h") > 32**2)), run / "predictions.parquet"
    )
    text = boxwright.card(run, run / "x.md")[0].read_text()
    limits = text.split("## Where it fails\n")[1].split("\n## ")[0]
    assert "c: AP50 0." in limits
    assert "c is taken for a (" in limits
    assert "never found" in limits


def test_a_data_card_counts_what_is_there(tmp_path):
    truth = named(labels(), ["a", HOSTILE, "c"])
    formats.write(truth, tmp_path / "labels.parquet")
    (path,) = boxwright.card(tmp_path / "labels.parquet", tmp_path / "card.md")
    text = path.read_text()
    metadata = yaml.safe_load(text.split("---\n")[1])
    assert metadata["task_categories"] == ["object-detection"]
    assert metadata["size_categories"] == ["n<1K"]
    assert metadata["license"] == "unknown"
    assert f"| boxes | {len(truth.boxes):,} |" in text
    counts = truth.boxes["category_id"].value_counts().sort("category_id")["count"].to_list()
    assert f"| a | {counts[0]:,} |" in text
    assert "Labels are of crowd." in text


def test_what_no_card_can_be_made_of_is_told(tmp_path):
    run = finished_run(tmp_path)
    with pytest.raises(ConfigError, match=r"expected a \.md or \.html"):
        boxwright.card(run, tmp_path / "card.txt")
    (run / "evaluation.json").unlink()
    with pytest.raises(DataError, match=r"evaluation.json is missing; has the run been finished"):
        boxwright.card(run)
