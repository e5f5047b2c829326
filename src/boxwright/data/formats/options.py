"""What a user may say about a source beyond its path. A format names the options it takes."""

from dataclasses import dataclass, fields
from pathlib import Path

from boxwright.data.tables import Tables
from boxwright.errors import ConfigError
from boxwright.geometry.conventions import CONVENTIONS

TEXT_LAYOUTS = ("xyxy", "xywh", "relative")
BOX_KINDS = ("full", "visible", "head")


@dataclass(frozen=True)
class ReadOptions:
    """Options of the readers; None: not given.

    Attributes:
        list_name: which list or split (VOC's ImageSets/Main, YOLO's train, val, test).
        images: folder of the images, where it isn't where the format puts it.
        boxes: which box of a person (CrowdHuman: full, visible, head; CityPersons: full, visible).
        layout: of the text format: `xyxy` (left top right bottom), `xywh` (left top width height),
            `relative` (centre x, centre y, width, height as shares of the image).
        angles: convention of oriented boxes, a key of `CONVENTIONS`; None: guessed, and told.
        truth: the tables whose images and categories results are of.
    """

    list_name: str | None = None
    images: Path | None = None
    boxes: str | None = None
    layout: str | None = None
    angles: str | None = None
    truth: Tables | None = None

    def only(self, format_name: str, *taken: str) -> None:
        """Refuse what `format_name` doesn't take.

        Raises:
            ConfigError: an option is set that would be ignored, or has an unknown value.
        """
        for field in fields(self):
            if getattr(self, field.name) is not None and field.name not in taken:
                option = field.name.removesuffix("_name")
                raise ConfigError(f"format {format_name} has no option '{option}'.")
        for name, known in (("boxes", BOX_KINDS), ("layout", TEXT_LAYOUTS), ("angles", tuple(CONVENTIONS))):
            value = getattr(self, name)
            if value is not None and value not in known:
                raise ConfigError(f"{name} is '{value}', expected one of {', '.join(known)}.")
