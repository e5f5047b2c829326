"""200 damaged copies (or 2,000) of each format: an exact error or a counted fault, never a traceback."""

import gzip

import numpy as np
import polars as pl
import pytest

from boxwright.data import formats
from boxwright.data.builder import TableBuilder
from boxwright.errors import BoxwrightError, DataError
from tests.data.formats.samples import damage, make_sample

COPIES = (200, pytest.param(2000, marks=pytest.mark.slow))


@pytest.mark.parametrize("copies", COPIES)
@pytest.mark.parametrize("format", sorted(formats.READERS))
def test_a_damaged_file_never_crashes_the_reader_and_loses_nothing_unsaid(format, copies, tmp_path):
    source, files, options = make_sample(format, tmp_path)
    whole = formats.read(source, format, options)
    assert len(whole.boxes) >= 3
    original = {file: file.read_bytes() for file in files}
    known = {str(f) for f in whole.faults}
    outcomes = {"refused": 0, "told": 0, "complete": 0}
    for n in range(copies):
        rng = np.random.default_rng([n, len(format)])
        file = files[n % len(files)]
        file.write_bytes(damage(original[file], rng))
        try:
            tables = formats.read(source, format, options)
        except BoxwrightError:
            outcomes["refused"] += 1
        else:
            told = any(str(f) not in known for f in tables.faults)
            complete = len(tables.boxes) >= len(whole.boxes) and len(tables.images) >= len(whole.images)
            content = file.read_bytes()
            assert told or complete or _every_line_is_there(content, tables, file), content
            outcomes["told" if told else "complete"] += 1
        file.write_bytes(original[file])
    assert outcomes["refused"] + outcomes["told"] > copies / 20, outcomes


def _every_line_is_there(content: bytes, tables, file) -> bool:
    """Whether each line that is left became a box (odgt: an image).

    A list of lines says nowhere how many there should be: a file cut off between them is a shorter file.
    """
    lines = sum(bool(line.strip()) for line in content.decode(errors="replace").splitlines())
    if file.suffix in (".odgt", ".jsonl"):
        return len(tables.images) == lines
    if file.name == "wider.txt":
        return len(tables.images) + len(tables.boxes) == lines
    if file.name == "gt.txt":
        return len(tables.boxes) == lines
    if file.suffix == ".csv":
        return len(tables.boxes) == lines - 1
    stems = [name.rpartition(".")[0] for name in tables.images["file_name"]]
    mine = stems.index(file.stem)
    return file.suffix == ".txt" and (tables.boxes["image_id"] == mine).sum() == lines


@pytest.mark.parametrize("members", [1, 3])
def test_a_gzip_bomb_is_told_before_it_fills_the_memory(tmp_path, monkeypatch, members):
    path = tmp_path / "bomb.json.gz"
    path.write_bytes(gzip.compress(b'{"images": [' + b" " * (2 << 20)) * members)
    monkeypatch.setenv("BOXWRIGHT_MAX_UNPACKED_GIB", "0.001")
    with pytest.raises(DataError, match=r"unpacks to more than 0.001 GiB.*raise BOXWRIGHT_MAX"):
        formats.read(path, "coco")
    monkeypatch.setenv("BOXWRIGHT_MAX_UNPACKED_GIB", "lots")
    with pytest.raises(DataError, match="BOXWRIGHT_MAX_UNPACKED_GIB=lots: expected a number"):
        formats.read(path, "coco")


def test_a_gzip_of_several_members_is_read_whole(tmp_path):
    source, _, options = make_sample("coco", tmp_path)
    raw = source.read_bytes()
    packed = source.with_name("packed.json.gz")
    packed.write_bytes(gzip.compress(raw[:100]) + gzip.compress(raw[100:]))
    assert len(formats.read(packed, "coco", options).boxes) == len(
        formats.read(source, "coco", options).boxes
    )


def test_a_parquet_bomb_is_told_before_it_fills_the_memory(tmp_path, monkeypatch):
    builder = TableBuilder("zeros")
    image = builder.image("a.jpg", width=10, height=10)
    builder.category("thing")
    builder.box(0, image, 0, (0, 0, 5, 5))
    one = builder.build()
    path = tmp_path / "bomb.parquet"
    formats.write(one.with_boxes(pl.concat([one.boxes] * 100_000)), path)
    assert len(formats.read(path).boxes) == 100_000
    monkeypatch.setenv("BOXWRIGHT_MAX_UNPACKED_GIB", "0.01")
    with pytest.raises(DataError, match="a Parquet table that unpacks to more than"):
        formats.read(path)
