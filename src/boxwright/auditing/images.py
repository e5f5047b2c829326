"""What is wrong with the images of a data set: doubles, leaks between its parts, pictures of little use."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping

import numpy as np
import polars as pl

from boxwright.auditing.duplicates import FLAT, find_duplicates, similarity
from boxwright.auditing.fingerprints import Fingerprints, fingerprint
from boxwright.auditing.overlaps import find_overlaps
from boxwright.data.tables import Tables

DARK, BRIGHT = 20.0, 240.0  # mean grey value beyond which little can be seen
BLURRED = 4.0  # robust deviations of the log of sharpness over contrast below the part's median
BLURRED_SHARE = 0.4  # and share of that median below which an image is blurred
FRAMES, NEIGHBOURS = 8, 0.9  # images of a sequence at least, and similarity of most neighbours in it

IMAGE_FINDING_SCHEMA: dict[str, pl.DataType] = {
    # unreadable, leak, cut sequence, overlap, duplicate, dark, bright, flat, blurred, empty
    "kind": pl.String(),
    "severity": pl.String(),  # error or warning
    "part": pl.String(),
    "file_name": pl.String(),
    "path": pl.String(),
    "other_part": pl.String(),  # of a double
    "other": pl.String(),
    "other_path": pl.String(),
    "detail": pl.String(),
    "value": pl.Float64(),  # similarity, share, brightness, contrast, or sharpness over the median
}
ERRORS = ("unreadable", "leak", "cut sequence")


def audit_images(
    parts: Mapping[str, Tables], tell: Callable[[int], None] = lambda count: None, overlaps: bool = True
) -> pl.DataFrame:
    """Look at the images of all parts of a data set; `IMAGE_FINDING_SCHEMA`, errors first.

    Args:
        parts: tables by name, such as train and val.
        tell: called after each image.
        overlaps: look for images of different parts that show a piece of the same place.
    """
    images = _images_of(parts)
    sizes = images.select("width", "height").rows()
    stated = [(w, h) if w is not None and h is not None else None for w, h in sizes]
    overlaps = overlaps and len(parts) > 1
    prints = fingerprint(images["path"].to_list(), stated, tell, points=overlaps)
    doubles = _doubles(images, prints)
    rows = [
        *_unreadable(images, prints),
        *doubles,
        *_cut_sequences(images, prints),
        *(_overlaps(images, prints, doubles) if overlaps else ()),
        *_of_little_use(images, prints),
    ]
    for row in rows:
        row["severity"] = "error" if row["kind"] in ERRORS else "warning"
    table = pl.DataFrame(rows, schema=IMAGE_FINDING_SCHEMA)
    return table.sort("severity", maintain_order=True)


def _images_of(parts: Mapping[str, Tables]) -> pl.DataFrame:
    """All images, with their part and how many boxes they have."""
    tables = []
    for name, own in parts.items():
        boxes = np.bincount(own.boxes["image_id"].to_numpy(), minlength=len(own.images))
        named = own.images["file_name"].fill_null("?")
        tables.append(own.images.with_columns(file_name=named, part=pl.lit(name), boxes=pl.Series(boxes)))
    return pl.concat(tables)


def _finding(images: pl.DataFrame, n: int, kind: str, detail: str, value: float | None = None) -> dict:
    row = images.row(n, named=True)
    shown = {name: row[name] for name in ("part", "file_name", "path")}
    blank = dict.fromkeys(("other_part", "other", "other_path"))
    return {"kind": kind} | shown | blank | {"detail": detail, "value": value}


def _beside(images: pl.DataFrame, first: int, n: int, kind: str, detail: str, value: float) -> dict:
    """A finding of two images, the later one with the earlier beside it."""
    other = images.row(first, named=True)
    names = {"other_part": other["part"], "other": other["file_name"], "other_path": other["path"]}
    return _finding(images, n, kind, detail, value) | names


def _unreadable(images: pl.DataFrame, prints: Fingerprints) -> list[dict]:
    wrong = np.flatnonzero(prints.problems != "")
    return [_finding(images, n, "unreadable", prints.problems[n]) for n in wrong.tolist()]


def _doubles(images: pl.DataFrame, prints: Fingerprints) -> list[dict]:
    """Leaks from part to part before what is double within one."""
    part, rows = images["part"].to_list(), []
    for first, second, exact, orientation, alike in find_duplicates(prints).rows():
        kind = "leak" if part[first] != part[second] else "duplicate"
        how = "the same file" if exact else "the same picture" if orientation == "same" else orientation
        detail = f"{how} as {images['file_name'][first]} of {part[first]}"
        if not exact:
            detail += f", similarity {alike:.3f}"
        rows.append(_beside(images, first, second, kind, detail, alike))
    return sorted(rows, key=lambda row: row["kind"] != "leak")


def _overlaps(images: pl.DataFrame, prints: Fingerprints, doubles: list[dict]) -> list[dict]:
    """Images that show a piece of what one of another part shows, but for those that are nearly the same."""
    names, part, paths = images["file_name"], images["part"].to_list(), images["path"]
    number = {name: n for n, name in enumerate(dict.fromkeys(part))}
    known = {row["path"] for row in doubles if row["kind"] == "leak"}
    rows = []
    found = find_overlaps(prints.points, [number[name] for name in part])
    for first, second, share, points, turned, scale in found.rows():
        if paths[second] in known:
            continue
        moved = [f"turned by {abs(turned):.0f} degrees"] if abs(turned) >= 1 else []
        moved += [f"{scale:.2f} times as large"] if abs(scale - 1) >= 0.02 else []
        how = f" ({', '.join(moved)})" if moved else ""
        detail = f"{share:.0%} of it is in {names[first]} of {part[first]}{how}: {points} key points agree"
        rows.append(_beside(images, first, second, "overlap", detail, share))
    return rows


def _cut_sequences(images: pl.DataFrame, prints: Fingerprints) -> list[dict]:
    """Sequences of frames, by the numbers in their names, whose neighbours are in different parts."""
    frames: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for n, name in enumerate(images["file_name"]):
        match = re.fullmatch(r"(.*?)(\d+)(\D*)", name.rsplit("/", 1)[-1])
        if match and prints.digests[n]:
            frames[match[1]].append((int(match[2]), n))
    part, rows = images["part"].to_list(), []
    for name, numbered in frames.items():
        order = [n for _, n in sorted(numbered)]
        if len(order) < FRAMES or len({part[n] for n in order}) < 2:
            continue
        pairs = np.column_stack([order[:-1], order[1:]])
        alike = similarity(prints.thumbnails, pairs, np.zeros(len(pairs), dtype=int))
        cuts = [(a, b) for a, b in pairs.tolist() if part[a] != part[b]]
        if cuts and np.median(alike) >= NEIGHBOURS:
            first, second = cuts[0]
            detail = (
                f"{len(cuts):,} of {len(pairs):,} neighbours of the sequence {name}* are in different parts"
            )
            rows.append(_beside(images, first, second, "cut sequence", detail, float(np.median(alike))))
    return rows


def _of_little_use(images: pl.DataFrame, prints: Fingerprints) -> list[dict]:
    rows, part = [], images["part"].to_numpy()
    seen = prints.digests != ""
    with np.errstate(divide="ignore", invalid="ignore"):
        sharp = np.log(prints.sharpness / prints.contrast)  # dark pictures aren't blurred ones
    for name in dict.fromkeys(part.tolist()):
        own = seen & (part == name) & np.isfinite(sharp)
        if not own.any():
            continue
        middle = np.median(sharp[own])
        spread = max(1.4826 * np.median(np.abs(sharp[own] - middle)), 1e-6)
        limit = min(middle - BLURRED * spread, middle + np.log(BLURRED_SHARE))
        for n in np.flatnonzero(own & (sharp < limit) & (prints.contrast >= FLAT)).tolist():
            share = float(np.exp(sharp[n] - middle))
            rows.append(_finding(images, n, "blurred", f"{share:.0%} of the usual sharpness", share))
    for kind, wanted, values in (
        ("flat", prints.contrast < FLAT, prints.contrast),
        ("dark", (prints.brightness < DARK) & (prints.contrast >= FLAT), prints.brightness),
        ("bright", (prints.brightness > BRIGHT) & (prints.contrast >= FLAT), prints.brightness),
    ):
        what = "deviation of the grey values" if kind == "flat" else "mean grey value"
        for n in np.flatnonzero(seen & wanted).tolist():
            rows.append(_finding(images, n, kind, f"{what} {values[n]:.1f} of 255", float(values[n])))
    for n in np.flatnonzero(images["boxes"].to_numpy() == 0).tolist():
        rows.append(_finding(images, n, "empty", "no box"))
    return rows
