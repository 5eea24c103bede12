"""Checks of this machine: disk, memory, the device to compute on, and what an Apache Kafka of one's own needs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from intentrec_core.device import INSTALL_TORCH, device_memory, has_driver, has_torch, resolve_device
from intentrec_core.errors import IntentRecError
from stream.doctor.check import Checks
from stream.local_kafka.jars import MIN_JAVA, find_java

if TYPE_CHECKING:
    from stream.settings import Settings

_GIB = 1 << 30
#: A bundle of a large catalogue, twice, and an hour of the event log.
_WARNS_BYTES, _FAILS_BYTES = 5 * _GIB, _GIB // 2
#: Keys and values beside model, index, and the plays in flight.
_POOL_SHARE = 0.6


def check_machine(settings: Settings, checks: Checks) -> None:
    """Adds what is found on this machine."""
    folders = {"cache": settings.cache_dir, "event log": settings.event_log_dir}
    if "://" not in settings.bundle_url:
        folders["bundles"] = Path(settings.bundle_url)
    for name, folder in folders.items():
        try:
            _check_disk(checks, name, folder)
        except OSError as error:  # a folder above it that this user may not enter
            checks.fail(
                f"disk of the {name}",
                f"{folder}: {error.strerror}",
                "give this user the right, or choose another folder",
            )
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    pool = f"{settings.pool_bytes / _GIB:.2f} GiB for keys and values of members, of {total / _GIB:.1f} GiB"
    if settings.pool_bytes > _POOL_SHARE * total:
        checks.warn("memory", pool, "lower INTENTREC_POOL_BYTES: a process without memory is killed")
    else:
        checks.ok("memory", pool)
    _check_device(settings, checks)
    _check_java(checks)


def _check_disk(checks: Checks, name: str, folder: Path) -> None:
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    area, free = f"disk of the {name}", shutil.disk_usage(there).free
    found = f"{folder}: {free / _GIB:.1f} GiB free"
    if not os.access(there, os.W_OK):
        checks.fail(
            area, f"{folder}: {there} cannot be written to", "give this user the right, or choose another folder"
        )
    elif free < _FAILS_BYTES:
        checks.fail(area, found, "free some: writes fail soon")
    elif free < _WARNS_BYTES:
        checks.warn(area, found, "free some before long")
    else:
        checks.ok(area, found)


def _check_device(settings: Settings, checks: Checks) -> None:
    try:
        memory = device_memory(resolve_device(settings.device))
    except IntentRecError as error:
        checks.refused("GPU", error)
        return
    if memory is None and settings.device == "auto" and has_driver() and not has_torch():
        checks.warn("GPU", "a CUDA driver is installed, and torch is not: inference is on the CPU", INSTALL_TORCH)
    elif memory is None:
        where = "inference and training are on the CPU"
        if not has_torch():
            where = "inference is on the CPU; training needs torch, which is not installed"
        checks.ok("GPU", f"none is used (device={settings.device}): {where}")
    elif settings.kv_dtype != "float32":
        checks.fail(
            "GPU",
            f"{memory.name} is used (device={settings.device}), and kv_dtype is {settings.kv_dtype}: a worker does not start",
            "set INTENTREC_KV_DTYPE=float32, or INTENTREC_DEVICE=cpu",
        )
    else:
        free, total = memory.free_bytes / _GIB, memory.total_bytes / _GIB
        checks.ok("GPU", f"{memory.name}: {free:.1f} of {total:.1f} GiB free")


def _check_java(checks: Checks) -> None:
    """Only a broker from its jars needs them."""
    try:
        checks.ok("Java", find_java())
    except (IntentRecError, OSError, subprocess.SubprocessError) as error:
        found = " ".join(str(error).split(";")[0].split())
        checks.warn("Java", f"{found}: make kafka does not run", f"install Java {MIN_JAVA}, or use another broker")
    maven = shutil.which("mvn")
    if maven:
        checks.ok("Maven", maven)
    else:
        checks.warn("Maven", "not found: make kafka cannot fetch Kafka", "install Maven, or use another broker")
