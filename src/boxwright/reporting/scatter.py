"""Crops as dots in the plane: each shows itself beside the pointer."""

import base64
import json
import math

import cv2
import numpy as np
from markupsafe import Markup, escape

from boxwright.reporting.gallery import PALETTE

WIDTH, HEIGHT, EDGE = 1000, 560, 16
SHEET_SIDE = 48  # px of a crop in the sheet of all


def crops_plot(
    places: np.ndarray,
    group: np.ndarray,
    names: list[str],
    told: list[str],
    odd: np.ndarray,
    crops: np.ndarray,
) -> Markup:
    """A dot a crop.

    Args:
        places: (N, 2).
        group: (N,) index into `names`; those beyond the palette share its last colour.
        names: of the groups; each can be hidden.
        told: (N,) lines beside the crop.
        odd: (N,) bool, marked.
        crops: (N, S, S, 3) uint8.
    """
    low, span = places.min(axis=0), np.maximum(np.ptp(places, axis=0), 1e-9)
    x, y = (EDGE + (places - low) / span * (np.array([WIDTH, HEIGHT]) - 2 * EDGE)).T.round(1)
    color = np.minimum(group, len(PALETTE) - 1)
    dots = "".join(
        f'<circle cx="{a}" cy="{b}" r="{5 if o else 4}"{" class=odd" if o else ""} style="fill:var(--c{c})"/>'
        for a, b, o, c in zip(x.tolist(), y.tolist(), odd.tolist(), color.tolist())
    )
    columns = math.ceil(math.sqrt(len(crops)))
    data = {"x": x.tolist(), "y": y.tolist(), "group": group.tolist(), "told": told, "columns": columns}
    legend = "".join(
        f'<button data-group="{n}" aria-pressed="true">'
        f'<i style="background:var(--c{min(n, len(PALETTE) - 1)})"></i>{escape(name)}</button>'
        for n, name in enumerate(names)
    )
    return Markup(
        f'<div class="legend">{legend}</div><svg class="crops" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        f' aria-label="crops, alike ones near each other" data-crops="{escape(json.dumps(data))}"'
        f' data-sheet="{_sheet(crops, columns)}">{dots}</svg>'
    )


def _sheet(crops: np.ndarray, columns: int) -> str:
    """All crops in one picture, row by row, as a data URI."""
    rows = math.ceil(len(crops) / columns)
    sheet = np.zeros((rows, columns, SHEET_SIDE, SHEET_SIDE, 3), np.uint8)
    for n, crop in enumerate(crops):
        small = cv2.resize(crop, (SHEET_SIDE, SHEET_SIDE), interpolation=cv2.INTER_AREA)
        sheet[n // columns, n % columns] = small[..., ::-1]
    picture = sheet.transpose(0, 2, 1, 3, 4).reshape(rows * SHEET_SIDE, columns * SHEET_SIDE, 3)
    held = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 75])[1]
    return "data:image/jpeg;base64," + base64.b64encode(held.tobytes()).decode()
