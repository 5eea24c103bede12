"""The environment that the Quix Streams baseline runs in: made once from its hashed lock, beside ours and never in it."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

_HERE = Path(__file__).parent
#: Ignored by git.
_FOLDER = Path(__file__).parents[4] / ".intentrec" / "bench" / "quix"


def quix_python() -> Path:
    """Its interpreter; makes the environment where it is missing or its lock has changed.

    Raises: subprocess.CalledProcessError when packages cannot be had; what uv says is on stderr.
    """
    lock, installed = _HERE / "lock.txt", _FOLDER / "installed.txt"
    python = _FOLDER / "bin" / "python"
    if not installed.exists() or installed.read_bytes() != lock.read_bytes():
        venv.create(_FOLDER, clear=True, symlinks=True)
        uv = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet", "--require-hashes"]
        subprocess.run([*uv, "--python", str(python), "-r", str(lock)], check=True)
        installed.write_bytes(lock.read_bytes())
    return python
