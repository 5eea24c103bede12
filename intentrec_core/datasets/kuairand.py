"""KuaiRand-Pure: short videos as they were shown in an app, with play time, clicks, likes and tabs.

It is the public set nearest to the paper's: durations and several kinds of actions. Every video that was shown is a play. Its
action is the strongest of the member's signals (:data:`SIGNALS`), and "skip" where there was none; its duration is the play time.

Read are the files log_standard_*.csv and video_features_basic_*.csv of the folder, or of its folder "data". The log of videos
that were shown at random is not read: it is not what members see in service.

Source: Gao et al., "KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly Exposed Videos", CIKM 2022.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from intentrec_core.datasets.recorded import RecordedPlays, columns_table, context_column
from intentrec_core.errors import DataError
from intentrec_core.features.catalogue import Catalogue, Item
from intentrec_core.plays.table import check_plays

LICENCE = """\
KuaiRand, Creative Commons Attribution-ShareAlike 4.0. Publications that use it cite: C. Gao et al. KuaiRand: An Unbiased
Sequential Recommendation Dataset with Randomly Exposed Videos. CIKM 2022. doi:10.1145/3511808.3557624"""

#: Column of the log and the action that it stands for, the strongest first.
SIGNALS = (
    ("is_hate", "hate"),
    ("is_follow", "follow"),
    ("is_forward", "forward"),
    ("is_comment", "comment"),
    ("is_like", "like"),
    ("is_click", "click"),
)
NO_SIGNAL = "skip"
_LOG = ("user_id", "video_id", "time_ms", *(column for column, _ in SIGNALS), "long_view", "play_time_ms", "tab")
_VIDEO = ("video_id", "video_type", "upload_dt", "video_duration", "tag")


def load_kuairand(folder: Path) -> RecordedPlays:
    """The data set from its folder. Videos shown at one millisecond keep the order of the files.

    Raises: DataError with the file, and the column that it lacks.
    """
    inner = folder / "data" if (folder / "data").is_dir() else folder
    logs = [_read(path, _LOG) for path in _files(inner, "log_standard_*.csv")]
    log = pa.concat_tables(logs)
    column = {name: log.column(name).to_numpy(zero_copy_only=False) for name in _LOG}
    action = np.full(log.num_rows, NO_SIGNAL, dtype=object)
    for name, meaning in reversed(SIGNALS):
        action[column[name] == 1] = meaning
    context = context_column(("tab", "long_view"), [column[name].astype(str).tolist() for name in ("tab", "long_view")])
    plays = columns_table(
        {
            "event_id": [f"kr-{number}" for number in range(log.num_rows)],
            "user_id": column["user_id"].astype(str).tolist(),
            "item_id": column["video_id"].astype(str).tolist(),
            "ts_ms": column["time_ms"].astype(np.int64),
            "action": action.tolist(),
            "duration_s": (column["play_time_ms"] / 1000.0).astype(np.float32),
            "context": context,
        },
        log.num_rows,
    )
    items = [
        _video(row) for path in _files(inner, "video_features_basic_*.csv") for row in _read(path, _VIDEO).to_pylist()
    ]
    return RecordedPlays(check_plays(plays), Catalogue(items), LICENCE)


def _files(folder: Path, pattern: str) -> list[Path]:
    found = sorted(folder.glob(pattern))
    if not found:
        raise DataError(f"{folder} has no {pattern}: give the folder of KuaiRand-Pure as it was published")
    return found


def _read(path: Path, columns: tuple[str, ...]) -> pa.Table:
    types = {"upload_dt": pa.string(), "tag": pa.string(), "video_type": pa.string(), "video_id": pa.int64()}
    options = pa_csv.ConvertOptions(include_columns=list(columns), column_types=types)
    try:
        return pa_csv.read_csv(path, convert_options=options)
    except (pa.ArrowException, KeyError, OSError) as error:
        raise DataError(f"{path}: {error}; allowed: a CSV file with the columns {', '.join(columns)}") from error


def _video(row: dict[str, Any]) -> Item:
    attributes: dict[str, Any] = {"tags": [tag for tag in (row["tag"] or "").split(",") if tag]}
    if row["upload_dt"]:
        attributes["released"] = row["upload_dt"]
    if row["video_duration"] is not None:
        attributes["runtime_s"] = float(row["video_duration"]) / 1000.0
    if row["video_type"]:
        attributes["video_type"] = row["video_type"]
    return Item(str(row["video_id"]), f"video {row['video_id']}", attributes)
