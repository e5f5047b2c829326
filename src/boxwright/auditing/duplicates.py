"""Pictures that are there twice: the same file, or nearly the same picture, mirrored and turned too."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl

from boxwright.auditing.fingerprints import ORIENTATIONS, SIDE, Fingerprints, oriented, oriented_hashes
from boxwright.geometry.compilation import kernel

BITS = 7  # in which hashes may differ: with one band more than that some band is the same
BANDS, BAND = 8, 8  # of a hash, bits of each
MASK = np.uint64((1 << BAND) - 1)
ALIKE = 0.95  # correlation of the thumbnails from which pictures are nearly the same
FLAT = 3.0  # contrast below which a picture has nothing to be compared by
UNDONE = (0, 1, 2, 3, 4, 6, 5, 7)  # of each orientation the one that it is undone by
MOST = 1_000_000  # pairs of an orientation

DUPLICATE_SCHEMA: dict[str, pl.DataType] = {
    "first": pl.Int64(),  # place of an image
    "second": pl.Int64(),  # of a later one
    "exact": pl.Boolean(),  # the same file
    "orientation": pl.String(),  # of the second beside the first, one of `ORIENTATIONS`
    "similarity": pl.Float64(),  # correlation of the thumbnails
}


def find_duplicates(prints: Fingerprints, least: float = ALIKE) -> pl.DataFrame:
    """Pairs of images, the most similar first; `DUPLICATE_SCHEMA`.

    Args:
        prints: of all images.
        least: similarity of a pair that isn't the same file.
    """
    exact = _same_files(prints.digests)
    usable = np.flatnonzero((prints.digests != "") & (prints.contrast >= FLAT))
    hashes = np.ascontiguousarray(oriented_hashes(prints.hashes[usable]))
    near = _near(hashes)
    pairs, orientation = usable[near[:, :2]], near[:, 2]
    alikeness = similarity(prints.thumbnails, pairs, orientation)
    same = {(a, b) for a, b in exact}
    rows = [(a, b, True, 0, 1.0) for a, b in exact]
    best: dict[tuple[int, int], tuple[float, int]] = {}
    for (a, b), turn, alike in zip(pairs.tolist(), orientation.tolist(), alikeness.tolist()):
        if alike >= least and (a, b) not in same and alike > best.get((a, b), (0.0, 0))[0]:
            best[a, b] = (alike, turn)
    rows += [(a, b, False, turn, alike) for (a, b), (alike, turn) in best.items()]
    named = [(a, b, whole, ORIENTATIONS[UNDONE[turn]], alike) for a, b, whole, turn, alike in rows]
    table = pl.DataFrame(named, schema=DUPLICATE_SCHEMA, orient="row")
    return table.sort("exact", "similarity", descending=True, maintain_order=True)


def _same_files(digests: np.ndarray) -> list[tuple[int, int]]:
    """Each file with the first that holds the same bytes."""
    first: dict[str, int] = {}
    return [(first[d], n) for n, d in enumerate(digests) if d and first.setdefault(d, n) != n]


def similarity(thumbnails: np.ndarray, pairs: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    """(P,) correlation of the first with the second brought into its orientation."""
    result = np.zeros(len(pairs))
    for turn in range(len(ORIENTATIONS)):
        own = np.flatnonzero(orientation == turn)
        for part in np.array_split(own, max(1, len(own) // 10_000)):
            a = _normalized(thumbnails[pairs[part, 0]])
            b = _normalized(oriented(thumbnails[pairs[part, 1]], turn))
            result[part] = (a * b).mean(axis=1)
    return result


def _normalized(thumbnails: np.ndarray) -> np.ndarray:
    flat = thumbnails.reshape(len(thumbnails), SIDE * SIDE).astype(np.float32)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(flat.std(axis=1, keepdims=True), 1e-6)


def _near(hashes: np.ndarray) -> np.ndarray:
    """(P, 3) first, second, orientation of pairs whose hashes (I, 8) differ in `BITS` or fewer bits."""
    starts, order = np.zeros((BANDS, (1 << BAND) + 1), np.int64), np.zeros((BANDS, len(hashes)), np.int64)
    for band in range(BANDS):
        key = (hashes[:, 0] >> np.uint64(BAND * band)) & MASK
        order[band] = np.argsort(key, kind="stable")
        starts[band] = np.searchsorted(key[order[band]], np.arange((1 << BAND) + 1))
    own = hashes[order, 0]  # in the order of each band, so that a bucket lies together

    def collect(turn: int) -> np.ndarray:
        size = 1 << 12
        while True:
            found = np.zeros((size, 3), np.int64)
            count = _collect(hashes[:, turn], own, starts, order, found)
            if count <= size or size >= MOST:
                found[:, 2] = turn
                return found[: min(count, size)]
            size = min(count, MOST)

    with ThreadPoolExecutor() as pool:
        return np.concatenate(list(pool.map(collect, range(hashes.shape[1]))))


@kernel
def _collect(turned, own, starts, order, found):  # pragma: no cover
    """Fill `found` with pairs of `own` hashes and `turned` ones of later images, and count all there are."""
    count = 0
    for second in range(len(turned)):
        for band in range(starts.shape[0]):
            key = (turned[second] >> np.uint64(BAND * band)) & MASK
            for place in range(starts[band, key], starts[band, key + 1]):
                apart = turned[second] ^ own[band, place]
                if _ones(apart) > BITS:
                    continue
                first = order[band, place]
                # A pair is met in each band that is the same: the first counts.
                if first < second and _first_band(apart) == band:
                    if count < len(found):
                        found[count, 0], found[count, 1] = first, second
                    count += 1
    return count


@kernel
def _first_band(apart):  # pragma: no cover
    """The first band of two hashes that is the same."""
    for band in range(BANDS):
        if (apart >> np.uint64(BAND * band)) & MASK == 0:
            return band
    return BANDS


@kernel
def _ones(bits):  # pragma: no cover
    """How many bits are set. Warren, Hacker's Delight, 2002, figure 5-2."""
    bits = bits - ((bits >> np.uint64(1)) & np.uint64(0x5555555555555555))
    pairs = np.uint64(0x3333333333333333)
    bits = (bits & pairs) + ((bits >> np.uint64(2)) & pairs)
    bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (bits * np.uint64(0x0101010101010101)) >> np.uint64(56)
