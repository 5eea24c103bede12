"""The labels that fields have at plays: which are known, and how often each occurs.

Shapes: N plays, V item rows, L labels of a field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from intentrec_core.domain.spec import Domain, Field, FieldKind
from intentrec_core.features.columns import Columns


class ItemLabels(Protocol):
    """Labels of the items, by row."""

    @property
    def codes(self) -> NDArray[np.int64]:
        """Of each field with one label, its code; 0 is missing. Shape: i64[V, fields]."""
        ...

    @property
    def multi(self) -> Mapping[str, NDArray[np.float32]]:
        """Of each multi-label field, by name, ones at the labels of an item. Shape: f32[V, L]."""
        ...


def is_known(domain: Domain, field: Field, items: ItemLabels, columns: Columns) -> NDArray[np.bool_]:
    """Whether the field has a known label at each play. Shape: bool[N]."""
    codes = play_codes(domain, field, items, columns)
    return np.asarray(items.multi[field.name].any(axis=1))[columns.item_row] if codes is None else codes > 0


def play_codes(domain: Domain, field: Field, items: ItemLabels, columns: Columns) -> NDArray[np.int64] | None:
    """Label codes of a field at each play, 0 where missing; None for a field with several labels. Shape: i64[N]."""
    if field.kind is FieldKind.MULTI_LABEL:
        return None
    if field.is_dynamic:
        return columns.codes[:, domain.dynamic_fields.index(field)]
    return items.codes[columns.item_row, domain.static_fields.index(field)]


def label_counts(domain: Domain, field: Field, items: ItemLabels, columns: Columns) -> NDArray[np.int64]:
    """At how many plays the field is missing, and at how many it has each label. Shape: i64[1 + L].

    A play has several labels of a field with several labels: the numbers then add up to more than N.
    """
    codes = play_codes(domain, field, items, columns)
    if codes is not None:
        return np.bincount(codes, minlength=1 + field.num_labels)
    labels = items.multi[field.name]
    times = np.bincount(columns.item_row, minlength=len(labels))
    missing = times[~labels.any(axis=1)].sum()
    return np.concatenate([[missing], times @ labels]).astype(np.int64)
