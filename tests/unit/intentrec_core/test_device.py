"""Which device ``auto`` is, and what is asked of torch to know it."""

from __future__ import annotations

import pytest
import torch

from intentrec_core import device
from intentrec_core.device import device_memory, resolve_device
from intentrec_core.errors import ConfigError


@pytest.mark.parametrize(
    ("has_driver", "is_available", "expected"),
    [(True, True, "cuda"), (True, False, "cpu"), (False, True, "cpu")],
    ids=["a device", "a driver without a device", "no driver: torch is not asked"],
)
def test_auto_is_a_cuda_device_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, has_driver: bool, is_available: bool, expected: str
) -> None:
    monkeypatch.setattr(device, "has_driver", lambda: has_driver)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_available)
    assert resolve_device("auto") == expected


def test_without_torch_auto_is_the_cpu_and_cuda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "has_driver", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == "cuda"
    monkeypatch.setattr(device, "has_torch", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == "cpu"
    with pytest.raises(ConfigError, match=r"device cuda:1: torch is not installed; .*install intentrec\[torch\]"):
        resolve_device("cuda:1")


@pytest.mark.parametrize("library", ["libc.so.6", "libnone.so.1"])
def test_a_driver_is_there_if_its_library_can_be_loaded(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    monkeypatch.setattr(device, "_DRIVER", library)
    assert device.has_driver() == (library == "libc.so.6")


@pytest.mark.parametrize("name", ["cpu", "cpu:0"])
def test_the_cpu_has_one_name_and_no_memory_of_a_device(name: str) -> None:
    assert resolve_device(name) == "cpu"
    assert device_memory("cpu") is None


def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="allowed: auto, cpu, cuda"):
        resolve_device("abacus")
    with pytest.raises(ConfigError, match="this machine has no CUDA device; use auto or cpu"):
        resolve_device("cuda:1")
