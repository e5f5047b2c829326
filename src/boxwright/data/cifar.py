"""CIFAR-10 as it is published, unpacked to image files in a folder a class.

https://www.cs.toronto.edu/~kriz/cifar.html: both versions, of rows of bytes and of Python's pickles; what is
pickled is hostile until shown to be arrays, lists, numbers and text.
"""

import io
import pickle
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from boxwright.errors import DataError
from boxwright.progress import track

SIDE = 32
PIXELS = 3 * SIDE * SIDE  # of an image: all of red, of green, of blue
MAX_BYTES = 256 << 20  # of a file; the published ones have 30 MB
TRAIN, TEST = tuple(f"data_batch_{n}" for n in range(1, 6)), ("test_batch",)
FOLDERS = ("", "cifar-10-batches-bin", "cifar-10-batches-py")


def find_cifar(folder: Path) -> Path | None:
    """The folder with CIFAR-10's files, where it is this one or lies in it."""
    for name in FOLDERS:
        if any((folder / name / f"batches.meta{suffix}").is_file() for suffix in ("", ".txt")):
            return folder / name
    return None


def unpack_cifar(folder: Path, target: Path) -> None:
    """Write every image as `target/PART/CLASS/FILE-NUMBER.png`, unless that has been done.

    Args:
        folder: with CIFAR-10's files.
        target: gets train and, where the test file is there, val; it is whole or not there.

    Raises:
        DataError: a file is damaged, or there is none to train on.
    """
    if target.is_dir():
        return
    names = _class_names(folder)
    files = [(part, path) for part, stem in _parts() for path in _files_of(folder, stem)]
    if not any(part == "train" for part, _ in files):
        raise DataError(
            f"{folder}: expected data_batch_1 and so on, or data_batch_1.bin, beside batches.meta."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as place:
        for part, path in track("unpack CIFAR-10", files):
            for n, (label, pixels) in enumerate(_records(path, len(names))):
                file = Path(place, "images", part, names[label], f"{path.stem}-{n:05d}.png")
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(file)
        shutil.move(Path(place, "images"), target)


def _parts() -> list[tuple[str, str]]:
    return [("train", stem) for stem in TRAIN] + [("val", stem) for stem in TEST]


def _files_of(folder: Path, stem: str) -> list[Path]:
    found = [folder / f"{stem}{suffix}" for suffix in (".bin", "")]
    return [path for path in found if path.is_file()][:1]


def _class_names(folder: Path) -> list[str]:
    text, pickled = folder / "batches.meta.txt", folder / "batches.meta"
    if text.is_file():
        names: Any = [line.strip() for line in _read(text).decode(errors="replace").splitlines()]
    else:
        names = _as_text(_unpickle(pickled).get("label_names"))
    names = [name for name in names if name] if isinstance(names, list) else []
    if not names or any(not isinstance(n, str) or Path(n).name != n or n.startswith(".") for n in names):
        raise DataError(
            f"{text if text.is_file() else pickled}: expected names of classes, found {names!r:.80}."
        )
    return names


def _records(path: Path, classes: int) -> Iterator[tuple[int, np.ndarray]]:
    """Label and pixels (32, 32, 3) of each image of a file."""
    if path.suffix == ".bin":
        raw = np.frombuffer(_read(path), dtype=np.uint8)
        if not len(raw) or len(raw) % (PIXELS + 1):
            raise DataError(f"{path}: {len(raw):,} bytes, expected a multiple of {PIXELS + 1:,}.")
        rows = raw.reshape(-1, PIXELS + 1)
        labels, data = rows[:, 0], rows[:, 1:]
    else:
        content = _unpickle(path)
        data = content.get("data")
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (PIXELS,):
            raise DataError(f"{path}: data is {type(data).__name__}, expected rows of {PIXELS:,} bytes.")
        try:
            labels = np.asarray(content.get("labels"), dtype=np.int64)
        except (TypeError, ValueError, OverflowError):
            labels = np.zeros(0)
        if labels.shape != data.shape[:1]:
            raise DataError(f"{path}: labels are no numbers for {len(data):,} images.")
    if not len(labels):
        raise DataError(f"{path}: no image in it.")
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"{path}: labels from {labels.min()} to {labels.max()}, and {classes} classes.")
    pixels = data.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return ((int(label), image) for label, image in zip(labels, np.ascontiguousarray(pixels)))


def _read(path: Path) -> bytes:
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise DataError(f"{path}: {size:,} bytes; CIFAR-10's files have no more than {MAX_BYTES:,}.")
    return path.read_bytes()


class _ArraysOnly(pickle.Unpickler):
    """Makes NumPy's arrays and what Python writes itself, and calls nothing else that a file names."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):  # bytes, as Python 3 writes them for 2
            return lambda text, encoding: text.encode("latin1")
        raise pickle.UnpicklingError(f"it calls {module}.{name}")


def _unpickle(path: Path) -> dict[str, Any]:
    try:
        content = _ArraysOnly(io.BytesIO(_read(path)), encoding="bytes").load()
    except DataError:
        raise
    except Exception as error:  # a broken pickle can raise anything
        raise DataError(f"{path}: not a usable pickle: {error}.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: a pickled {type(content).__name__}, expected a dict.")
    return {str(_as_text(key)): value for key, value in content.items()}


def _as_text(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_text(v) for v in value]
    return value.decode(errors="replace") if isinstance(value, bytes) else value
