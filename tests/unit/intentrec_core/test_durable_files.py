"""Durable files: the old content or the new one, synced before the rename and after it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from intentrec_core.durable_files import TEMPORARY_PREFIX, rename_durably, replacing, write_durably


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what is synced and renamed, in order."""
    seen: list[str] = []
    fsync, replace, rename = os.fsync, Path.replace, Path.rename

    def synced(descriptor: int) -> None:
        seen.append("sync " + Path(os.readlink(f"/proc/self/fd/{descriptor}")).name.partition(".txt")[0])
        fsync(descriptor)

    def replaced(self: Path, target: Path) -> Path:
        seen.append(f"rename to {target.name}")
        return replace(self, target)

    def renamed(self: Path, target: Path) -> Path:
        seen.append(f"rename to {target.name}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    monkeypatch.setattr(Path, "rename", renamed)
    return seen


def test_a_file_is_synced_before_its_rename_and_its_folder_after_it(tmp_path: Path, steps: list[str]) -> None:
    write_durably(tmp_path / "a.txt", b"new")
    assert steps == [f"sync {TEMPORARY_PREFIX}a", "rename to a.txt", f"sync {tmp_path.name}"]
    assert (tmp_path / "a.txt").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_folder_is_synced_with_all_that_is_in_it_before_its_rename(tmp_path: Path, steps: list[str]) -> None:
    (tmp_path / "made" / "inner").mkdir(parents=True)
    (tmp_path / "made" / "inner" / "b").write_bytes(b"1")
    rename_durably(tmp_path / "made", tmp_path / "final")
    assert steps == ["sync inner", "sync b", "sync made", "rename to final", f"sync {tmp_path.name}"]


def test_an_error_leaves_the_old_content_and_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    write_durably(path, b"old")

    def fail_halfway() -> None:
        with replacing(path) as file:
            file.write(b"ne")
            raise ValueError("halfway")

    with pytest.raises(ValueError, match="halfway"):
        fail_halfway()

    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        write_durably(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_folder_never_replaces_one_that_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "kept").touch()
    with pytest.raises(OSError, match="not empty"):
        rename_durably(tmp_path / "made", tmp_path / "there")
    assert (tmp_path / "there" / "kept").exists()
