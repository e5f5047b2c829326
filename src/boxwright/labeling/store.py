"""The store of a review: every box as it was and as it is, and every action, in one SQLite file.

An action is on the disk before it is answered (WAL, synchronous FULL), so that a killed server loses none.
Each box has a version: whoever changes one that somebody else has changed meanwhile is told so, and nothing
is overwritten. Several servers may have the same file open.
"""

import hashlib
import json
import math
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl

from boxwright.data.oriented import wrap
from boxwright.data.tables import BOX_SCHEMA, CATEGORY_SCHEMA, IMAGE_SCHEMA, Tables
from boxwright.errors import BoxwrightError, ConfigError, DataError

VERSION = "1"
GEOMETRY = ("x", "y", "w", "h", "angle")
STATES = ("open", "accepted", "flagged")
SHAPES = ("upright", "oriented", "headings")  # of boxes that are drawn; the last tell front from back
MOST_SECONDS = 600.0  # that one action can have taken
MAX_COORDINATE = 1e6  # px
TABLES = """
create table about (key text primary key, value text not null);
create table images (
    image_id integer primary key, content text not null, state text not null default 'open', person text
);
create table boxes (
    box_id integer primary key, image_id integer not null, version integer not null default 0,
    first text, now text, origin text not null
);
create index boxes_of_image on boxes (image_id);
create table actions (
    action_id integer primary key, key text not null unique, at text not null, person text not null,
    kind text not null, image_id integer not null, box_id integer, before text, after text,
    seconds real not null
);
create index actions_of_image on actions (image_id);
"""


class ChangedMeanwhileError(BoxwrightError):
    """Somebody else has changed the box since it was shown."""

    def __init__(self, box: dict[str, Any]):
        super().__init__(f"box {box['box_id']} was changed by somebody else meanwhile.")
        self.box = box


@dataclass(frozen=True)
class Change:
    """What a person does to a box, or to the state of an image.

    Attributes:
        key: chosen by whoever asks; the same again changes nothing.
        person: who.
        image_id: of which image.
        seconds: since the person's action before.
        box_id: of which box; None: a new one, or the image.
        version: that the person saw.
        after: category_id, x, y, w, h, angle; None: it goes, or it's about the image.
        state: of the image, where that is what changes.
        origin: of a new box: drawn, or model where a prediction was taken.
        undo: it takes back, or does again, an earlier one.
    """

    key: str
    person: str
    image_id: int
    seconds: float = 0.0
    box_id: int | None = None
    version: int = 0
    after: dict[str, Any] | None = None
    state: str | None = None
    origin: str = "drawn"
    undo: bool = False


class Store:
    """A review's file.

    Args:
        path: of the file.
        labels: what is reviewed, for a new file; None: the file is there.
        draw: one of `SHAPES`; None: as the labels' boxes are, or as the file says.

    Raises:
        ConfigError: the file isn't there, or is of other labels or for other shapes.
        DataError: it is no such file.
    """

    def __init__(self, path: Path, labels: Tables | None = None, draw: str | None = None):
        if draw not in (None, *SHAPES):
            raise ConfigError(f"boxes to draw: {draw}, expected one of {', '.join(SHAPES)}.")
        self.path, self._lock = path, threading.Lock()
        if labels is None and not path.is_file():
            raise ConfigError(f"{path}: no such file. `boxwright label DATA -o {path}` makes one.")
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
        self._connection.row_factory = sqlite3.Row
        try:
            self._connection.execute("pragma journal_mode = wal")
            self._connection.execute("pragma synchronous = full")
            # A file that was made and not filled, as somebody stopped it, is as good as none.
            if labels is not None and not self._all("select 1 from sqlite_master"):
                with self._writing() as write:
                    _fill(write, labels, draw)
            about = dict(map(tuple, self._all("select key, value from about")))
        except sqlite3.DatabaseError as error:
            raise DataError(f"{path}: not the store of a review: {error}.") from error
        if about.get("version") != VERSION:
            raise DataError(f"{path}: a store of version {about.get('version')}, expected {VERSION}.")
        if labels is not None and about["labels"] != fingerprint(labels):
            raise ConfigError(f"{path} is the review of other labels: choose another file with -o.")
        self.labels: str = about["labels"]  # their fingerprint
        self.categories: list[str] = [row["name"] for row in json.loads(about["categories"])]
        self.oriented, self.headings = about["oriented"] == "1", about["headings"] == "1"
        self._category_rows = json.loads(about["categories"])
        own = SHAPES[int(self.oriented) + int(self.headings)]
        if draw not in (None, own):
            raise ConfigError(f"{path} is a review in which {own} boxes are drawn, not {draw} ones.")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def images(self) -> list[dict[str, Any]]:
        """Of each image: its row of the image table, state and person."""
        rows = self._all("select * from images order by image_id")
        return [json.loads(row["content"]) | {"state": row["state"], "person": row["person"]} for row in rows]

    def boxes(self, image_id: int) -> list[dict[str, Any]]:
        """The boxes of an image as they are: box_id, version, origin, and the row of the box table."""
        rows = self._all(
            "select * from boxes where image_id = ? and now is not null order by box_id", image_id
        )
        return [_shown(row) for row in rows]

    def last_action(self) -> int:
        """Number of the last action, 0 before the first."""
        return self._all("select coalesce(max(action_id), 0) as n from actions")[0]["n"]

    def actions(self, after: int = 0) -> list[dict[str, Any]]:
        """All actions after one, in order, with the box's version."""
        rows = self._all("select * from actions where action_id > ? order by action_id", after)
        return [_unpacked(row) for row in rows]

    def box(self, box_id: int) -> dict[str, Any]:
        """A box as it is; `gone` where it was taken out.

        Raises:
            ConfigError: there is none.
        """
        rows = self._all("select * from boxes where box_id = ?", box_id)
        if not rows:
            raise ConfigError(f"there is no box {box_id}.")
        return _shown(rows[0])

    def act(self, change: Change) -> dict[str, Any]:
        """Take an action; it is on the disk when this returns.

        Returns:
            The action, and under `box` the box as it is then.

        Raises:
            ConfigError: no such image or box, or numbers that no box can have.
            ChangedMeanwhileError: somebody else has changed the box since.
        """
        with self._writing() as write:
            done = write.execute("select * from actions where key = ?", (change.key,)).fetchone()
            number = done["action_id"] if done else self._change(write, change)
            action = _unpacked(
                write.execute("select * from actions where action_id = ?", (number,)).fetchone()
            )
            if action["box_id"] is None:
                return action
            row = write.execute("select * from boxes where box_id = ?", (action["box_id"],)).fetchone()
            return action | {"box": _shown(row)}

    def _change(self, write: sqlite3.Connection, change: Change) -> int:
        image = write.execute("select * from images where image_id = ?", (change.image_id,)).fetchone()
        if image is None:
            raise ConfigError(f"there is no image {change.image_id}.")
        if change.state is not None:
            return self._set_state(write, change, image["state"])
        if change.box_id is None:
            if change.after is None:
                raise ConfigError("a new box needs numbers.")
            after = self._checked(change.after, self.oriented)
            whole = _blank(change.image_id) | after | {"area": after["w"] * after["h"]}
            whole["source"] = change.person
            row = (change.image_id, _packed(whole), change.origin)
            found = write.execute("insert into boxes (image_id, now, origin) values (?, ?, ?)", row)
            return _log(write, change, "add", found.lastrowid, None, whole)
        row = write.execute("select * from boxes where box_id = ?", (change.box_id,)).fetchone()
        if row is None or row["image_id"] != change.image_id:
            raise ConfigError(f"there is no box {change.box_id} in image {change.image_id}.")
        if row["version"] != change.version:
            raise ChangedMeanwhileError(_shown(row))
        before, whole = json.loads(row["now"]) if row["now"] else None, None
        if change.after is not None:
            was = before or self._last_shape(write, change.box_id)
            after = self._checked(change.after, was["angle"] is not None)
            whole = _changed(was, after) | {"source": change.person}
        write.execute(
            "update boxes set now = ?, version = version + 1 where box_id = ?",
            (_packed(whole), change.box_id),
        )
        return _log(write, change, _kind(before, whole, change.undo), change.box_id, before, whole)

    def _set_state(self, write: sqlite3.Connection, change: Change, before: str) -> int:
        if change.state not in STATES:
            raise ConfigError(f"state {change.state}, expected one of {', '.join(STATES)}.")
        write.execute(
            "update images set state = ?, person = ? where image_id = ?",
            (change.state, change.person, change.image_id),
        )
        return _log(write, change, "state", None, before, change.state)

    def _last_shape(self, write: sqlite3.Connection, box_id: int) -> dict[str, Any]:
        """A box before it was taken out."""
        row = write.execute(
            "select before from actions where box_id = ? and after is null order by action_id desc", (box_id,)
        ).fetchone()
        return json.loads(row["before"])

    def _checked(self, after: dict[str, Any], oriented: bool) -> dict[str, Any]:
        """Numbers that a box of these labels can have; with an angle where it is `oriented`, else without."""
        if not oriented and after.get("angle") is not None:
            raise ConfigError(f"an angle of {after['angle']:g}, expected a box without one, as it was.")
        numbers: dict[str, float] = {}
        for name in GEOMETRY if oriented else GEOMETRY[:4]:
            value = after.get(name)
            if not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > MAX_COORDINATE:
                raise ConfigError(f"{name} is {value}, expected a number.")
            numbers[name] = float(value)
        category = after.get("category_id")
        if not isinstance(category, int) or not 0 <= category < len(self.categories):
            raise ConfigError(f"category {category}, expected 0 to {len(self.categories) - 1}.")
        if numbers["w"] <= 0 or numbers["h"] <= 0:
            raise ConfigError(f"a box of {numbers['w']:g} x {numbers['h']:g}, expected sides above 0.")
        period = 2 * math.pi if self.headings else math.pi
        angle = float(wrap(np.float64(numbers["angle"]), period)) if oriented else None
        return {**numbers, "angle": angle, "category_id": category}

    def tables(self, first: bool = False) -> Tables:
        """The labels as they are, or as they were at `first`."""
        column = "first" if first else "now"
        query = f"select {column} as box from boxes where {column} is not null order by image_id, box_id"
        boxes = [json.loads(row["box"]) for row in self._all(query)]
        images = [json.loads(row["content"]) for row in self._all("select content from images")]
        return Tables(
            pl.DataFrame(images, schema=IMAGE_SCHEMA),
            pl.DataFrame(boxes, schema=BOX_SCHEMA),
            pl.DataFrame(self._category_rows, schema=CATEGORY_SCHEMA),
        )

    def box_ids(self) -> np.ndarray:
        """(N,) the number of each box of `tables()`."""
        rows = self._all("select box_id from boxes where now is not null order by image_id, box_id")
        return np.array([row["box_id"] for row in rows], dtype=np.int64)

    def every_box(self) -> list[dict[str, Any]]:
        """Of all boxes, taken out or not: box_id, image_id, origin, first and now."""
        rows = self._all("select * from boxes order by box_id")
        return [
            {name: row[name] for name in ("box_id", "image_id", "origin")}
            | {name: json.loads(row[name]) if row[name] else None for name in ("first", "now")}
            for row in rows
        ]

    def _all(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, alone from its first line on."""
        with self._lock:
            self._connection.execute("begin immediate")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("rollback")
                raise
            self._connection.execute("commit")


def shape_of(tables: Tables) -> str:
    """Which of `SHAPES` boxes have."""
    if tables.has_headings():
        return "headings"
    return "oriented" if tables.has_angles() else "upright"


def fingerprint(labels: Tables) -> str:
    """Tells labels apart, by their images' names, boxes and classes; the same on every machine."""
    digest = hashlib.sha256()
    for names in (labels.images["file_name"], labels.categories["name"]):
        digest.update(orjson.dumps(names.to_list()))
    digest.update(labels.boxes.select("image_id", "category_id").to_numpy().astype("<i8").tobytes())
    digest.update(labels.boxes.select(GEOMETRY).fill_null(0.0).to_numpy().astype("<f8").tobytes())
    return digest.hexdigest()[:16]


def _fill(write: sqlite3.Connection, labels: Tables, draw: str | None) -> None:
    draw = draw or shape_of(labels)
    about = {
        "version": VERSION,
        "labels": fingerprint(labels),
        "categories": orjson.dumps(labels.categories.to_dicts()).decode(),
        "oriented": str(int(draw != "upright")),
        "headings": str(int(draw == "headings")),
    }
    for statement in TABLES.split(";"):
        write.execute(statement)
    write.executemany("insert into about values (?, ?)", about.items())
    images = ((row["image_id"], _packed(row)) for row in labels.images.iter_rows(named=True))
    write.executemany("insert into images (image_id, content) values (?, ?)", images)
    packed = ((row["image_id"], _packed(row)) for row in labels.boxes.iter_rows(named=True))
    write.executemany(
        "insert into boxes (image_id, first, now, origin) values (?1, ?2, ?2, 'labels')", packed
    )


def _log(write, change: Change, kind: str, box_id: int | None, before: Any, after: Any) -> int:
    row = {
        "key": change.key,
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "person": change.person,
        "kind": kind,
        "image_id": change.image_id,
        "box_id": box_id,
        "before": _packed(before),
        "after": _packed(after),
        "seconds": min(max(change.seconds, 0.0), MOST_SECONDS),
    }
    query = f"insert into actions ({', '.join(row)}) values ({', '.join('?' * len(row))})"
    return write.execute(query, tuple(row.values())).lastrowid


def _kind(before: dict | None, after: dict | None, undo: bool) -> str:
    if undo:
        return "undo"
    if after is None:
        return "remove"
    if before is None:
        return "restore"
    return "class" if before["category_id"] != after["category_id"] else "shape"


def _changed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The whole row of a box with other numbers; an area of its own grows with the sides."""
    whole, new = before["w"] * before["h"], after["w"] * after["h"]
    same = all(before[name] == after[name] for name in GEOMETRY)
    share = before["area"] / whole if whole > 0 and before["area"] is not None else 1.0
    landmarks = before["landmarks"] if same else None  # points of another box are nobody's
    return before | after | {"area": new * share, "landmarks": landmarks}


def _blank(image_id: int) -> dict[str, Any]:
    flags = dict.fromkeys(("crowd", "ignore", "difficult"), False)
    return dict.fromkeys(BOX_SCHEMA) | flags | {"image_id": image_id}


def _packed(content: Any) -> str | None:
    return None if content is None else orjson.dumps(content).decode()


def _shown(row: sqlite3.Row) -> dict[str, Any]:
    own = {name: row[name] for name in ("box_id", "image_id", "version", "origin")}
    return own | (json.loads(row["now"]) if row["now"] else {"gone": True})


def _unpacked(row: sqlite3.Row) -> dict[str, Any]:
    packed = {name: json.loads(row[name]) if row[name] else None for name in ("before", "after")}
    return {name: row[name] for name in row.keys() if name != "key"} | packed  # noqa: SIM118
