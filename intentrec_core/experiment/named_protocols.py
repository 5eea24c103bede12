"""The protocols by name, as ``intentrec eval`` offers them, and the one of a model that was trained before."""

from __future__ import annotations

from intentrec_core.errors import DataError
from intentrec_core.evaluation.protocols import Protocol, leave_one_out, streaming, temporal
from intentrec_core.evaluation.task import EvaluationData
from intentrec_core.experiment.protocol_names import ProtocolName


def make_protocol(
    name: ProtocolName, data: EvaluationData, *, share: float, refresh_plays: int, knows_time: bool
) -> Protocol:
    """The protocol of this name. ``share`` of the plays, the earliest, come before the test; leave-one-out has no share, no
    refreshes and knows the time.

    Raises: DataError when a part would have no play to predict.
    """
    if name is ProtocolName.LEAVE_ONE_OUT:
        return leave_one_out(data)
    if not 0.0 < share < 1.0:
        raise DataError(f"with a share of {share:g} one side of the split has no play; allowed: above 0, below 1")
    if name is ProtocolName.STREAM:
        return streaming(data, refresh_plays=refresh_plays, first_ratio=share, knows_time=knows_time)
    return temporal(data, test_ratio=round(1.0 - share, 9), knows_time=knows_time)


def after_training(data: EvaluationData, cut_ms: int, *, knows_time: bool) -> Protocol:
    """The temporal protocol whose test is every play from ``cut_ms`` on: that of a model that has learned all plays before it.

    Raises: DataError when no play is on one of the sides, or a part would have no play to predict.
    """
    num, learned = len(data.place), int((data.members.events["ts_ms"] < cut_ms).sum())
    if not 0 < learned < num:
        raise DataError(
            f"{learned:,} of {num:,} plays are before the end of the model's training: give plays of both sides, those that it "
            "learned and later ones"
        )
    # Half a play more, so that rounding cannot reach the play before.
    return temporal(data, test_ratio=1.0 - (learned + 0.5) / num, knows_time=knows_time)
