"""Where the labels of a data set are, in the layouts that people have."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from boxwright.data.formats.guessing import guess_format, guess_or_none
from boxwright.data.formats.yolo_layout import find_config, read_config, split_images
from boxwright.errors import DataError

TRAIN, VAL = ("train", "training", "trainval"), ("val", "valid", "validation", "test", "testing")
WHOLE = ""  # the name of what has no parts
DATA_ENDS = (".json", ".odgt", ".parquet", ".csv", ".jsonl", ".gz", "bbx_gt.txt")
# In names of files beside those that have the boxes, as COCO's captions have none.
OTHER_TASKS = re.compile("caption|keypoint|panoptic|stuff|image_info")
DEPTH, FOLDERS = 3, 200  # of folders that are looked through, where the one given holds no labels itself


@dataclass(frozen=True)
class Source:
    """What a config says of a source: its root, format and list; and files of labels that stand beside it."""

    root: Path
    format: str
    list_name: str | None = None
    beside: tuple[str, ...] = ()


def find_sources(place: Path) -> list[Source]:
    """All that a file or folder holds: itself where it has a format, else its parts, or the one in it that
    holds labels.

    Raises:
        DataError: nothing there is of a known format, or several files or folders may be meant.
    """
    if place.is_dir() and guess_or_none(place) is None:
        parts = _parts(place, None, None).values()
        own = [part for part in parts if not OTHER_TASKS.search(part.root.name)] or list(parts)
        if len(own) > 1:
            return own
        if (inner := _only(place, None)) != place:
            return find_sources(inner)
    return [Source(place, guess_format(place))]


def find_parts(
    place: Path, format: str | None, list_name: str | None, labels: str | None = None
) -> tuple[Source, Source | None]:
    """What to train on, and what to judge by where the data says so.

    Args:
        place: a file or folder.
        format: of it; None: told from the path.
        list_name: of VOC or YOLO, what to train on.
        labels: in the names of the files to take, where there are several.

    Raises:
        DataError: nothing there is of a known format, or several files may be meant.
    """
    if not place.exists():
        raise DataError(f"{place}: no such file or folder.")
    if list_name is not None or (place.is_file() and place.suffix not in (".yaml", ".yml")):
        return Source(place, format or guess_format(place), list_name), None
    parts = find_named(place, format, labels)
    if WHOLE in parts:
        return parts[WHOLE], None
    pair = _pair(parts)
    if pair is None:
        names = ", ".join(parts)
        raise DataError(f"{place}: {names}. Expected one of {', '.join(TRAIN)}, and one of {', '.join(VAL)}.")
    return pair


def find_named(place: Path, format: str | None = None, labels: str | None = None) -> dict[str, Source]:
    """The parts of a data set by name, train, val and the like, no image in two; or it alone, as `WHOLE`.

    Raises:
        DataError: nothing there is of a known format, or several files may be meant.
    """
    lists = {} if labels else _lists(place, format)
    parts = lists if _pair(lists) else _parts(place, format, labels)
    if _pair(parts) or (len(parts) > 1 and guess_or_none(place) is None):
        both = "train" in parts and ("val" in parts or "valid" in parts)
        twice = ("trainval" if both else "train") if "trainval" in parts else None
        return {name: parts[name] for name in (*TRAIN, *VAL) if name in parts and name != twice}
    if format is None or labels:
        inner = _only(place, labels)
        if inner != place:
            return find_named(inner, format)
    return {WHOLE: Source(place, format or guess_format(place))}


def _lists(place: Path, format: str | None) -> dict[str, Source]:
    """The lists or splits of one data set of VOC or YOLO."""
    name = format or guess_or_none(place)
    if name == "voc":
        devkit = [p for p in _folders(place) if (p / "ImageSets" / "Main").is_dir()]
        place = devkit[0] if len(devkit) == 1 else place
        stems = [p.stem for p in (place / "ImageSets" / "Main").glob("*.txt")]
        lists = [name for name in (*TRAIN, *VAL) if name in stems]
    elif name == "yolo":
        file = find_config(place)
        config = read_config(file) if file else {}
        found = {part: split_images(file, config, part) for part in (*TRAIN, *VAL) if file and part in config}
        lists = [part for part, images in found.items() if images]
        if len({tuple(found[part]) for part in lists}) < len(lists):
            lists = []  # one folder under two names
    else:
        return {}
    return {part: Source(place, name, part) for part in lists}


def _parts(place: Path, format: str | None, labels: str | None) -> dict[str, Source]:
    """Files or folders of one data set that are called train, val and the like."""
    parts: dict[str, list[Source]] = {}
    if place.is_dir():
        folders = [] if labels else _folders(place)
        for path in [*_files(place, labels), *folders]:
            words = re.split(r"[^a-z]+", path.name.lower())
            part = next((w for w in words if w in (*TRAIN, *VAL)), None)
            if part is None and path.parent.name.lower() in (*TRAIN, *VAL):
                part = path.parent.name.lower()
            known = format or (guess_or_none(path) if part else None)
            if part is not None and known is not None:
                parts.setdefault(part, []).append(Source(path, known))
    return {part: _first(sources) for part, sources in parts.items()}


def _first(sources: list[Source]) -> Source:
    """The first of a part that may have its boxes, and what stands beside it."""
    files = [s for s in sources if s.root.is_file()]
    first, *others = sorted(files, key=lambda s: bool(OTHER_TASKS.search(s.root.name))) or sources[:1]
    return replace(first, beside=tuple(other.root.name for other in others))


def _pair(parts: dict[str, Source]) -> tuple[Source, Source] | None:
    train = next((parts[n] for n in TRAIN if n in parts), None)
    val = next((parts[n] for n in VAL if n in parts), None)
    return None if train is None or val is None else (train, val)


def _only(place: Path, labels: str | None) -> Path:
    """The one file or folder of a folder that holds labels; the folder itself where it is one.

    Raises:
        DataError: several may be meant.
    """
    if not place.is_dir():
        return place
    files = [f for f in _files(place, labels) if guess_or_none(f) is not None]
    if len(files) == 1:
        return files[0]
    known = guess_or_none(place) is not None
    if labels or (files and not known):
        names = ", ".join(f.name for f in files[:5]) or f"none with '{labels}' in its name"
        raise DataError(f"{place}: which of its files holds the labels: {names}? Expected one of them.")
    inner = [place] if known else _inner(place)
    if len(inner) > 1:
        names = ", ".join(f"{p.relative_to(place)}" for p in inner[:5])
        raise DataError(f"{place}: which of its folders: {names}? Expected one of them.")
    return inner[0] if inner else place


def _inner(place: Path) -> list[Path]:
    """The folders of a known format that lie least deep, as an archive has one around what was packed."""
    level = [place]
    for _ in range(DEPTH):
        level = [p for folder in level for p in _folders(folder)][:FOLDERS]
        known = [
            p
            for p in level
            if _pair(_parts(p, None, None)) or guess_or_none(p) or any(map(guess_or_none, _files(p)))
        ]
        if known:
            return known
    return []


def _files(place: Path, labels: str | None = None) -> list[Path]:
    """Annotation files of a data set's folder, of its `annotations` and of the folders of its parts."""
    names = ("annotations", "labels", "wider_face_split", *TRAIN, *VAL)
    folders = [place, *(p for p in _folders(place) if p.name.lower() in names)]
    return [
        f
        for folder in folders
        for f in _entries(folder)
        if f.name.endswith(DATA_ENDS) and f.is_file() and (labels or "") in f.name
    ]


def _folders(place: Path) -> list[Path]:
    return [p for p in _entries(place) if p.is_dir()]


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, in order; nothing where that isn't told."""
    try:
        return sorted(folder.iterdir())
    except PermissionError:
        return []
