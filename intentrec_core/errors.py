"""Every error this project raises on purpose.

    IntentRecError                  exit code 1
    ├── ConfigError                 exit code 2: a setting, an option or a file of the user's is wrong
    │   └── DomainError             ... a domain file: names file, field and what is allowed
    ├── DataError                   exit code 3: a data set cannot be had, or is not what its checksum says
    ├── BundleError                 exit code 4: a bundle must not serve; carries a BundleFault
    ├── StateError                  exit code 5: ground state and log disagree; starting would lose or double plays
    │   └── RecoveryTimeout         ... the changelog could not be read within its deadline
    ├── BrokerError                 exit code 6: the broker cannot be started or reached
    │   ├── Fenced                  ... another worker owns the partition now; this one must end
    │   └── TransportMismatch       ... the installed faust-streaming lacks a name the batch transport overrides
    └── EngineError                 exit code 7: inference failed; the play is dead-lettered, the state is exact
        └── DeviceLost              ... the device it ran on is gone or broken; the process ends and nothing is given up

The message is one line and says what to do. A reason that becomes a metric label is an enum here.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class RejectReason(StrEnum):
    """Why a play went to the dead letters; a metric label and a header, so the set only grows."""

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


class BundleFault(StrEnum):
    """Why a bundle was refused; a metric label, so the set only grows."""

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


class IntentRecError(Exception):
    """Base of all errors above; ``exit_code`` is what the command line ends with."""

    exit_code: ClassVar[int] = 1


class ConfigError(IntentRecError):
    """A setting, option or file given by the user is wrong. Correct it and start again."""

    exit_code = 2


class DomainError(ConfigError):
    """A domain file is wrong.

    Names the file, the field (dotted path) and what is allowed there.
    """

    def __init__(self, file: str, field: str, problem: str, allowed: str) -> None:
        super().__init__(f"{file}: {field}: {problem}; allowed: {allowed}")
        self.file = file
        self.field = field
        self.problem = problem
        self.allowed = allowed


class DataError(IntentRecError):
    """A data set cannot be fetched, or its bytes are not those of its checksum."""

    exit_code = 3


class BundleError(IntentRecError):
    """A bundle must not serve. The old one goes on; mend or rebuild the bundle named here."""

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
    """The changelog was not read to its end within the deadline. The process ends, to be restarted."""


class BrokerError(IntentRecError):
    """The broker cannot be started or reached."""

    exit_code = 6


class Fenced(BrokerError):
    """A newer owner of this partition exists. Its state stands; this worker drops its own."""


class TransportMismatch(BrokerError):
    """The installed faust-streaming lacks a private name that the batch transport overrides."""


class EngineError(IntentRecError):
    """Inference failed for a batch."""

    exit_code = 7


class DeviceLost(EngineError):
    """The device that computes is gone, or an error on it has broken this process's use of it for good: start anew.

    No play is to blame and none is given up: whoever takes the partitions over answers them. Where every start ends like this,
    the machine's driver log says why.
    """
