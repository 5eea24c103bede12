"""Every error this project raises on purpose.

    IntentRecError                  exit code 1
    ├── ConfigError                 exit code 2: a setting, a command-line option or a user's file is wrong
    │   ├── DomainError             ... a domain file is wrong: names the file, the field and the allowed values
    │   └── TransportMismatch       ... the installed faust-streaming lacks a name that the batch transport overrides
    ├── DataError                   exit code 3: data given or found cannot be used, or did not come in time
    ├── BundleError                 exit code 4: a bundle must not serve; carries a BundleFault
    ├── StateError                  exit code 5: ground state and log disagree; starting would lose or repeat plays
    │   └── RecoveryTimeout         ... the changelog was not read to its end before the deadline
    ├── BrokerError                 exit code 6: the broker cannot be started or reached
    │   └── Fenced                  ... another worker owns the partition now; this one must stop
    ├── EngineError                 exit code 7: inference cannot go on; what is not committed is read and answered again
    │   └── DeviceLost              ... the compute device is gone or broken; the process exits, no play is dropped
    └── NotDrained                  exit code 9: a process ended before all its work was durable; the work is done again

A message is one line and says what to do. A reason that is also a metric label is an enum in this module.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class RejectReason(StrEnum):
    """Why a play became a dead letter. Also a metric label and a message header, so values are added but never renamed or
    removed.
    """

    EMPTY = "empty"
    OVERSIZED = "oversized"
    MALFORMED = "malformed"
    UNKNOWN_SCHEMA = "unknown_schema"
    INVALID_FIELD = "invalid_field"
    OUT_OF_RANGE = "out_of_range"
    FUTURE = "future"
    KEY_MISMATCH = "key_mismatch"
    WRONG_PARTITION = "wrong_partition"
    INFERENCE_FAILED = "inference_failed"
    OUTPUT_TOO_LARGE = "output_too_large"


class HidingReason(StrEnum):
    """Why a filter hides every item from a member. Also a metric label and part of a message, so values are added but never
    renamed or removed.
    """

    MEMBER_UNKNOWN = "member_unknown"
    NO_ITEM = "no_item"
    TOGETHER = "together"


class BundleFault(StrEnum):
    """Why a bundle was refused. Also a metric label, so values are added but never renamed or removed."""

    MISSING_FILE = "missing_file"
    UNEXPECTED_FILE = "unexpected_file"
    CHECKSUM = "checksum"
    MANIFEST = "manifest"
    SHAPE = "shape"
    NOT_FINITE = "not_finite"
    GOLDEN = "golden"
    DOMAIN = "domain"
    VOCABULARY = "vocabulary"
    CODE_VERSION = "code_version"
    STALE_SEQUENCE = "stale_sequence"
    GATE = "gate"
    UNREACHABLE = "unreachable"
    MESSAGE_SIZE = "message_size"


class IntentRecError(Exception):
    """Base class of all errors above. ``exit_code`` is the exit status of a command or process that ends with it."""

    exit_code: ClassVar[int] = 1


class ConfigError(IntentRecError):
    """A setting, an option or a file given by the user is wrong. Correct it and start again."""

    exit_code = 2


class DomainError(ConfigError):
    """A domain file is wrong. The message names the file, the field (dotted path) and the allowed values."""

    def __init__(self, file: str, field: str, problem: str, allowed: str) -> None:
        super().__init__(f"{file}: {field}: {problem}; allowed: {allowed}")
        self.file = file
        self.field = field
        self.problem = problem
        self.allowed = allowed


class TransportMismatch(ConfigError):
    """The installed faust-streaming lacks a private name that the batch transport overrides. Install a supported version."""


class DataError(IntentRecError):
    """Data given or found cannot be used: plays, a catalogue, a saved model or a download; or a wait for data ran out."""

    exit_code = 3


class BundleError(IntentRecError):
    """A bundle must not serve. The bundle in service stays in service; repair or rebuild the bundle named in the message."""

    exit_code = 4

    def __init__(self, fault: BundleFault, bundle: str, detail: str) -> None:
        super().__init__(f"bundle {bundle}: {fault.value}: {detail}")
        self.fault = fault
        self.bundle = bundle
        self.detail = detail


class StateError(IntentRecError):
    """Ground state and log disagree. The message names the remedy; nothing has been written."""

    exit_code = 5


class RecoveryTimeout(StateError):
    """The changelog was not read to its end before the deadline. The process exits, so that it can be restarted."""


class BrokerError(IntentRecError):
    """The broker cannot be started or reached."""

    exit_code = 6


class Fenced(BrokerError):
    """A newer owner of this partition exists. The newer owner's state is valid; this worker discards its own."""


class EngineError(IntentRecError):
    """Inference cannot go on. Nothing uncommitted is acknowledged: the plays are read and answered again.

    A single play that fails inference raises nothing: it goes to the dead letters.
    """

    exit_code = 7


class DeviceLost(EngineError):
    """The compute device is gone, or an error has made it unusable for the rest of this process: restart the process.

    No play caused it, and none is dropped: the worker that takes over the partitions answers them. If every start ends
    with this error, read the machine's driver log.
    """


class NotDrained(IntentRecError):
    """A process ended although not all its work was durable, or not in time. Nothing is lost: the work is done again."""

    exit_code = 9
