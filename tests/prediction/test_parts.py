"""Predictions in parts: every image once, whatever is stopped, and none of another prediction among them."""

import io
import json
import tarfile
from itertools import islice

import numpy as np
import polars as pl
import pytest
from PIL import Image

import boxwright
from boxwright.data import formats
from boxwright.data.shards import list_shards
from boxwright.data.tables import Tables
from boxwright.errors import ConfigError, DataError
from boxwright.prediction import large
from boxwright.prediction.parts import do_piece, faults_of, open_plan
from boxwright.prediction.predict import predict_images
from boxwright.prediction.tiling import Tiling
from tests.prediction.test_tiles import bars
from tests.prediction.test_video import finder, moving_square

COUNT = 11


@pytest.fixture
def pictures(tmp_path):
    """A folder of pictures of a square that moves on."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n in range(COUNT):
        Image.fromarray(moving_square(n)).save(folder / f"{n:02d}.png")
    return folder


def pack(pictures, folder, kind: str) -> None:
    """The pictures in two shards."""
    folder.mkdir()
    files = sorted(pictures.iterdir())
    for number, own in enumerate((files[:4], files[4:])):
        if kind == "tar":
            with tarfile.open(folder / f"{number}.tar", "w") as archive:
                for file in own:
                    archive.add(file, f"../a/{file.name}")
                    note = tarfile.TarInfo(f"a/{file.stem}.json")
                    note.size = 2
                    archive.addfile(note, io.BytesIO(b"{}"))
        else:
            contents = [file.read_bytes() for file in own]
            if kind == "structs":
                column = [{"bytes": c, "path": f.name} for c, f in zip(contents, own)]
                frame = pl.DataFrame({"label": range(len(own)), "image": column})
            else:
                frame = pl.DataFrame({"__key__": [f.name for f in own], "png": contents})
            frame.write_parquet(folder / f"{number}.parquet")


def predicted(plan) -> Tables:
    finish(plan, [finder()])
    return formats.read(plan.folder)


def finish(plan, predictors) -> list[tuple[int, int]]:
    """Does what is missing; which pieces these were."""
    done = []
    for work in plan.work():
        for part, share in work:
            do_piece(plan, part, share, predictors)
            done.append((part, share))
    return done


def test_parts_are_the_whole(pictures, tmp_path):
    plan = open_plan(tmp_path / "found", list_shards(pictures), 4, {})
    assert plan.parts == 3
    with pytest.raises(
        DataError, match=r"parts are missing, part-000000\.parquet first; there are 0, expected 3"
    ):
        formats.read(tmp_path / "found")
    found = predicted(plan)
    whole = predict_images([(f.name, str(f)) for f in sorted(pictures.iterdir())], [finder()])
    assert found.boxes.equals(whole.boxes)
    assert found.images["file_name"].equals(whole.images["file_name"])
    assert len(found.boxes) == COUNT
    assert formats.guess_format(plan.folder) == "parts"
    assert boxwright.evaluate(whole, tmp_path / "found").coco["AP"] == 1.0


@pytest.mark.parametrize("kind", ["tar", "structs", "bytes"])
def test_shards_hold_the_same_pictures(pictures, tmp_path, kind):
    pack(pictures, tmp_path / "shards", kind)
    plan = open_plan(tmp_path / "found", list_shards(tmp_path / "shards"), 3, {})
    found = predicted(plan)
    assert found.upright()[:, 0] == pytest.approx([8 + 3 * n for n in range(COUNT)], abs=1e-4)
    prefix = "../a/" if kind == "tar" else ""
    assert found.images["file_name"].to_list() == [f"{prefix}{n:02d}.png" for n in range(COUNT)]
    assert found.images["path"].null_count() == COUNT
    one = list_shards([tmp_path / "shards" / ("1.tar" if kind == "tar" else "1.parquet")])
    assert len(one) == COUNT - 4


def test_files_and_shards_together_lose_nothing(pictures, tmp_path):
    pack(pictures, tmp_path / "shards", "tar")
    extra = tmp_path / "extra"
    extra.mkdir()
    Image.fromarray(moving_square(30)).save(extra / "extra.png")
    plan = open_plan(tmp_path / "found", list_shards([extra, tmp_path / "shards"]), 4, {})
    found = predicted(plan)
    assert found.upright()[:, 0] == pytest.approx([8 + 3 * n for n in (*range(COUNT), 30)], abs=1e-4)
    assert found.images["path"].is_null().to_list() == [True] * COUNT + [False]
    (tmp_path / "shards" / "beside.png").write_bytes((extra / "extra.png").read_bytes())
    with pytest.raises(DataError, match="shards: holds shards and images side by side"):
        list_shards(tmp_path / "shards")


def test_only_what_is_missing_is_done_again(pictures, tmp_path):
    images = list_shards(pictures)
    plan = open_plan(tmp_path / "found", images, 4, {"detector": "a"})
    first = predicted(plan)
    (plan.folder / "part-000001.parquet").unlink()
    (plan.folder / "part-000002.parquet").rename(tmp_path / "kept.parquet")
    (plan.folder / ".part-000002.parquet.tmp").write_bytes(b"half a fi")  # as a killed process leaves it
    again = open_plan(tmp_path / "found", images, 4, {"detector": "a"})
    assert again.missing() == [1, 2]
    assert predicted(again).boxes.equals(first.boxes)
    assert not open_plan(tmp_path / "found", images, 4, {"detector": "a"}).missing()


def test_a_folder_of_another_prediction_is_refused(pictures, tmp_path):
    images = list_shards(pictures)
    open_plan(tmp_path / "found", images, 4, {"detector": "a"})
    with pytest.raises(ConfigError, match="its detector is a, expected b"):
        open_plan(tmp_path / "found", images, 4, {"detector": "b"})
    with pytest.raises(ConfigError, match="its part_size is 4, expected 5"):
        open_plan(tmp_path / "found", images, 5, {"detector": "a"})
    with pytest.raises(ConfigError, match="listing"):
        open_plan(tmp_path / "found", images.reverse(), 4, {"detector": "a"})
    with pytest.raises(ConfigError, match="holds no plan of parts"):
        open_plan(pictures, images, 4, {})


def test_what_cannot_be_read_is_told_by_its_name(pictures, tmp_path):
    (pictures / "03.png").write_bytes(b"no picture")
    whole = (pictures / "05.png").read_bytes()
    (pictures / "05.png").write_bytes(whole[: len(whole) // 2])
    for n in (8, 9, 10):  # a whole part
        (pictures / f"{n:02d}.png").write_bytes(b"")
    pack(pictures, tmp_path / "shards", "tar")
    for place, prefix in ((pictures, ""), (tmp_path / "shards", "../a/")):
        plan = open_plan(tmp_path / f"found-{place.name}", list_shards(place), 4, {})
        found = predicted(plan)
        faults = faults_of(plan)
        assert len(faults) == 5
        assert all(fault.dropped for fault in faults)
        told = [fault.place for fault in faults]
        assert sorted(name.rpartition("/")[2] for name in told) == [
            "03.png",
            "05.png",
            "08.png",
            "09.png",
            "10.png",
        ]
        if prefix:
            assert all(fault.place.startswith(prefix) for fault in faults)
            assert "boxwright-" not in json.dumps([str(fault) for fault in faults])
        assert len(found.boxes) == 6


def huge(folder) -> None:
    """Pictures of which two have more tiles than one worker looks at, and one of these breaks off."""
    folder.mkdir()
    for name, size in (("a", (300, 200)), ("b", (900, 700)), ("c", (300, 200)), ("d", (900, 700))):
        bars(folder, size)
        (folder / "bars.png").rename(folder / f"{name}.png")
    (folder / "d.png").write_bytes((folder / "d.png").read_bytes()[:-2000])


def cutting() -> list:
    """Two detectors that cut images up in different ways."""
    return [finder(Tiling((256, 256), 100)), finder(Tiling((320, 256), 60))]


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_tiles_of_large_images_are_shared_out(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(large, "SHARE", 5 * 256 * 256)
    huge(tmp_path / "pictures")
    whole = predict_images([(f.name, str(f)) for f in sorted((tmp_path / "pictures").iterdir())], cutting())
    images = tmp_path / "pictures"
    if kind == "tar":
        images = tmp_path / "shards"
        pack(tmp_path / "pictures", images, kind)
    plan = open_plan(tmp_path / "found", list_shards(images), 3, {})
    done = finish(plan, cutting())
    assert done[:2] == [(0, -1), (1, -1)]
    assert {part for part, share in done[2:-2]} == {0, 1}
    assert len(done) > 12
    assert done[-2:] == [(0, -1), (1, -1)]
    found = formats.read(plan.folder)
    assert len(whole.boxes) > 20
    assert found.boxes.equals(whole.boxes)
    assert [name[-5:] for name in found.images["file_name"]] == ["a.png", "b.png", "c.png", "d.png"]
    told = [f.place for f in faults_of(plan) if f.dropped]
    assert len(set(told)) == 1
    assert told[0].endswith("d.png")
    assert not [p for p in plan.folder.iterdir() if p.name.startswith(("tiles-", "large-"))]


def test_shares_that_are_there_are_not_looked_at_again(tmp_path, monkeypatch):
    monkeypatch.setattr(large, "SHARE", 5 * 256 * 256)
    huge(tmp_path / "pictures")
    plan = open_plan(tmp_path / "found", list_shards(tmp_path / "pictures"), 4, {})
    work = plan.work()
    ((part, share),) = next(work)
    assert do_piece(plan, part, share, cutting()) == {"images": 0, "boxes": 0}
    shares = next(work)
    assert len(shares) > 8
    for part, share in shares[:-3]:
        do_piece(plan, part, share, cutting())
    assert finish(plan, cutting()) == [*shares[-3:], (0, -1)]
    assert finish(plan, cutting()) == []


def test_a_damaged_share_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(large, "SHARE", 5 * 256 * 256)
    huge(tmp_path / "pictures")
    plan = open_plan(tmp_path / "found", list_shards(tmp_path / "pictures"), 4, {})
    for work in islice(plan.work(), 2):
        for part, share in work:
            do_piece(plan, part, share, cutting())
    (plan.folder / "tiles-000000-2.npz").write_bytes(b"no tiles")
    with pytest.raises(DataError, match=r"tiles-000000-2\.npz: can't be read"):
        do_piece(plan, 0, -1, cutting())
    (plan.folder / "large-000000.json").write_text("[{}]")
    with pytest.raises(DataError, match=r"large-000000\.json: can't be read"):
        do_piece(plan, 0, -1, cutting())


def test_a_shard_that_is_none_is_told(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"a\.tar: can't be read as a shard"):
        list_shards(tmp_path)
    (tmp_path / "a.tar").unlink()
    pl.DataFrame({"x": [1]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="no column of images"):
        list_shards(tmp_path)
    pl.DataFrame({"image": [np.zeros(4).tobytes(), None]}).write_parquet(tmp_path / "a.parquet")
    plan = open_plan(tmp_path / "found", list_shards(tmp_path / "a.parquet"), 4, {})
    assert len(predicted(plan).images) == 0
    assert [fault.place for fault in faults_of(plan)] == ["a/000000", "a/000001"]
