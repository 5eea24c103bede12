"""Writing files and folders so that a reader, a kill or a power cut never leaves half of one under its final name.

    write under a temporary name ──▶ fsync ──▶ rename ──▶ fsync of the parent folder

Without the first fsync, a power cut can leave the new name on an empty file; without the second, it can undo the rename.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

#: Begins the name of a file that is being written. A process that is killed leaves such a file; it is safe to delete.
TEMPORARY_PREFIX = ".writing-"


def write_durably(path: Path, data: bytes) -> None:
    """Replaces the file at ``path`` by ``data``: on return the new content survives a power cut.

    Raises: OSError when a write fails; then the file at ``path`` is as before and the temporary file is removed.
    """
    with replacing(path) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write the new content of ``path`` into; it takes effect, durably, when the block ends without an error.

    Raises: OSError when a write fails. After any error the file at ``path`` is as before and the temporary file is removed.
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:  # an interrupt too: half a file must not stay
        with contextlib.suppress(OSError):  # the first error counts
            temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def rename_durably(folder: Path, target: Path) -> None:
    """Renames a complete folder to ``target`` after syncing everything in it: on return it survives a power cut.

    Raises: OSError when a write fails, or when ``target`` is a folder that is not empty.
    Cost: one fsync for each file; a file that was synced before costs next to nothing.
    """
    for path in sorted(folder.rglob("*")):
        sync(path)
    sync(folder)
    folder.rename(target)
    sync(target.parent)


def sync(path: Path) -> None:
    """Makes a file's content, or a folder's list of entries, durable.

    Raises: OSError when a write fails.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
