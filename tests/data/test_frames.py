"""Tables in files: read with their columns checked, written whole or not at all."""

import polars as pl
import pytest

from boxwright.data.formats.files import read_frame, write_frame
from boxwright.errors import DataError

TABLE = pl.DataFrame({"name": ["a", "b"], "iou": [0.5, None]})
SCHEMA = {"iou": pl.Float64()}


@pytest.mark.parametrize(
    ("suffix", "read"), [(".parquet", pl.read_parquet), (".csv", pl.read_csv), (".json", pl.read_json)]
)
def test_a_table_comes_back(tmp_path, suffix, read):
    write_frame(TABLE, tmp_path / f"a{suffix}")
    assert read(tmp_path / f"a{suffix}").equals(TABLE)
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]


def test_what_is_no_such_table_is_told(tmp_path):
    path = tmp_path / "a.parquet"
    write_frame(TABLE, path)
    assert read_frame(path, SCHEMA, "the table").equals(TABLE)
    with pytest.raises(DataError, match=r"not the table; expected the columns score"):
        read_frame(path, {"score": pl.Float64()}, "the table")
    with pytest.raises(DataError, match=r"not the table; expected the columns iou"):
        read_frame(path, {"iou": pl.String()}, "the table")
    path.write_text("no Parquet")
    with pytest.raises(DataError, match="the table can't be read"):
        read_frame(path, SCHEMA, "the table")
    with pytest.raises(DataError, match=r"expected a file that ends in \.parquet"):
        write_frame(TABLE, tmp_path / "a.xlsx")
