"""What boxes look like, in a few numbers each: crops of them and of what is around, embedded and reduced."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import polars as pl
from sklearn.decomposition import PCA

from boxwright.auditing.embedding import embed_crops
from boxwright.auditing.evidence import Evidence
from boxwright.data.crops import cut_out, pixels_of
from boxwright.data.tables import Tables

# Side of a crop in the longer side of its box, and whether it turns with it: the object, and what is around.
CROPS = ((1.5, True), (3.0, False))
COMPONENTS = 24  # that are kept of each crop
ENOUGH = 20_000  # boxes to find the components of
PLACE = ["image_id", "x", "y", "w", "h", "angle"]


class Looks:
    """What the boxes of some tables look like, each image opened once and on all cores.

    Edges and colours (`embed_crops`) in their first principal components, by which a box beside its object
    differs from one around it. They are of labels alone: what annotators leave out looks alike, and would
    pass for nothing where predictions without a label were judged by it.

    Args:
        tables: over the same images; those of the first say where their files are.
        tell: called after each image with boxes, and once for those without.

    Attributes:
        unread: images with boxes that have no file or can't be read: of these nothing is known.
    """

    def __init__(self, tables: Sequence[Tables], tell: Callable[[int], None] = lambda count: None):
        boxes = pl.concat([_placed(own.boxes) for own in tables])
        boxes = boxes.unique(PLACE, keep="first", maintain_order=True)
        distinct = tables[0].with_boxes(boxes)
        self._places = boxes.select(PLACE).with_row_index("place")
        self._numbers = np.full((len(boxes), len(CROPS) * COMPONENTS), np.nan)
        rows = [own for own in distinct.rows_by_image() if len(own)]
        rows = [rows[n] for n in np.random.default_rng(0).permutation(len(rows))]
        if len(rows) < len(distinct.images):
            tell(len(distinct.images) - len(rows))
        held, count, parts, self.unread = [], 0, None, 0
        for found in _embed(distinct, rows, tell):
            if found is None:
                self.unread += 1
                continue
            held.append(found)
            count += len(found[0])
            if count >= ENOUGH:
                parts = parts or _components(held)
                self._keep(parts, held)
                held = []
        if held:
            self._keep(parts or _components(held), held)
        if self.unread == len(rows):
            self._numbers = self._numbers[:, :0]

    def _keep(self, parts: list[PCA], held: list[tuple[np.ndarray, np.ndarray]]) -> None:
        for rows, vectors in held:
            for n, part in enumerate(parts):
                start = n * COMPONENTS
                self._numbers[rows, start : start + part.n_components_] = part.transform(vectors[:, n])

    def beside(self, evidence: Evidence, tables: Tables) -> Evidence:
        """Evidence with what its boxes look like behind its numbers; NaN for what nobody could see."""
        wanted = _placed(tables.boxes[evidence.rows]).select(PLACE)
        found = wanted.join(self._places, on=PLACE, how="left", maintain_order="left")
        seen = self._numbers[found["place"].to_numpy()]
        return replace(evidence, numbers=np.hstack([evidence.numbers, seen]))


def _placed(boxes: pl.DataFrame) -> pl.DataFrame:
    """Upright ones at an angle of 0: nothing joins null."""
    return boxes.with_columns(pl.col("angle").fill_null(0.0))


def _components(held: list[tuple[np.ndarray, np.ndarray]]) -> list[PCA]:
    """Of each kind of crop."""
    vectors = np.concatenate([vectors for _, vectors in held]).astype(np.float64)
    count = min(COMPONENTS, len(vectors), vectors.shape[2])
    return [PCA(count, random_state=0).fit(vectors[:, n]) for n in range(vectors.shape[1])]


def _embed(
    tables: Tables, rows: list[np.ndarray], tell: Callable[[int], None]
) -> Iterator[tuple[np.ndarray, np.ndarray] | None]:
    """Rows of boxes of an image and vectors (N, 2, D), image by image; None of one that can't be read."""
    rotated, image = tables.rotated(), tables.boxes["image_id"].to_numpy()

    def look(own: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        pixels = pixels_of(tables, int(image[own[0]]))
        found = None
        if pixels is not None:
            boxes = rotated[own]
            parts = []
            for margin, turned in CROPS:
                placed = boxes * [1, 1, 1, 1, turned]
                crops = np.array([cut_out(pixels, box, margin) for box in placed])
                parts.append(embed_crops(crops, boxes[:, 2:4]))
            found = own, np.stack(parts, axis=1)
        tell(1)
        return found

    with ThreadPoolExecutor() as pool:
        yield from pool.map(look, rows)
