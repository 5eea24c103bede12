"""An installation without torch: what worker and gateway need on a CPU, and what other commands say there."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from intentrec_core.device import NEEDS_TORCH
from stream.local_kafka.broker import Broker
from tests.rigs.serving_rig import ServingRigMaker, announce_bundle, bundles_named, world_plays

ROOT = Path(__file__).parents[2]
#: Where no broker is: what a command does before it connects is seen, and no broker of the machine is asked.
NOWHERE = ("--broker", "127.0.0.1:1")
NO_BROKER = 6

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """The interpreter of an installation with the lock of worker and gateway."""
    script = [str(ROOT / "deploy/venv/install.sh"), str(tmp_path / "venv"), "serving"]
    installed = subprocess.run(["bash", *script], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert installed.returncode == 0, installed.stderr
    # make takes a folder with the file "installed" for a complete one of its own.
    assert [path.name for path in (tmp_path / "venv").glob("installed*")] == ["installed-serving"]
    return tmp_path / "venv/bin/python"


@pytest.fixture
def run(python: Path, tmp_path: Path) -> Run:
    """Runs a command of that installation."""

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        given = [str(python.parent / "intentrec"), *command]
        return subprocess.run(given, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)

    return run


def test_what_needs_no_torch_does_its_work_and_what_does_says_so(
    python: Path, run: Run, embedded_broker: Broker, make_serving_rig: ServingRigMaker, tmp_path: Path
) -> None:
    rig, (first, _) = make_serving_rig(embedded_broker, device="auto")
    worker = rig.start_worker(module="stream.cli", arguments=["worker"], python=str(python))
    announce_bundle(rig, first)
    rig.produce(world_plays(rig, 50))
    rig.wait_for_answers(50)
    store = ("--bundles", rig.settings.bundle_url)
    done = {command: run("bundle", command, first.version, *store) for command in ("verify", "inspect", "profile")}
    rolled_back = run("bundle", "rollback", first.version, *store, *NOWHERE)
    assert worker.terminate() == 0, worker.log()[-2000:]
    assert set(bundles_named(rig)) == {first.version}
    assert [each.returncode for each in done.values()] == [0, 0, 0], done
    assert done["verify"].stdout.startswith(f"sound {first.version}")
    # As far as a broker is needed.
    for missing in (rolled_back, run("gateway", *NOWHERE), run("worker", "--device", "auto", *NOWHERE)):
        assert missing.returncode == NO_BROKER, missing.stderr
        assert "torch" not in missing.stderr
    doctor = run("doctor", *NOWHERE)
    assert "torch" not in doctor.stderr
    assert "training needs torch" in " ".join(doctor.stdout.split())

    commands = (("train", "--announce", *NOWHERE), ("eval",), ("explain", "ann", *NOWHERE), ("trainer", *NOWHERE))
    for command in (*commands, ("demo", "--headless"), ("bundle", "build", str(tmp_path))):
        refused = run(*command)
        assert refused.returncode == 2, command
        assert NEEDS_TORCH in " ".join(refused.stderr.split())
    refused = run("worker", "--device", "cuda", *NOWHERE)
    assert refused.returncode == 2
    assert "device cuda: torch is not installed" in refused.stderr
    imported = [str(python), "-c", "import intentrec_core as i; i.DataError; i.LiveEncoder"]
    library = subprocess.run(imported, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert "intentrec_core.LiveEncoder needs torch: install intentrec[torch]" in library.stderr
