"""The cheapest one-to-one assignment of rows to columns."""

import numpy as np

from boxwright.geometry.compilation import kernel


def cheapest_assignment(cost: np.ndarray) -> np.ndarray:
    """(N,) column of each row of `cost` (N, M), -1 for rows left over where N > M; least total cost.

    Shortest augmenting paths (Jonker and Volgenant, 1987; Crouse, 2016, algorithm 1), O(N^2 M).
    """
    cost = np.ascontiguousarray(cost, dtype=np.float64)
    rows, columns = cost.shape
    if rows <= columns:
        return _assign(cost)
    result = np.full(rows, -1, dtype=np.int64)
    result[_assign(np.ascontiguousarray(cost.T))] = np.arange(columns)
    return result


def best_pairs(worth: np.ndarray) -> np.ndarray:
    """(K, 2) pairs of a row and a column of `worth` (N, M) whose sum is greatest; none of worth 0 or less."""
    if 0 in worth.shape:
        return np.zeros((0, 2), dtype=np.int64)
    columns = cheapest_assignment(-np.maximum(worth, 0.0))
    rows = np.flatnonzero(columns >= 0)
    pairs = np.column_stack([rows, columns[rows]])
    return pairs[worth[pairs[:, 0], pairs[:, 1]] > 0]


@kernel
def _assign(cost):
    rows, columns = cost.shape
    row_price, column_price = np.zeros(rows), np.zeros(columns)
    row_of = np.full(columns, -1, dtype=np.int64)
    column_of = np.full(rows, -1, dtype=np.int64)
    before = np.empty(columns, dtype=np.int64)
    for root in range(rows):
        shortest, done = np.full(columns, np.inf), np.zeros(columns, dtype=np.bool_)
        row, length, sink = root, 0.0, -1
        while sink < 0:
            nearest, best = -1, np.inf
            for j in range(columns):
                if done[j]:
                    continue
                through = length + cost[row, j] - row_price[row] - column_price[j]
                if through < shortest[j]:
                    shortest[j], before[j] = through, row
                if shortest[j] < best or (shortest[j] == best and row_of[j] < 0):
                    nearest, best = j, shortest[j]
            done[nearest], length = True, best
            if row_of[nearest] < 0:
                sink = nearest
            else:
                row = row_of[nearest]
        row_price[root] += length
        for j in range(columns):
            if done[j] and j != sink:
                row_price[row_of[j]] += length - shortest[j]
                column_price[j] -= length - shortest[j]
        j = sink
        while True:
            row = before[j]
            row_of[j] = row
            column_of[row], j = j, column_of[row]
            if row == root:
                break
    return column_of
