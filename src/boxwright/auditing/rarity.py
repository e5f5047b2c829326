"""Which boxes are like each other, and which are like none: clusters, odd ones, a map in the plane."""

from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors

COMPONENTS = 32
NEIGHBOURS = 10
PERPLEXITY = 30
FEW = 3 * NEIGHBOURS  # boxes, below which there is nothing to arrange


@dataclass(frozen=True)
class Arrangement:
    """Of N boxes.

    Attributes:
        places: (N, 2) in the plane, neighbours near each other.
        clusters: (N,) 0, 1, 2 ..., the smallest cluster first.
        oddness: (N,) mean distance to its nearest neighbours of its class, in the median of all boxes; 1 is
            usual.
        strangers: (N,) share of its nearest neighbours of any class that are of another.
    """

    places: np.ndarray
    clusters: np.ndarray
    oddness: np.ndarray
    strangers: np.ndarray


def arrange(vectors: np.ndarray, category: np.ndarray, clusters: int = 12, seed: int = 0) -> Arrangement:
    """Arrange boxes by what they look like.

    Oddness is the distance to the nearest neighbours (Ramaswamy et al., SIGMOD 2000), clusters are k-means',
    places t-SNE's (van der Maaten and Hinton, 2008), all of the first principal components.

    Args:
        vectors: (N, D), at least `FEW`.
        category: (N,) of the boxes.
        clusters: how many.
        seed: same seed, same arrangement.
    """
    count = len(vectors)
    parts = min(COMPONENTS, count, vectors.shape[1])
    reduced = PCA(parts, random_state=seed).fit_transform(vectors.astype(np.float64))
    found = KMeans(min(clusters, count), random_state=seed).fit_predict(reduced)
    by_size = np.argsort(np.argsort(np.bincount(found), kind="stable"))
    perplexity = min(PERPLEXITY, (count - 1) / 3)
    places = TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(reduced)
    near = _neighbours(reduced, NEIGHBOURS)[1]
    strangers = (category[near] != category[:, None]).mean(axis=1)
    distance = np.full(count, np.nan)
    for k in np.unique(category):
        mine = np.flatnonzero(category == k)
        if len(mine) > 1:
            distance[mine] = _neighbours(reduced[mine], min(NEIGHBOURS, len(mine) - 1))[0].mean(axis=1)
    usual = max(float(np.nanmedian(distance)) if np.isfinite(distance).any() else 1.0, 1e-9)
    # The only one of its class is as odd as the oddest.
    oddness = np.nan_to_num(distance / usual, nan=float(np.nanmax(distance, initial=usual)) / usual)
    return Arrangement(places, by_size[found], oddness, strangers)


def _neighbours(vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, count) distances and rows of the others that are nearest to each."""
    return NearestNeighbors(n_neighbors=count).fit(vectors).kneighbors()
