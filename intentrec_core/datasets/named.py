"""The recorded data sets by the names that ``--data`` takes."""

from __future__ import annotations

from pathlib import Path

from intentrec_core.datasets.beauty import load_beauty
from intentrec_core.datasets.kuairand import load_kuairand
from intentrec_core.datasets.movietweetings import load_movietweetings
from intentrec_core.datasets.recorded import RecordedPlays, RecordedSet
from intentrec_core.errors import ConfigError

RECORDED_SETS = {
    "movietweetings": RecordedSet("MovieTweetings-100K", "movietweetings_100k", "movietweetings", load_movietweetings),
    "beauty": RecordedSet("Amazon Beauty", "amazon_beauty", "beauty", load_beauty),
    "kuairand-pure": RecordedSet("KuaiRand-Pure", "KuaiRand-Pure", "kuairand", load_kuairand),
}


def is_present(name: str, data_root: Path | None) -> bool:
    """Whether the folder of a data set is there."""
    return data_root is not None and (data_root / RECORDED_SETS[name].folder).is_dir()


def load_recorded(name: str, data_root: Path | None) -> RecordedPlays:
    """A data set by its name.

    Raises: ConfigError with the name of the folder, when it is not there; DataError when its files cannot be read.
    """
    wanted = RECORDED_SETS[name]
    if data_root is None or not is_present(name, data_root):
        where = f"{data_root} has no folder" if data_root else "--data-root is not given: it is the folder with"
        raise ConfigError(f"{wanted.title} is not there: {where} {wanted.folder}")
    return wanted.load(data_root / wanted.folder)
