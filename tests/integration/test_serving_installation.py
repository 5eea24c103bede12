"""An installation without torch: what worker and gateway need on a CPU, and what other commands say there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from stream.local_kafka.broker import Broker
from tests.rigs.serving_rig import ServingRigMaker, announce_bundle, bundles_named, world_plays

ROOT = Path(__file__).parents[2]
MISSING = "torch, which is not installed: install intentrec[torch], or use the image that has torch"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an installation with the lock of worker and gateway."""
    folder = tmp_path_factory.mktemp("serving") / "venv"
    script = [str(ROOT / "deploy/venv/install.sh"), str(folder), "serving"]
    installed = subprocess.run(["bash", *script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert installed.returncode == 0, installed.stderr
    return folder / "bin/python"


def run(python: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, "-m", "stream.cli", *command], cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_worker_serves_and_a_bundle_is_verified(
    python: Path, embedded_broker: Broker, make_serving_rig: ServingRigMaker
) -> None:
    rig, (first, _) = make_serving_rig(embedded_broker, device="auto")
    worker = rig.start_worker(module="stream.cli", arguments=["worker"], python=str(python))
    announce_bundle(rig, first)
    rig.produce(world_plays(rig, 50))
    rig.wait_for_answers(50)
    verified = run(python, "bundle", "verify", first.version, "--bundles", rig.settings.bundle_url)
    assert worker.terminate() == 0, worker.log()[-2000:]
    assert set(bundles_named(rig)) == {first.version}
    assert verified.stdout.startswith(f"sound {first.version}"), verified.stderr


@pytest.mark.parametrize(
    "command", [["train"], ["eval"], ["explain", "ann"], ["trainer"]], ids=lambda command: command[0]
)
def test_what_trains_or_evaluates_says_what_is_missing(python: Path, command: list[str]) -> None:
    done = run(python, *command)
    assert done.returncode == 2
    assert MISSING in " ".join(done.stderr.split())


def test_the_doctor_looks_without_torch(python: Path) -> None:
    done = run(python, "doctor", "--broker", "127.0.0.1:1")
    assert "torch" not in done.stderr
    assert "GPU" in done.stdout
