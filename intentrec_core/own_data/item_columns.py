"""Which columns of a table of plays say something of the item, and not of the play: a category, a brand, a price.

Such a column has the same value at all plays of an item, whoever plays it. A column of the member or the session has the same
value at plays of an item too where one member plays it again and again, so plays of different members are compared.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from intentrec_core.own_data.cells import as_texts

#: So many pairs of plays tell it.
_MIN_PAIRS = 50
#: A column that fewer of them have is rather one of some plays.
_MIN_KNOWN = 0.25
#: From this share on; a price or a category changes now and then.
_AGREEING = 0.95
#: Beyond what two plays of different items agree by chance: a column that is nearly constant says nothing.
_SKILL = 0.8


def columns_of_items(
    users: pa.ChunkedArray, items: pa.ChunkedArray, columns: Mapping[str, pa.ChunkedArray]
) -> tuple[str, ...]:
    """The names of the columns that say something of the item."""
    user, item = _codes(users), _codes(items)
    order = np.lexsort((user, item))
    is_pair = (item[order][1:] == item[order][:-1]) & (user[order][1:] != user[order][:-1]) & (item[order][1:] >= 0)
    return tuple(name for name, column in columns.items() if _is_of_items(_codes(column), order, is_pair))


def _is_of_items(codes: NDArray[np.int64], order: NDArray[np.int64], is_pair: NDArray[np.bool_]) -> bool:
    first, second = codes[order][:-1], codes[order][1:]
    known = is_pair & (first >= 0) & (second >= 0)
    if known.sum() < _MIN_PAIRS or known.sum() < _MIN_KNOWN * is_pair.sum():
        return False
    agreeing = float((first == second)[known].mean())
    shares = np.bincount(codes[codes >= 0]) / max(1, (codes >= 0).sum())
    by_chance = float((shares**2).sum())
    return agreeing >= _AGREEING and agreeing - by_chance >= _SKILL * (1 - by_chance)


def _codes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """The values as whole numbers; −1 for a missing one."""
    texts = as_texts(column)
    encoded = texts.cast(pa.binary()).combine_chunks().dictionary_encode()
    return np.asarray(encoded.indices.fill_null(-1).to_numpy(), dtype=np.int64)
