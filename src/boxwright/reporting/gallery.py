"""Boxes drawn on images."""

import base64
import io
import math
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from boxwright.data.confident import confident
from boxwright.data.drawing import PALETTE
from boxwright.data.formats.files import write_atomic
from boxwright.data.images import load_image
from boxwright.data.tables import Tables
from boxwright.errors import DataError

DOT = 2.5  # px, radius of a landmark
TILE = 480  # px, longest side of an image in a gallery


def show(
    tables: Tables, output: str | os.PathLike, count: int = 9, seed: int = 0, min_score: float | None = None
) -> int:
    """Draw the boxes of some images side by side in one picture.

    Args:
        tables: with images whose files are known.
        output: picture to write, .jpg or .png.
        count: images; those with boxes come first.
        seed: chooses them.
        min_score: predictions below it aren't drawn; None: below the operating thresholds of the detector
            that made them, else 0.3.

    Returns:
        How many images were drawn.

    Raises:
        DataError: none of the images can be read, or the suffix is of no picture.
    """
    _picture_suffix(output)
    shown = tables.with_boxes(tables.boxes.filter(confident(tables, min_score)))
    filled = set(shown.boxes["image_id"].unique())
    order = np.random.default_rng(seed).permutation(len(tables.images)).tolist()
    order.sort(key=lambda i: i not in filled)
    tiles, problem = [], ""
    for image_id in order:
        try:
            tiles.append(draw_image(shown, image_id))
        except DataError as error:
            problem = str(error)
        if len(tiles) == count:
            break
    if not tiles:
        raise DataError(f"no image can be drawn. {problem}")
    save_picture(sheet_of(tiles, math.ceil(math.sqrt(len(tiles)))), output)
    return len(tiles)


def sheet_of(tiles: list[Image.Image], columns: int) -> Image.Image:
    """Pictures side by side, row by row."""
    cell = (max(t.width for t in tiles) + 4, max(t.height for t in tiles) + 4)
    sheet = Image.new("RGB", (columns * cell[0], math.ceil(len(tiles) / columns) * cell[1]), "white")
    for n, tile in enumerate(tiles):
        sheet.paste(tile, (n % columns * cell[0] + 2, n // columns * cell[1] + 2))
    return sheet


def save_picture(picture: Image.Image, output: str | os.PathLike) -> Path:
    """Write a .jpg or .png.

    Raises:
        DataError: another suffix.
    """
    buffer = io.BytesIO()
    picture.save(buffer, "PNG" if _picture_suffix(output) == ".png" else "JPEG", quality=90)
    write_atomic(Path(output), buffer.getvalue())
    return Path(output)


def _picture_suffix(output: str | os.PathLike) -> str:
    suffix = Path(output).suffix.lower()
    if suffix not in (".jpg", ".jpeg", ".png"):
        raise DataError(f"{output}: expected a .jpg or .png to write.")
    return suffix


def draw_image(tables: Tables, image_id: int) -> Image.Image:
    """An image with all its boxes, coloured by class; ignored regions are dashed.

    Raises:
        DataError: the image can't be read.
    """
    picture, factor = open_tile(tables, image_id)
    draw = ImageDraw.Draw(picture)
    names = tables.categories["name"].to_list()
    for row in tables.boxes.filter(tables.boxes["image_id"] == image_id).iter_rows(named=True):
        color = PALETTE[row["category_id"] % len(PALETTE)]
        dashed = row["crowd"] or row["ignore"]
        draw_box(draw, corners_of(row) * factor, color, dashed=dashed, ahead=row["angle"] is not None)
        draw_landmarks(draw, row["landmarks"], factor)
        score = "" if row["score"] is None else f" {row['score']:.2f}"
        draw_label(draw, corners_of(row) * factor, names[row["category_id"]] + score, color)
    return picture


def open_tile(tables: Tables, image_id: int, side: int = TILE) -> tuple[Image.Image, float]:
    """An image shrunk to a longest side of `side`, and the factor."""
    row = tables.images.row(image_id, named=True)
    if row["path"] is None:
        raise DataError(f"{row['file_name']}: no file is known for it.")
    size = None if row["width"] is None else (row["width"], row["height"])
    picture = Image.fromarray(load_image(row["path"], size))
    factor = min(1.0, side / max(picture.size))
    if factor < 1:
        picture = picture.resize(
            (round(picture.width * factor), round(picture.height * factor)), Image.Resampling.BOX
        )
    return picture, factor


def corners_of(row: dict) -> np.ndarray:
    """(4, 2) corners of a box, rotated by its angle; the first two are its front end."""
    center = np.array([row["x"] + row["w"] / 2, row["y"] + row["h"] / 2])
    half = np.array([[1, -1], [1, 1], [-1, 1], [-1, -1]]) * np.array([row["w"], row["h"]]) / 2
    angle = row["angle"] or 0.0
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return half @ turn + center


def draw_box(
    draw: ImageDraw.ImageDraw,
    corners: np.ndarray,
    color: str,
    width: int = 2,
    dashed: bool = False,
    ahead: bool = False,
) -> None:
    """The outline of a box; `ahead`: with a tick from its centre through its front end, the first two
    corners.
    """
    if ahead:
        front = corners[:2].mean(axis=0)
        step = front - corners.mean(axis=0)
        tip = front + step * min(1.0, 6 / max(float(np.linalg.norm(step)), 1e-9))
        draw.line([tuple(corners.mean(axis=0)), tuple(tip)], fill=color, width=width)
    for start, end in zip(corners, np.roll(corners, -1, axis=0)):
        if not dashed:
            draw.line([tuple(start), tuple(end)], fill=color, width=width)
            continue
        pieces = max(1, int(np.linalg.norm(end - start) / 6))
        for n in range(0, pieces, 2):
            a, b = (start + (end - start) * k / pieces for k in (n, min(n + 1, pieces)))
            draw.line([tuple(a), tuple(b)], fill=color, width=width)


def draw_landmarks(draw: ImageDraw.ImageDraw, landmarks: list[float] | None, factor: float) -> None:
    """A dot for each landmark of a face, in colours of their own."""
    if landmarks is None:
        return
    for n, (x, y) in enumerate(zip(landmarks[::2], landmarks[1::2])):
        x, y = x * factor, y * factor
        draw.ellipse([x - DOT, y - DOT, x + DOT, y + DOT], fill=PALETTE[n], outline="white")


def draw_label(draw: ImageDraw.ImageDraw, corners: np.ndarray, text: str, color: str) -> None:
    """A name above a box."""
    font = ImageFont.load_default(11)
    x, y = corners.min(axis=0)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    y = max(0, y - (bottom - top) - 4)
    draw.rectangle([x, y, x + right - left + 4, y + bottom - top + 4], fill=color)
    draw.text((x + 2 - left, y + 2 - top), text, fill="white", font=font)


def to_data_uri(picture: Image.Image) -> str:
    """A picture as text that a page can hold."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
