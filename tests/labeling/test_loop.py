"""Rounds of active learning: what is trained, judged and chosen."""

import numpy as np
import polars as pl
import pytest

from boxwright.config import check_config
from boxwright.data import formats
from boxwright.errors import ConfigError, DataError
from boxwright.labeling.loop import NEXT, read_account, read_next, run_round
from boxwright.labeling.store import Change, Store
from tests.scenes import square_tables


@pytest.fixture
def review(tmp_path):
    """A review of twelve images, and an experiment of one epoch."""
    labels = square_tables(tmp_path / "images", images=12)
    formats.write(square_tables(tmp_path / "val", images=2, seed=5), tmp_path / "val.parquet")
    store = Store(tmp_path / "review.sqlite", labels)
    val = {"root": str(tmp_path / "val.parquet")}
    content = {
        "data": {"train": val, "val": val},
        "model": {"name": "compact", "width": 0.25},
        "image_size": [64, 64],
        "train": {"epochs": 1, "batch_size": 2},
    }
    return store, check_config(content, "test")


def accept(store: Store, images: list[int]) -> None:
    for n in images:
        store.act(Change(f"accept-{n:04}", "ada", n, seconds=30.0, state="accepted"))


def test_rounds_train_on_what_is_accepted_and_choose_from_the_rest(review, tmp_path):
    store, config = review
    first = run_round(store, config, tmp_path / "loop", images=4)
    assert len(first.account) == 0
    assert first.predictions is None
    assert not (tmp_path / "loop" / "round-1").exists()
    start = first.next["image_id"].to_list()
    assert len(set(start)) == 4
    accept(store, start)
    second = run_round(store, config, tmp_path / "loop", images=3)
    trained = formats.read(tmp_path / "loop" / "round-1.labels.parquet")
    assert set(trained.images["file_name"]) == set(first.next["file_name"])
    predicted = formats.read(second.predictions)
    assert len(predicted.images) == 8
    chosen = second.next["image_id"].to_list()
    assert len(set(chosen)) == 3
    assert not set(chosen) & set(start)
    (row,) = second.account.to_dicts()
    assert (row["round"], row["images"], row["boxes"], row["corrected"]) == (1, 4, 8, 0)
    assert row["minutes"] == pytest.approx(2.0)
    assert 0 <= row["AP"] <= 1
    with pytest.raises(ConfigError, match=r"no image was accepted since round 1"):
        run_round(store, config, tmp_path / "loop")
    accept(store, chosen)
    third = run_round(store, config, tmp_path / "loop", images=50)
    assert third.account["images"].to_list() == [4, 7]
    assert third.account.equals(read_account(tmp_path / "loop"))
    assert sorted(third.next["image_id"]) == sorted(set(range(12)) - set(start) - set(chosen))
    values = read_next(tmp_path / "loop" / NEXT, store.tables())
    assert np.argsort(-values)[:5].tolist() == third.next["image_id"].to_list()
    accept(store, list(range(12)))
    with pytest.raises(ConfigError, match="nothing is left"):
        run_round(store, config, tmp_path / "loop")


def test_other_tables_are_refused(review, tmp_path):
    store, config = review
    run_round(store, config, tmp_path / "loop", images=4)
    other = square_tables(tmp_path / "other", images=2)
    with pytest.raises(DataError, match="is none of these images"):
        read_next(tmp_path / "loop" / NEXT, other)
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "loop" / "account.parquet")
    with pytest.raises(DataError, match="expected the columns round"):
        run_round(store, config, tmp_path / "loop")
