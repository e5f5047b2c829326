"""MOTChallenge: boxes of videos, a line each: `frame,id,x,y,w,h,confidence,class,visibility`.

A sequence is a folder with `seqinfo.ini`, `img1/` and `gt/gt.txt` (or `det/det.txt`); a tracker's results are
a file a sequence, `SEQUENCE.txt`. Read are a file, a sequence, a folder of either. Frames count from 1. In
truth a confidence of 0 marks what neither counts nor is a fault; in results -1 stands for none, and is read
as 1. Names of classes are MOT16's, or those of `gt/labels.txt`, a line each (as CVAT writes them). Numbers
stay as they are, though MATLAB's first pixel is 1.
Source: Milan et al., MOT16: A Benchmark for Multi-Object Tracking, arXiv:1603.00831, section 4.
"""

from configparser import ConfigParser, Error
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from boxwright.data.builder import TableBuilder, as_integer, as_number, unpack
from boxwright.data.formats.files import read_bytes, read_lines, write_atomic
from boxwright.data.formats.options import ReadOptions
from boxwright.data.images import IMAGE_SUFFIXES, image_size
from boxwright.data.tables import Tables
from boxwright.errors import DataError

MAX_BYTES = 1 << 30
MAX_INFO_BYTES = 1 << 20
MAX_FRAMES = 1_000_000
CLASSES = (
    "pedestrian", "person on vehicle", "car", "bicycle", "motorbike", "non motorized vehicle",
    "static person", "distractor", "occluder", "occluder on the ground", "occluder full", "reflection",
    "crowd",
)  # fmt: skip
INFO = "seqinfo.ini"
TRUTH = Path("gt") / "gt.txt"
DETECTIONS = Path("det") / "det.txt"


@dataclass
class _Sequence:
    name: str
    file: Path
    folder: Path | None  # that seqinfo.ini is in
    classes: tuple[str, ...] = CLASSES
    images: str = "img1"
    suffix: str = ".jpg"
    length: int = 0
    size: tuple[int | None, int | None] = (None, None)
    image_ids: dict[int, int] = field(default_factory=dict)


def read(path: Path, options: ReadOptions) -> Tables:
    """Read a file, a sequence, or a folder of sequences or of results.

    Raises:
        DataError: none is there, or an image folder is given for several sequences.
    """
    options.only("mot", "images")
    files = _files_of(path)
    if not files:
        raise DataError(f"{path}: no sequence with {TRUTH} or {DETECTIONS}, and no .txt of results.")
    if options.images and len(files) > 1:
        raise DataError(f"{path}: {len(files)} sequences, but a folder of images for one.")
    builder = TableBuilder(path.stem)
    for file in files:
        sequence = _sequence_of(builder, file)
        for frame in range(1, sequence.length + 1):
            _image(builder, sequence, frame, options.images)
        _read_boxes(builder, sequence, options.images)
    return builder.build()


def is_mot(start: bytes) -> bool:
    """Whether a text file begins with a line of at least seven numbers between commas."""
    lines = start.decode(errors="replace").splitlines()
    words = lines[0].split(",") if lines else []
    return len(words) >= 7 and all(as_number(word) is not None for word in words)


def is_mot_folder(path: Path) -> bool:
    """Whether a folder is a sequence, or holds some."""
    return (path / INFO).is_file() or next(path.glob(f"*/{INFO}"), None) is not None


def _files_of(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    places = [path] if (path / INFO).is_file() else sorted(p.parent for p in path.glob(f"*/{INFO}"))
    found = [next((p / f for f in (TRUTH, DETECTIONS) if (p / f).is_file()), None) for p in places]
    return [f for f in found if f] if places else sorted(path.glob("*.txt"))


def _sequence_of(builder: TableBuilder, file: Path) -> _Sequence:
    """The sequence of a file, by the seqinfo.ini above it."""
    folder = file.parent.parent if file.parent.name in ("gt", "det") else None
    if folder is None:
        return _Sequence(file.stem, file, None)
    sequence = _Sequence(folder.resolve().name, file, folder)
    labels = file.parent / "labels.txt"
    if labels.is_file():
        lines, _ = read_lines(labels, MAX_INFO_BYTES)
        sequence.classes = tuple(line.strip() for line in lines if line.strip()) or CLASSES
    if (folder / INFO).is_file():
        _read_info(builder, sequence, folder / INFO)
    return sequence


def _read_info(builder: TableBuilder, sequence: _Sequence, path: Path) -> None:
    parser = ConfigParser(interpolation=None)
    try:
        parser.read_string(read_bytes(path, MAX_INFO_BYTES).decode("utf-8-sig", errors="replace"))
        info = dict(parser["Sequence"])
    except (Error, KeyError) as error:
        builder.error("seqinfo", str(path), f"not usable: {str(error).splitlines()[0]}.")
        return
    length = as_integer(info.get("seqlength"))
    if length is None or not 0 < length <= MAX_FRAMES:
        builder.error(
            "seqinfo", str(path), f"seqLength {info.get('seqlength')}, expected 1 to {MAX_FRAMES:,}."
        )
    else:
        sequence.length = length
    sequence.size = (as_integer(info.get("imwidth")), as_integer(info.get("imheight")))
    folder, suffix = info.get("imdir", sequence.images), info.get("imext", sequence.suffix)
    if folder and suffix and {"/", "\\", "\0", ".."}.isdisjoint({*folder, *suffix, folder, suffix}):
        sequence.images, sequence.suffix = folder, suffix


def _image(builder: TableBuilder, sequence: _Sequence, frame: int, images: Path | None) -> int:
    """The id of a frame's image, added where it isn't there yet."""
    if frame not in sequence.image_ids:
        name = f"{frame:06d}{sequence.suffix}"
        folder = images or (sequence.folder and sequence.folder / sequence.images)
        suffixes = dict.fromkeys((sequence.suffix, *IMAGE_SUFFIXES)) if folder and folder.is_dir() else ()
        places = (folder / f"{frame:06d}{suffix}" for suffix in suffixes if folder)
        path = next((place for place in places if place.is_file()), None)
        sequence.image_ids[frame] = builder.image(
            f"{sequence.name}/{sequence.images}/{path.name if path else name}",
            str(path) if path else None,
            *_size_of(sequence, path),
            attributes={"video": sequence.name, "frame": frame},
        )
    return sequence.image_ids[frame]


def _size_of(sequence: _Sequence, path: Path | None) -> tuple[int | None, int | None]:
    """The size that seqinfo.ini gives, else the file's."""
    if sequence.size != (None, None) or path is None:
        return sequence.size
    try:
        return image_size(path)[:2]
    except DataError:
        return None, None  # told when somebody wants its pixels


def _read_boxes(builder: TableBuilder, sequence: _Sequence, images: Path | None) -> None:
    lines, clean = read_lines(sequence.file, MAX_BYTES)
    if not clean:
        builder.warning("encoding", str(sequence.file), "bytes that are not UTF-8.")
    truth = sequence.file.parent.name == "gt"
    where = f"{sequence.file}, line"
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        words = line.split(",")
        frame, track = (as_integer(w) for w in (*words[:2], "", "")[:2])
        numbers = [as_number(word) for word in words[2:7]]
        if len(numbers) < 5 or None in numbers or frame is None or track is None:
            builder.error("bbox", f"{where} {number}", f"'{line:.60}', expected frame,id,x,y,w,h,conf.", True)
            continue
        if not 1 <= frame <= MAX_FRAMES:
            builder.error("frame", f"{where} {number}", f"frame {frame}, expected 1 to {MAX_FRAMES:,}.", True)
            continue
        if sequence.length and frame > sequence.length:
            builder.error("frame", f"{where} {number}", f"frame {frame} of {sequence.length} by {INFO}.")
        x, y, w, h, confidence = (float(n) for n in numbers if n is not None)
        builder.box(
            (where, number),
            _image(builder, sequence, frame, images),
            builder.category(_class_of(sequence, words)),
            (x, y, w, h),
            score=None if truth else 1.0 if confidence == -1 else confidence,
            ignore=truth and confidence == 0,
            attributes=_attributes(track, words) or None,
        )


def _class_of(sequence: _Sequence, words: list[str]) -> str:
    number = as_integer(words[7]) if len(words) > 7 else None
    if number is None or number < 1:  # MOT15 has a place in the world there
        return sequence.classes[0]
    return sequence.classes[number - 1] if number <= len(sequence.classes) else f"class {number}"


def _attributes(track: int, words: list[str]) -> dict:
    found = {} if track < 0 else {"track_id": track}
    visibility = as_number(words[8]) if len(words) == 9 else None
    return found | ({"visibility": visibility} if visibility is not None and 0 <= visibility <= 1 else {})


def write(tables: Tables, path: Path) -> None:
    """Write a results file of one video (`path` ends in .txt), or into a folder: a file of results each where
    boxes have scores, else a sequence each. Of oriented boxes upright hulls are written.

    Raises:
        DataError: a track id is no whole number, one file would hold several videos, or a video's name can't
            be one of a file.
    """
    videos = tables.videos()
    names = list(dict.fromkeys(videos))
    if path.suffix == ".txt" and len(names) > 1:
        raise DataError(f"{path}: {len(names)} videos, expected one; give a folder for a file each.")
    scored = len(tables.boxes) > 0 and tables.boxes["score"].null_count() == 0
    frames = tables.frames()
    lines = _lines(tables, frames, scored)
    of_box, of_image = tables.boxes["image_id"].to_numpy(), np.array(videos, dtype=object)
    for name in names:
        own = [lines[row] for row in np.flatnonzero(of_image[of_box] == name)]
        content = "".join(sorted(own, key=lambda line: int(line.partition(",")[0]))).encode()
        flat = name.replace("/", "-") or "video"
        if flat in (".", "..") or "\\" in flat or "\0" in flat:
            raise DataError(f"{path}: a video named '{name}' can't be a file.")
        if path.suffix == ".txt" or scored:
            write_atomic(path if path.suffix == ".txt" else path / f"{flat}.txt", content)
            continue
        write_atomic(path / flat / TRUTH, content)
        labels = "".join(f"{c}\n" for c in tables.categories["name"])
        write_atomic(path / flat / TRUTH.with_name("labels.txt"), labels.encode())
        write_atomic(
            path / flat / INFO, _info(tables, flat, np.flatnonzero(of_image == name), frames).encode()
        )


def _lines(tables: Tables, frames: np.ndarray, scored: bool) -> list[str]:
    boxes = tables.boxes
    rows = zip(
        frames[boxes["image_id"].to_numpy()].tolist(), tables.upright().tolist(), boxes["category_id"],
        boxes["score"], boxes["ignore"] | boxes["crowd"], boxes["attributes"], strict=True,
    )  # fmt: skip
    lines = []
    for frame, box, category, score, ignored, text in rows:
        attributes = unpack(text)
        track = as_integer(attributes.get("track_id", -1))
        if track is None:
            raise DataError(f"track_id {attributes['track_id']!r}, expected a whole number for MOT.")
        confidence = score if scored else int(not ignored)
        last = "-1" if scored else f"{attributes.get('visibility', 1)}"
        numbers = ",".join(f"{v:.10g}" for v in (*box, confidence))
        lines.append(f"{frame},{track},{numbers},{category + 1},{last}{',-1' if scored else ''}\n")
    return lines


def _info(tables: Tables, name: str, images: np.ndarray, frames: np.ndarray) -> str:
    row = tables.images.row(int(images[0]), named=True)
    suffix = Path(row["file_name"] or "").suffix or ".jpg"
    known = tables.images[images].select("width", "height").unique()
    one = len(known) == 1 and row["width"] is not None
    sizes = [f"imWidth={row['width']}", f"imHeight={row['height']}"] if one else []
    lines = ["[Sequence]", f"name={name}", "imDir=img1", f"seqLength={int(frames[images].max())}", *sizes]
    return "\n".join([*lines, f"imExt={suffix}"]) + "\n"
