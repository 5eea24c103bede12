"""Files of RetailRocket's shape: who viewed, put into the cart and bought what, and the items. Made here, from a seed."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

COLUMNS = ("timestamp", "visitorid", "event", "itemid", "transactionid")
CATEGORIES = ("audio", "books", "garden", "kitchen", "phones", "toys")
FIRST_MS = 1_433_221_332_117


def write_events(path: Path, *, num_members: int = 60, num_items: int = 60, seed: int = 0) -> int:
    """Writes events in no order, as RetailRocket's are; returns how many. A member stays with a category for some events."""
    random = np.random.default_rng(seed)
    rows: list[tuple[object, ...]] = []
    for member in range(num_members):
        category, ts_ms = int(random.integers(len(CATEGORIES))), FIRST_MS + int(random.integers(30 * 86_400)) * 1000
        for _ in range(int(random.integers(3, 15))):
            if random.random() < 0.2:
                category, ts_ms = int(random.integers(len(CATEGORIES))), ts_ms + 86_400_000
            ts_ms += int(random.integers(5, 300)) * 1000
            item = int(random.integers(num_items // len(CATEGORIES))) * len(CATEGORIES) + category
            rows.append((ts_ms, member, "view", item, ""))
            if random.random() < 0.25:
                rows.append((ts_ms + 20_000, member, "addtocart", item, ""))
                if random.random() < 0.5:
                    rows.append((ts_ms + 60_000, member, "transaction", item, len(rows)))
                ts_ms += 90_000
    random.shuffle(rows)
    _write(path, COLUMNS, rows, ",")
    return len(rows)


def write_items(path: Path, *, num_items: int = 60, seed: int = 0) -> None:
    """Writes the items, separated by semicolons: title, category, tags, price, day of listing, and whether it is in stock."""
    random = np.random.default_rng(seed)
    rows = [
        (
            item,
            f"Thing {item}; the {CATEGORIES[item % len(CATEGORIES)]} one",
            CATEGORIES[item % len(CATEGORIES)],
            "|".join(random.choice(["new", "red", "small", "sale"], 2, replace=False)),
            f"{random.gamma(3, 20):.2f}",
            f"2014-{random.integers(1, 13):02d}-{random.integers(1, 29):02d}",
            item % 9 != 0,
        )
        for item in range(num_items)
    ]
    _write(path, ("itemid", "name", "category", "tags", "price", "listed", "in_stock"), rows, ";")


def _write(path: Path, columns: tuple[str, ...], rows: list[tuple[object, ...]], separator: str) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerow(columns)
        writer.writerows(rows)
