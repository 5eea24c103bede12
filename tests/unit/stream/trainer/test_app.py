"""How a trainer process ends: which exit code it has reached, and when its drain deadline starts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from intentrec_core.errors import BrokerError
from stream.ops.metrics import Metrics, TrainerOutcome
from stream.ops.process_end import EXIT_NOT_DRAINED
from stream.settings import Settings
from stream.trainer import app
from stream.trainer.app import TrainerProcess


def run(monkeypatch: pytest.MonkeyPatch, error: BrokerError | None) -> tuple[TrainerProcess, list[int]]:
    """A trainer whose broker hangs until it is stopped, or fails; and its exit code at the moment the end began."""

    async def supports_transactions(_: Settings) -> bool:
        if error is not None:
            raise error
        process.stop()
        await asyncio.sleep(60)
        return True

    async def scenario() -> None:
        process.on_ending = lambda: codes.append(process.exit_code)
        await process.run()

    monkeypatch.setattr(app, "supports_transactions", supports_transactions)
    process, codes = TrainerProcess(Settings(metrics_port=0), Metrics()), list[int]()
    if error is None:
        asyncio.run(scenario())
    else:
        with pytest.raises(BrokerError):
            asyncio.run(scenario())
    return process, codes


def test_a_trainer_that_is_stopped_has_not_drained_until_everything_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    process, codes = run(monkeypatch, None)
    assert (codes, process.exit_code) == ([EXIT_NOT_DRAINED], 0)


def test_a_trainer_that_fails_ends_with_the_code_of_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    process, codes = run(monkeypatch, BrokerError("down"))
    assert (codes, process.exit_code) == ([EXIT_NOT_DRAINED], BrokerError.exit_code)


def test_a_catalogue_that_cannot_be_copied_to_the_topic_fails_the_run_and_not_the_trainer(tmp_path: Path) -> None:
    items = tmp_path / "items.jsonl"
    items.write_text('{"item_id": "m1"}\n')
    settings = Settings(metrics_port=0, catalogue_source="topic", catalogue=items, domain=str(tmp_path / "none.toml"))
    result = asyncio.run(TrainerProcess(settings, Metrics())._retrain(None))
    assert result.outcome is TrainerOutcome.FAILED
    assert "none.toml" in result.detail
