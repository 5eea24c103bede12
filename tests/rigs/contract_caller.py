"""Calls a running gateway with requests that schemathesis makes from its contract."""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

_EXAMPLES = 12
#: Streams do not end by themselves.
_STREAMS = ("/v1/users/{user_id}/stream", "/v1/updates")


def call_by_the_contract(url: str) -> list[str]:
    """What the answers have that the contract does not allow, as lines of text.

    A play that is as its schema says can break a rule that no schema states, such as the domain's earliest time: it may be
    refused.
    """
    schema = schemathesis.openapi.from_url(f"{url}/v1/openapi.json")
    problems: list[str] = []
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path not in _STREAMS:
            try:
                _call(operation, [positive_data_acceptance] if operation.path == "/v1/plays" else [])
            except (AssertionError, BaseExceptionGroup) as error:
                problems.append(f"{operation.label}: {error!r}"[:3000])
    return problems


def _call(operation: Any, excluded_checks: list[Any]) -> None:
    @settings(
        max_examples=_EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def call(case: schemathesis.Case) -> None:
        case.call_and_validate(excluded_checks=excluded_checks)

    call()
