"""The contract between packages, and the file that holds it."""

import polars as pl
import pytest

from boxwright.data import formats
from boxwright.data.sources import select_classes
from boxwright.data.tables import Tables, concat
from boxwright.errors import ConfigError, DataError
from tests.scenes import small_tables


def test_a_column_of_another_type_is_refused(tmp_path):
    tables = small_tables(tmp_path)
    with pytest.raises(DataError, match="column 'score' is String, expected Float64"):
        tables.with_boxes(tables.boxes.with_columns(score=pl.lit("high")))


def test_a_missing_column_is_refused(tmp_path):
    tables = small_tables(tmp_path)
    with pytest.raises(DataError, match="column 'crowd' is missing"):
        tables.with_boxes(tables.boxes.drop("crowd"))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("image_id", 7, "image_id runs from 7 to 7, but there are 3 images"),
        ("category_id", -1, "category_id runs from -1 to -1"),
        ("w", -1.0, "w, h not negative"),
        ("x", float("nan"), "must be finite"),
    ],
)
def test_values_that_break_the_schema_are_refused(column, value, message, tmp_path):
    tables = small_tables(tmp_path)
    kind = tables.boxes.schema[column]
    with pytest.raises(DataError, match=message):
        tables.with_boxes(tables.boxes.with_columns(pl.lit(value, dtype=kind).alias(column)))


def test_parquet_holds_all_three_tables_and_the_empty_ones(tmp_path):
    for n, tables in enumerate(
        (small_tables(tmp_path), small_tables(tmp_path).select_images([False, False, True]))
    ):
        formats.write(tables, tmp_path / f"{n}.parquet")
        back = formats.read(tmp_path / f"{n}.parquet")
        for name in ("images", "boxes", "categories"):
            assert getattr(back, name).equals(getattr(tables, name), null_equal=True)


def test_a_parquet_of_someone_else_is_refused(tmp_path):
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="not a box table"):
        formats.read(tmp_path / "a.parquet")


def test_sources_are_joined_by_category_name(tmp_path):
    one = small_tables(tmp_path)
    renamed = one.categories.with_columns(name=pl.Series(["dog", "bird"]))
    both = concat([one, Tables(one.images, one.boxes, renamed)])
    assert both.categories["name"].to_list() == ["cat", "dog", "bird"]
    names = both.boxes.join(both.categories, on="category_id", maintain_order="left")["name"].to_list()
    assert names == ["cat", "dog", "cat", "dog", "dog", "bird", "dog", "bird"]
    assert both.boxes["image_id"].to_list() == [0, 0, 1, 1, 3, 3, 4, 4]


def test_classes_are_chosen_in_order_and_the_others_counted(tmp_path):
    tables = small_tables(tmp_path)
    chosen, left_out = select_classes(tables, ["dog", "fox"])
    assert chosen.categories["name"].to_list() == ["dog", "fox"]
    assert chosen.boxes["category_id"].to_list() == [0, 0]
    assert left_out == {"cat": 2}
    with pytest.raises(ConfigError, match="Did you mean 'cat'"):
        select_classes(tables, ["catt"])
