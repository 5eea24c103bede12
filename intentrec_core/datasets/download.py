"""Downloads files with progress and one clear error: by URL, or from a package's wheel through pip.

The wheel is requested from pip and not from a host, so that it comes from the index, mirror or folder of wheels that
the user has configured. Decision 79 says why the download by URL uses the standard library.
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
"""Called with a description of the step, bytes done, and bytes in total (0 if unknown)."""

CHUNK_BYTES = 1 << 16
#: pip itself gives up on an unreachable index after about 90 s (5 tries of 15 s); the rest allows for 2 MB on a slow
#: connection.
PIP_TIMEOUT_S = 300.0


def default_cache_dir() -> Path:
    """Where data sets are kept unless another folder is given: ``~/.cache/intentrec``."""
    return Path.home() / ".cache" / "intentrec"


def no_progress(what: str, done_bytes: int, total_bytes: int) -> None:
    """Ignores progress."""


def download_url(url: str, target: Path, *, timeout_s: float, progress: Progress = no_progress) -> Path:
    """Downloads ``url`` to ``target``.

    Raises: DataError with the reason when it cannot be downloaded, or ends early.
    """
    what = f"downloading {url}"
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
        raise DataError(f"HTTP status {error.code}") from error
    except urllib.error.URLError as error:
        raise DataError(f"cannot be reached ({error.reason})") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DataError(f"the download failed ({error or type(error).__name__})") from error
    if total and done != total:
        raise DataError(f"the download ended after {done} of {total} bytes")
    return target


def download_distribution(requirement: str, folder: Path, *, progress: Progress = no_progress) -> Path:
    """Downloads the wheel of ``requirement`` into ``folder`` through pip, without dependencies and without installing
    it.

    Raises: DataError with pip's last error line when pip fails, is missing, or takes longer than PIP_TIMEOUT_S.
    """
    progress(f"downloading the Python package {requirement} with pip", 0, 0)
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
    progress(f"downloading the Python package {requirement} with pip", size, size)
    return wheels[0]
