"""The names of the protocols. Nothing else is imported: a command line offers them before it loads what they need."""

from __future__ import annotations

from enum import StrEnum


class ProtocolName(StrEnum):
    """See :mod:`intentrec_core.evaluation.protocols`."""

    TEMPORAL = "temporal"
    LEAVE_ONE_OUT = "leave-one-out"
    STREAM = "stream"
