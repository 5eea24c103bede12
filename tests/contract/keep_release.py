"""Keeps the contract of the current version: its schemas, and a golden message of each kind, as they were when it was released.

    python -m tests.contract.keep_release       writes tests/contract/released/<version>

A version that subscribers may know is never written again: raise CONTRACT_VERSION in stream/wire/schemas.py first.
"""

from __future__ import annotations

import json
from pathlib import Path

from stream.wire import schemas
from stream.wire.examples import example_values

FOLDER = Path(__file__).parent / "released" / schemas.CONTRACT_VERSION


def release_texts() -> dict[str, str]:
    """The files of the current version, by name."""
    golden = {f"{name}.json": value for name, value in example_values().items()}
    texts = {name: json.dumps(value, indent=2, ensure_ascii=False) + "\n" for name, value in golden.items()}
    return texts | {name: text for name, text in schemas.generate().items() if name.endswith(".schema.json")}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file_name, text in release_texts().items():
        (FOLDER / file_name).write_text(text, "utf-8")
    print(f"wrote {FOLDER}")
