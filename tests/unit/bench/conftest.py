"""What several tests of the quality table share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bench.quality import __main__ as command
from tests.bench.quality.data_sets import Measured
from tests.bench.quality.runs import Runs


@pytest.fixture
def measure_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Measured], Path]:
    """Makes the command measure one data set alone. Its runs and its history, which is returned, lie in the test's own folder."""

    def measure(measured: Measured) -> Path:
        history = tmp_path / "quality.jsonl"
        history.write_text("")
        monkeypatch.setattr(command, "HISTORY_FILE", history)
        monkeypatch.setattr(command, "DATA_SETS", (measured,))
        monkeypatch.setattr(command, "Runs", lambda folder=tmp_path / "runs": Runs(folder))
        return history

    return measure
