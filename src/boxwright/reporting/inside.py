"""Pictures of what is inside a detector: filters, feature maps, where queries look; and a page of it all."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from boxwright.reporting.gallery import PALETTE, draw_box, draw_label, to_data_uri
from boxwright.reporting.page import Picture, Section, write_page

CELL = 40  # px, longest side of a filter
GAP = 2
MAP = 320  # px, longest side of a feature map
DOT = 9.0  # px, radius of the place that a query reads most of


def draw_filters(weights: np.ndarray) -> Image.Image:
    """Filters (O, I, H, W) side by side, each from its least value to its greatest; of three channels in
    colour, of others their mean.
    """
    shown = weights if weights.shape[1] == 3 else weights.mean(axis=1, keepdims=True).repeat(3, axis=1)
    low, high = (f(shown, axis=(1, 2, 3), keepdims=True) for f in (np.min, np.max))
    pixels = ((shown - low) / np.maximum(high - low, 1e-9) * 255).round().astype(np.uint8)
    factor = max(1, CELL // max(pixels.shape[2:]))
    cell = (pixels.shape[3] * factor, pixels.shape[2] * factor)
    columns = math.ceil(math.sqrt(len(pixels)))
    rows = -(-len(pixels) // columns)
    sheet = Image.new("RGB", (columns * (cell[0] + GAP), rows * (cell[1] + GAP)), "white")
    for n, one in enumerate(pixels.transpose(0, 2, 3, 1)):
        picture = Image.fromarray(one).resize(cell, Image.Resampling.NEAREST)
        sheet.paste(picture, (n % columns * (cell[0] + GAP), n // columns * (cell[1] + GAP)))
    return sheet


def draw_map(features: np.ndarray, pixels: np.ndarray | None = None) -> Image.Image:
    """A map (H, W) from blue over white to red, 0 white, laid over the image (H, W, 3) where it is given."""
    limit = max(float(np.abs(features).max()), 1e-9)
    share = features / limit
    warm, cold = np.clip(share, 0, 1)[..., None], np.clip(-share, 0, 1)[..., None]
    color = 255 - warm * np.array([42, 160, 255]) - cold * np.array([255, 141, 77])
    size = pixels.shape[1::-1] if pixels is not None else features.shape[::-1]
    factor = MAP / max(size)
    shape = (max(1, round(size[0] * factor)), max(1, round(size[1] * factor)))
    picture = Image.fromarray(np.clip(color, 0, 255).astype(np.uint8)).resize(shape, Image.Resampling.NEAREST)
    if pixels is None:
        return picture
    return Image.blend(Image.fromarray(pixels).convert("L").convert("RGB").resize(shape), picture, 0.55)


def draw_attention(
    pixels: np.ndarray, box: np.ndarray, places: np.ndarray, weights: np.ndarray, title: str
) -> Image.Image:
    """An image with a query's box and a dot at each place that it reads, the larger the more it reads there.

    Args:
        pixels: (H, W, 3).
        box: (4,) xyxy, in shares of the image.
        places: (N, 2) x, y in shares.
        weights: (N,).
        title: beside the box.
    """
    factor = 2 * MAP / max(pixels.shape[:2])
    size = (round(pixels.shape[1] * factor), round(pixels.shape[0] * factor))
    picture = Image.fromarray(pixels).resize(size)
    draw = ImageDraw.Draw(picture)
    for n in np.argsort(weights):
        radius = DOT * float(np.sqrt(weights[n] / weights.max()))
        if radius >= 1:
            x, y = places[n] * size
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=PALETTE[5], outline="white")
    x1, y1, x2, y2 = box * np.tile(size, 2)
    corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
    draw_box(draw, corners, PALETTE[0], 3)
    draw_label(draw, corners, title, PALETTE[0])
    return picture


def picture_of(image: Image.Image, title: str, detail: str = "") -> Picture:
    """For a page."""
    return Picture(to_data_uri(image), title, detail)


def inside_page(
    path: Path,
    title: str,
    lead: str,
    layers: list[dict[str, Any]],
    galleries: dict[str, list[Picture]],
    notes: list[str],
) -> None:
    """Write the page: a table of the layers, then pictures."""
    shown = [Section(name, galleries={name: pictures}) for name, pictures in galleries.items() if pictures]
    write_page(path, title, lead, [Section("Layers", rows=layers, notes=notes), *shown])
