"""What the doctor says of this machine where it cannot even look."""

from __future__ import annotations

from pathlib import Path

import pytest

from intentrec_core.device import DeviceMemory
from stream.doctor.check import Checks, CheckStatus
from stream.doctor.machine import check_machine
from stream.settings import Settings


def test_a_folder_that_cannot_be_looked_at_is_a_finding_and_the_rest_is_examined() -> None:
    """A name that is too long stands for a folder that this user may not enter: root, as who tests often run, may enter all."""
    checks = Checks()
    check_machine(Settings(cache_dir=Path("/" + 300 * "x")), checks)
    found = {check.area: check for check in checks.found}
    assert found["disk of the cache"].status is CheckStatus.ERROR
    assert "too long" in found["disk of the cache"].found
    assert {"disk of the event log", "memory", "GPU"} <= set(found)


@pytest.mark.parametrize(("has_torch", "status"), [(True, CheckStatus.OK), (False, CheckStatus.WARNING)])
def test_a_driver_that_cannot_be_used_without_torch_is_a_warning(
    has_torch: bool, status: CheckStatus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.doctor.machine.has_driver", lambda: True)
    monkeypatch.setattr("stream.doctor.machine.has_torch", lambda: has_torch)
    monkeypatch.setattr("stream.doctor.machine.resolve_device", lambda _: "cpu")
    checks = Checks()
    check_machine(Settings.load(), checks)
    monkeypatch.setattr("stream.doctor.machine.has_driver", lambda: False)
    check_machine(Settings.load(), checks)
    with_driver, without = [check for check in checks.found if check.area == "GPU"]
    assert with_driver.status is status
    assert ("install intentrec[torch]" in with_driver.remedy) is not has_torch
    assert ("training needs torch" in without.found) is not has_torch


@pytest.mark.parametrize(("kv_dtype", "status"), [("float32", CheckStatus.OK), ("int8", CheckStatus.ERROR)])
def test_keys_and_values_that_the_device_refuses_are_found_before_a_worker_is_started(
    kv_dtype: str, status: CheckStatus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.doctor.machine.device_memory", lambda _: DeviceMemory("a GPU", 1 << 30, 1 << 31))
    checks = Checks()
    check_machine(Settings.load(kv_dtype=kv_dtype), checks)
    (found,) = [check for check in checks.found if check.area == "GPU"]
    assert found.status is status
