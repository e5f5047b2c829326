"""2,000 damaged copies of each format's input: an exact error or a counted fault, never a traceback."""

import numpy as np
import pytest

from boxwright.data import formats
from boxwright.errors import BoxwrightError
from tests.data.formats.samples import damage, make_sample

COPIES = 2000


@pytest.mark.parametrize("format", sorted(formats.READERS))
def test_a_damaged_file_never_crashes_the_reader_and_loses_nothing_unsaid(format, tmp_path):
    source, files, options = make_sample(format, tmp_path)
    whole = formats.read(source, format, options)
    assert len(whole.boxes) >= 3
    original = {file: file.read_bytes() for file in files}
    known = {str(f) for f in whole.faults}
    outcomes = {"refused": 0, "told": 0, "complete": 0}
    for n in range(COPIES):
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
    assert outcomes["refused"] + outcomes["told"] > COPIES / 20, outcomes


def _every_line_is_there(content: bytes, tables, file) -> bool:
    """Whether each line that is left became a box (odgt: an image).

    A list of lines says nowhere how many there should be: a file cut off between them is a shorter file.
    """
    lines = sum(bool(line.strip()) for line in content.decode(errors="replace").splitlines())
    if file.suffix == ".odgt":
        return len(tables.images) == lines
    stems = [name.rpartition(".")[0] for name in tables.images["file_name"]]
    mine = stems.index(file.stem)
    return file.suffix == ".txt" and (tables.boxes["image_id"] == mine).sum() == lines
