"""The result of one check, and a list that collects them."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class CheckStatus(StrEnum):
    """How serious a finding is. An error keeps a worker or trainer from starting, or loses something."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


class Check(msgspec.Struct, frozen=True):
    """What was looked at, what was found there, and what to do about it; nothing to do where all is well."""

    area: str
    status: CheckStatus
    found: str
    remedy: str = ""


class Checks:
    """Collects checks of one area after another."""

    def __init__(self) -> None:
        self.found: list[Check] = []

    def ok(self, area: str, found: str) -> None:
        """All is well."""
        self.found.append(Check(area, CheckStatus.OK, found))

    def warn(self, area: str, found: str, remedy: str) -> None:
        """Works, and is not as it should be."""
        self.found.append(Check(area, CheckStatus.WARNING, found, remedy))

    def fail(self, area: str, found: str, remedy: str) -> None:
        """Does not work."""
        self.found.append(Check(area, CheckStatus.ERROR, found, remedy))

    def refused(self, area: str, error: Exception) -> None:
        """An error whose message says what was found, then what is allowed or what to do: after ``allowed:``, or else after the
        last semicolon, or else after the last colon.
        """
        text = one_line(error)
        at = next((at for sign in ("allowed: ", "; ", ": ") if (at := text.rfind(sign)) > 0), len(text))
        found = text[:at].rstrip(" ;,:")
        remedy = text[at:].lstrip(" ;:")
        self.fail(area, found, remedy or "see docs/operations.md")


def one_line(error: BaseException) -> str:
    """What an error says, or else what it is."""
    return " ".join(str(error).split()) or repr(error)


def counted(num: int, noun: str, plural: str = "") -> str:
    """A number with its noun: 1 copy, 3 copies."""
    return f"{num:,} {noun if num == 1 else plural or noun + 's'}"
