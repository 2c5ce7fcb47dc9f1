"""Documents that share a row, so that no step is spent on padding."""

from __future__ import annotations

import numpy as np

from tutelage.data._token_rows import TokenRows
from tutelage.errors import DataError, ParameterError


def pack(rows: TokenRows, length: int) -> TokenRows:
    """Return rows of at most `length` tokens: each document, in order, goes to the first row that has room for it.

    Which document goes where depends on the order and the lengths alone. Documents stay whole, and the first token of
    each stays without a prediction. Errors: `ParameterError`, `DataError` for a document that is longer.

    >>> from tutelage.data import TokenRows, pack
    >>> from tutelage.data._token_rows import Document
    >>> rows = TokenRows.of([Document(range(n), [True] * n) for n in (5, 4, 3, 2)])
    >>> [row["position_ids"].tolist() for row in pack(rows, 8)]
    [[0, 1, 2, 3, 4, 0, 1, 2], [0, 1, 2, 3, 0, 1]]
    """
    if length < 2:
        raise ParameterError(f"pack(length={length}): expected 2 tokens or more; the first of a row predicts the next")
    lengths = rows.lengths
    if len(lengths) and lengths.max() > length:
        raise DataError(
            f"document {int(lengths.argmax())} has {lengths.max()} tokens and a packed row {length}; expected none "
            "longer: encode with the same length, which splits texts"
        )
    row_of = _first_fit(lengths.tolist(), length)
    order = np.argsort(row_of, kind="stable")
    counts = np.bincount(row_of) if len(row_of) else np.zeros(0, dtype=np.int64)
    return rows.in_order(order, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


def _first_fit(lengths: list[int], capacity: int) -> np.ndarray:
    """Return the row of each document. A tree over the rows holds the most room below each node, so no row is scanned.

    Node i has children 2 i and 2 i + 1; the leaves are the rows, all empty at first, as many as there are documents.
    """
    leaves = 1
    while leaves < len(lengths):
        leaves *= 2
    room = [capacity] * (2 * leaves)
    row_of = np.zeros(len(lengths), dtype=np.int64)
    for document, needed in enumerate(lengths):
        node = 1
        while node < leaves:
            node = 2 * node if room[2 * node] >= needed else 2 * node + 1
        row_of[document] = node - leaves
        room[node] -= needed
        while node > 1:
            node //= 2
            room[node] = max(room[2 * node], room[2 * node + 1])
    return row_of
