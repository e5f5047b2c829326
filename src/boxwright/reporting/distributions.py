"""Where boxes lie in their images and where they point to: a heat map and a rose."""

import math

import numpy as np
from markupsafe import Markup

COLUMNS = 32  # of a heat map
SECTORS = 36  # of a rose
RADIUS = 100


def heat_map(places: np.ndarray, aspect: float = 4 / 3) -> Markup:
    """How many points lie where.

    Args:
        places: (N, 2) in shares of the image's width and height.
        aspect: width over height of the images.
    """
    shape = COLUMNS, min(4 * COLUMNS, max(1, round(COLUMNS / aspect)))
    x, y = np.clip(places, 0, 1).T
    counts = np.histogram2d(x, y, shape, range=((0, 1), (0, 1)))[0]
    most = max(float(counts.max()), 1.0)
    cells = "".join(
        f'<rect class="cell" x="{10 * a}" y="{10 * b}" width="10" height="10"'
        f' opacity="{counts[a, b] / most:.3f}"><title>{counts[a, b]:,.0f}</title></rect>'
        for a, b in np.argwhere(counts > 0).tolist()
    )
    width, height = 10 * shape[0], 10 * shape[1]
    frame = f'<rect class="ring" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}"/>'
    return Markup(
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="boxes by place in the image">'
        f"{cells}{frame}</svg>"
    )


def rose(angles: np.ndarray, headings: bool) -> Markup:
    """How many boxes point where, as on the screen: 0 to the right, clockwise.

    Args:
        angles: (N,) radians.
        headings: they tell front from back; if not, each counts for both of its ends.
    """
    ends = angles if headings else np.concatenate([angles, angles + math.pi])
    turn = 2 * math.pi / SECTORS
    sector = np.floor(ends / turn + 0.5).astype(int) % SECTORS  # the first lies around 0
    counts = np.bincount(sector, minlength=SECTORS)
    most = max(int(counts.max()), 1)
    wedges = []
    for n in np.flatnonzero(counts).tolist():
        radius = RADIUS * math.sqrt(counts[n] / most)  # an area a count
        corners = ((n + side) * turn for side in (-0.5, 0.5))
        (x0, y0), (x1, y1) = ((radius * math.cos(a), radius * math.sin(a)) for a in corners)
        wedges.append(
            f'<path class="cell" opacity="0.8" d="M0 0L{x0:.1f} {y0:.1f}A{radius:.1f} {radius:.1f} 0 0 1'
            f' {x1:.1f} {y1:.1f}Z"><title>{counts[n]:,} at {360 * n / SECTORS:.0f}°</title></path>'
        )
    rings = "".join(f'<circle class="ring" r="{RADIUS * math.sqrt(share):.1f}"/>' for share in (0.25, 0.5, 1))
    names = (
        ("0°", RADIUS + 16, 5),
        ("90°", 0, RADIUS + 16),
        ("180°", -RADIUS - 18, 5),
        ("-90°", 0, -RADIUS - 6),
    )
    texts = "".join(f'<text x="{x}" y="{y}" text-anchor="middle">{name}</text>' for name, x, y in names)
    side = RADIUS + 34
    return Markup(
        f'<svg viewBox="{-side} {-side} {2 * side} {2 * side}" role="img" aria-label="boxes by angle">'
        f"{rings}{''.join(wedges)}{texts}</svg>"
    )
