"""deploy/venv/install.sh: a missing requirement is named in one line, and no partial installation is left."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "deploy/venv/install.sh"


def install(venv: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(SCRIPT), str(venv)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        stdin=subprocess.DEVNULL,
    )


def told(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of the failure."""
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert "Traceback" not in done.stderr
    return lines[-1]


def program(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_another_lock_than_there_are_is_refused() -> None:
    done = subprocess.run(["bash", str(SCRIPT), "nowhere", "build"], capture_output=True, text=True, check=False)
    assert told(done) == "intentrec: build is no lock: serving, training or dev"
    assert not (ROOT / "nowhere").exists()


def test_without_python_it_says_what_to_install(tmp_path: Path) -> None:
    line = told(install(tmp_path / "venv", PYTHON="no-such-python"))
    assert (
        line
        == "intentrec: Python 3.11 or newer is needed: install it, or select one: make install PYTHON=/path/to/python3.11"
    )


def test_an_old_python_is_named(tmp_path: Path) -> None:
    old = program(tmp_path / "python3", 'case "$*" in *version_info*) exit 1;; -V) echo Python 3.9.2;; esac')
    line = told(install(tmp_path / "venv", PYTHON=old))
    assert f"({old} is Python 3.9.2)" in line


def test_a_python_without_venv_names_the_package(tmp_path: Path) -> None:
    bare = program(tmp_path / "python3.11", 'case "$*" in *ensurepip*) exit 1;; esac')
    line = told(install(tmp_path / "venv", PYTHON=bare))
    assert "has no venv module" in line
    assert "python3.11-venv" in line


@pytest.mark.slow
def test_without_a_network_it_says_so_and_the_next_run_goes_on(tmp_path: Path) -> None:
    nowhere = "http://127.0.0.1:9/simple"
    environment = {
        "PYTHON": getattr(sys, "_base_executable", sys.executable), "PIP_INDEX_URL": nowhere, "PIP_RETRIES": "0",
        "PIP_NO_CACHE_DIR": "1", "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "",
    }  # fmt: skip
    line = told(install(tmp_path / "venv", **environment))
    assert "the package index cannot be reached" in line
    assert not (tmp_path / "venv/installed").exists()
    assert (tmp_path / "venv/bin/python").exists()
    assert "the package index cannot be reached" in told(install(tmp_path / "venv", **environment))
    of_another_lock = tmp_path / "venv/installed-serving"
    of_another_lock.touch()
    install(tmp_path / "venv", **environment)
    assert not of_another_lock.exists(), "its packages would stay"


def test_locks_pin_every_package_by_hash_and_name_no_index() -> None:
    versions: dict[str, set[str]] = {}
    for name in ("serving.txt", "training.txt", "dev.txt", "build.txt"):
        text = (ROOT / "deploy/locks" / name).read_text()
        assert "://" not in text
        blocks = re.findall(r"^([a-z0-9-]+)==([^\s;]+).*?\\\n((?:    --hash=sha256:[0-9a-f]{64}.*\n)+)", text, re.M)
        assert len(blocks) == len(re.findall(r"^[a-z0-9-]+==", text, re.M)) > 0
        for package, version, _ in blocks:
            versions.setdefault(f"{name}/{package}", set()).add(version)
    for key, found in versions.items():
        name, package = key.split("/")
        if name != "dev.txt" and package != "uv":
            assert versions[f"dev.txt/{package}"] == found, "dev is a superset at the same versions"


def locked(lock: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+)==", (ROOT / f"deploy/locks/{lock}.txt").read_text(), re.M))


def test_the_locks_cover_every_declared_dependency() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    declared = {"serving": project["dependencies"], "training": extras["torch"], "dev": extras["dev"]}
    for lock, requirements in declared.items():
        names = {re.split(r"[<>=\[]", requirement)[0].lower() for requirement in requirements}
        assert names <= locked(lock)
    assert locked("serving") < locked("training") < locked("dev")
    assert not [name for name in locked("serving") if re.match("torch|triton|nvidia|cuda", name)]


def test_every_lock_that_is_named_is_there() -> None:
    scripts = [*ROOT.glob("deploy/**/*.sh"), *ROOT.glob("tests/**/*.sh"), ROOT / "Makefile"]
    named = {name for script in scripts for name in re.findall(r"deploy/locks/([a-z]+)\.txt", script.read_text())}
    assert named >= {"build", "training"}
    assert named <= {path.stem for path in (ROOT / "deploy/locks").iterdir()}


def test_ci_calls_the_same_targets_as_people() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    assert {"demo", "test", "check", "lint", "types", "layers", "install"} <= targets
    ci = (ROOT / ".ci/run").read_text()
    assert "make test" in ci
    workflow = (ROOT / ".github/workflows/check.yml").read_text()
    for command in re.findall(r"make ([a-z ]+)$", ci + workflow, re.M):
        assert set(command.split()) <= targets
