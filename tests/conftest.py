"""Fixtures shared by all tests: small domains, item worlds and models, made from one seed."""

from __future__ import annotations

import os
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")
# A Kafka of a test lives for a minute: the compiler that starts quickly saves 2 of its 5 s of processor time at the start.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings

from tests.worlds.tiny_world import TinyWorld

pytest_plugins = [
    "tests.rigs.broker_fixtures",
    "tests.rigs.fault_report",
    "tests.rigs.order",
    "tests.rigs.serving_rig",
]

torch.set_num_threads(1)
settings.register_profile(
    "ci", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
# A mutant's first failing example is as good as its smallest.
settings.register_profile("mutants", settings.get_profile("ci"), phases=[Phase.explicit, Phase.generate], database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """A test that sets the number of threads sets it back: FAISS follows torch, and its threads wait for one another, which under
    load turns a second of index building into minutes for every later test of the process.
    """
    yield
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert threads == 1, f"the test left torch with {threads} threads"


@pytest.fixture(scope="session")
def world() -> TinyWorld:
    """A world with every kind of field, rule and filter, and an untrained model of it."""
    return TinyWorld()
