"""Fetching files, with progress and one clear error: by URL, and out of a package's wheel through pip.

pip is asked, not a host: the wheel comes from whatever index, mirror or folder of wheels the user has configured.
"""

from __future__ import annotations

import http.client
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from intentrec_core.errors import DataError

Progress = Callable[[str, int, int], None]
"""Called with what is being done, bytes done, bytes in total (0 when unknown)."""

CHUNK_BYTES = 1 << 16
#: pip itself gives up on a dead index after some 90 s (5 tries of 15 s); the rest is a slow line and 2 MB.
PIP_TIMEOUT_S = 300.0


def no_progress(what: str, done_bytes: int, total_bytes: int) -> None:
    """Reports to nobody."""


def download_url(url: str, target: Path, *, timeout_s: float, progress: Progress = no_progress) -> Path:
    """Downloads ``url`` to ``target``.

    Raises: DataError when it cannot be had, or ends early.
    """
    what = f"download {target.name}"
    progress(what, 0, 0)
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as response, target.open("wb") as file:
            total = int(response.headers.get("Content-Length") or 0)
            done = 0
            while chunk := response.read(CHUNK_BYTES):
                file.write(chunk)
                done += len(chunk)
                progress(what, done, total)
    except urllib.error.HTTPError as error:
        raise DataError(f"answered {error.code}") from error
    except urllib.error.URLError as error:
        raise DataError(f"cannot be reached ({error.reason})") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DataError(f"the download failed ({error or type(error).__name__})") from error
    if total and done != total:
        raise DataError(f"the download ended after {done} of {total} bytes")
    return target


def download_distribution(requirement: str, folder: Path, *, progress: Progress = no_progress) -> Path:
    """Downloads the wheel of ``requirement`` into ``folder`` through pip: no dependencies, nothing installed.

    Raises: DataError with pip's last line when pip fails, is missing, or takes longer than PIP_TIMEOUT_S.
    """
    progress(f"pip download {requirement}", 0, 0)
    options = [
        "--no-deps",
        "--only-binary=:all:",
        "--no-input",
        "--disable-pip-version-check",
        "--quiet",
        "--dest",
        str(folder),
    ]
    command = [sys.executable, "-m", "pip", "download", *options, requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise DataError(f"pip took longer than {PIP_TIMEOUT_S:g} s") from error
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines or ["no output"]
        raise DataError(f"pip: {errors[-1].removeprefix('ERROR: ')}")
    size = wheels[0].stat().st_size
    progress(f"pip download {requirement}", size, size)
    return wheels[0]
