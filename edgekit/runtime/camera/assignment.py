"""The cheapest one-to-one assignment between rows and columns, without scipy."""

import numpy as np


def assign(cost, limit):
    """Match rows with columns so that the sum of their costs is least, and drop pairs above ``limit``.

    cost: [n, m], finite. Returns (pairs int64 [k, 2], free rows, free columns). A pair above the limit counts as the
    limit, so that it never displaces a good one.
    """
    cost = np.asarray(cost, np.float64)
    rows, columns = cost.shape
    if rows == 0 or columns == 0:
        return np.zeros((0, 2), np.int64), np.arange(rows), np.arange(columns)
    column_of = cost.argmin(axis=1)
    row = np.flatnonzero(cost[np.arange(rows), column_of] <= limit)
    if len(set(column_of[row].tolist())) < len(row):  # some want the same column
        capped = np.minimum(cost, limit + 1e-6)
        column_of = _hungarian(capped) if rows <= columns else _invert(_hungarian(capped.T), rows)
        row = np.flatnonzero(column_of >= 0)
        row = row[cost[row, column_of[row]] <= limit]
    pairs = np.stack([row, column_of[row]], axis=1)
    return pairs, _others(rows, pairs[:, 0]), _others(columns, pairs[:, 1])


def _others(count, taken):
    """Those of 0, 1, ... count - 1 that are not taken."""
    free = np.ones(count, bool)
    free[taken] = False
    return np.flatnonzero(free)


def _hungarian(cost):
    """Column of each row for the least sum; cost [n, m] with n <= m.

    The Hungarian method with potentials and shortest augmenting paths (Kuhn 1955; Jonker and Volgenant 1987): row after
    row enters, O(n^2 m), each step vectorised over the columns. Column 0 and row 0 are dummies.
    """
    n, m = cost.shape
    row_potential, column_potential = np.zeros(n + 1), np.zeros(m + 1)
    row_at = np.zeros(m + 1, np.int64)  # row matched with each column
    for row in range(1, n + 1):
        row_at[0], column = row, 0
        least, previous = np.full(m + 1, np.inf), np.zeros(m + 1, np.int64)
        used = np.zeros(m + 1, bool)
        while True:
            used[column] = True
            at = row_at[column]
            free = np.flatnonzero(~used[1:]) + 1
            reduced = cost[at - 1, free - 1] - row_potential[at] - column_potential[free]
            better = reduced < least[free]
            least[free[better]], previous[free[better]] = reduced[better], column
            best = free[np.argmin(least[free])]
            delta = least[best]
            row_potential[row_at[used]] += delta
            column_potential[used] -= delta
            least[free] -= delta
            column = best
            if row_at[column] == 0:
                break
        while column != 0:
            row_at[column] = row_at[previous[column]]
            column = previous[column]
    column_of = np.full(n, -1, np.int64)
    taken = np.flatnonzero(row_at[1:])
    column_of[row_at[taken + 1] - 1] = taken
    return column_of


def _invert(row_of, rows):
    column_of = np.full(rows, -1, np.int64)
    column_of[row_of] = np.arange(len(row_of))
    return column_of
