"""Where predictions go: tables in files, and images drawn with their boxes."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from boxwright.data import formats
from boxwright.data.drawing import Annotator, of_image
from boxwright.data.formats.placing import OF_FOLDERS
from boxwright.data.images import load_image
from boxwright.data.tables import Tables
from boxwright.data.transforms import resize
from boxwright.data.video import VIDEO_SUFFIXES, VideoWriter
from boxwright.errors import ConfigError, DataError, Fault, nearest
from boxwright.progress import track

TABLES = {".txt": "mot"} | dict.fromkeys((".parquet", ".json", ".odgt"))  # None: as `formats.write` has it
PICTURES = "pictures"
RATE = 25  # frames a second of a video made of images


@dataclass(frozen=True)
class Outputs:
    """What is written.

    Attributes:
        tables: paths and their formats; None: told from the suffix.
        videos: files that are drawn on.
        pictures: folders of drawn images.
        min_score: boxes below aren't drawn; None: below their operating thresholds.
    """

    tables: tuple[tuple[Path, str | None], ...] = ()
    videos: tuple[Path, ...] = ()
    pictures: tuple[Path, ...] = ()
    min_score: float | None = None

    @property
    def drawn(self) -> bool:
        return bool(self.videos or self.pictures)

    def write_tables(self, tables: Tables) -> None:
        for path, name in self.tables:
            formats.write(tables, path, name)

    def draw_images(self, tables: Tables) -> list[Fault]:
        """Draw every image of the tables; gives those that can't be."""
        if not self.drawn:
            return []
        annotator, faults = Annotator(self.min_score), []
        with Canvases(self, Fraction(RATE)) as canvases:
            for row in track("draw", tables.images.to_dicts()):
                try:
                    pixels = load_image(row["path"], (row["width"], row["height"]))
                except DataError as error:
                    faults.append(Fault("not-drawn", "warning", row["file_name"], str(error)))
                    continue
                canvases.write(row["file_name"], annotator.draw(pixels, of_image(tables, row["image_id"])))
        return faults


def open_outputs(
    output: str | os.PathLike | Sequence[str | os.PathLike] | None,
    to: str | None = None,
    min_score: float | None = None,
) -> Outputs:
    """What paths ask for, by suffix: .parquet, .json (COCO results), .txt (MOT), .mp4 and others for a video;
    or a folder of pictures, or of a format `to`.

    Raises:
        ConfigError: a suffix that means nothing, or an unknown format.
    """
    places = [] if output is None else [output] if isinstance(output, str | os.PathLike) else list(output)
    tables, videos, pictures = [], [], []
    if to is not None and to != PICTURES and to not in formats.WRITERS:
        raise ConfigError(f"format '{to}' is unknown. {nearest(to, [*formats.WRITERS, PICTURES])}")
    for path in map(Path, places):
        suffix = path.suffix.lower()
        if suffix in VIDEO_SUFFIXES:
            videos.append(path)
        elif suffix in TABLES and (to is None or to == PICTURES or to in OF_FOLDERS):
            tables.append((path, TABLES[suffix]))  # a file beside the folder that `to` is for
        elif to == PICTURES or (to is None and not suffix):
            pictures.append(path)
        elif to is None:
            known = ", ".join([*TABLES, *VIDEO_SUFFIXES])
            raise ConfigError(f"{path}: can't tell what to write; expected a folder, or one of {known}.")
        else:
            tables.append((path, to))
    return Outputs(tuple(tables), tuple(videos), tuple(pictures), min_score)


class Canvases:
    """Drawn frames into the videos and folders of `outputs`; videos are whole when it is left."""

    def __init__(self, outputs: Outputs, rate: Fraction):
        self.outputs, self.rate = outputs, rate
        self.writers: list[VideoWriter] = []
        self._open = ExitStack()

    def write(self, name: str, pixels: np.ndarray, seconds: float | None = None) -> None:
        """Add a drawn frame.

        Raises:
            DataError: it can't be written, or the name leads out of its folder.
        """
        if not self.writers:
            size = (pixels.shape[1], pixels.shape[0])
            for path in self.outputs.videos:
                self.writers.append(self._open.enter_context(VideoWriter(path, size, self.rate)))
        for writer in self.writers:
            # Images of other sizes are fitted to the first one's.
            same = pixels.shape[0] // 2 * 2 == writer.size[1] and pixels.shape[1] // 2 * 2 == writer.size[0]
            writer.write(pixels if same else resize(pixels, writer.size), seconds)
        for folder in self.outputs.pictures:
            path = folder / PurePosixPath(name).with_suffix(".jpg")
            if not path.resolve().is_relative_to(folder.resolve()):
                raise DataError(f"'{name}' leads out of {folder}.")
            path.parent.mkdir(parents=True, exist_ok=True)
            if not cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)):
                raise DataError(f"{path}: can't be written.")

    def __enter__(self) -> "Canvases":
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()
