"""The leader lock: exactly one member of the group leads for any claims; on one machine, the first process leads."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

from intentrec_core.errors import ConfigError, Fenced
from stream.settings import Settings
from stream.trainer.leader_lock import MachineLock, _LeaderAssignor


def assigned(claims: dict[str, int]) -> list[str]:
    """Members that are assigned the partition; a claim of 0 means no claim."""
    members = {}
    for name, claim in claims.items():
        assignor = _LeaderAssignor()
        assignor.claim = claim.to_bytes(8, "big") if claim else b""
        members[name] = assignor.metadata(["model-updates"])
    decided = _LeaderAssignor().assign(None, members)
    assert set(decided) == set(claims)
    return [name for name, given in decided.items() if given.partitions()]


def test_a_newcomer_gets_nothing_while_another_leads() -> None:
    for names in itertools.permutations(["a", "b", "c"]):
        assert assigned({names[0]: 7, names[1]: 0, names[2]: 0}) == [names[0]]


def test_of_two_claims_the_newer_one_wins() -> None:
    assert assigned({"stalled": 7, "follower": 9}) == ["follower"]
    assert assigned({"a-follower": 9, "stalled": 7}) == ["a-follower"]


def test_without_claims_one_of_them_leads() -> None:
    assert assigned({"b": 0, "a": 0}) == ["a"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = Settings(broker="127.0.0.1:1", cache_dir=tmp_path / "file" / "below")
    with pytest.raises(ConfigError, match="cache_dir"):
        asyncio.run(MachineLock(settings).acquire())


def test_on_one_machine_the_first_process_leads_until_it_lets_go(tmp_path: Path) -> None:
    settings = Settings(broker="127.0.0.1:1", app_id="lock-test", cache_dir=tmp_path)

    async def scenario() -> None:
        first, second = MachineLock(settings), MachineLock(settings)
        await first.acquire()
        await first.confirm("")
        with pytest.raises(Fenced):
            await second.acquire()
        with pytest.raises(Fenced):
            await second.confirm("")
        await MachineLock(settings.model_copy(update={"app_id": "other-app"})).acquire()
        await first.release()
        await second.acquire()
        await second.release()

    asyncio.run(scenario())
