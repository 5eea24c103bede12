"""What every request goes through: who sends it, how many it sends, how large its body is, and which gateway answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

from fastapi import Path, Query, Request
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.responses import Response

from intentrec_core.limits import MAX_ID_BYTES
from stream.gateway.access import Caller
from stream.gateway.gateway import Gateway
from stream.gateway.problems import Problem, ProblemKind

if TYPE_CHECKING:
    from stream.gateway.bundle_view import BundleView
    from stream.gateway.member_states import MemberState


class _AnyText(PathConvertor):
    """A part of a path that may have any character in it: ids of plays may have slashes and line breaks."""

    regex = "(?s:.*)"


register_url_convertor("any", _AnyText())

UserId = Annotated[
    str, Path(min_length=1, max_length=MAX_ID_BYTES, description="user_id of the member, as in its plays.")
]
ItemId = Annotated[
    str, Path(min_length=1, max_length=MAX_ID_BYTES, description="item_id, as in plays and recommendations.")
]
Bundle = Annotated[
    str | None,
    Query(
        pattern="^b[0-9a-f]{12}$",
        description="The newest message that this bundle made: the serving one, or the one before it.",
    ),
]


def gateway_of(request: Request) -> Gateway:
    """The gateway that the app belongs to."""
    found: Gateway = request.app.state.gateway
    return found


async def checked_caller(request: Request) -> Caller:
    """Who sends a request; the request is counted. A coroutine, because FastAPI runs other dependencies on a thread each.

    Raises: Problem (no_token, invalid_token, too_many_requests).
    """
    gateway = gateway_of(request)
    caller = gateway.access.caller(request.headers.get("Authorization"))
    gateway.count(caller, request)
    return caller


async def at_owner(
    request: Request,
    user_id: str,
    answer: Callable[[MemberState | None], Awaitable[Response] | Response],
    body: bytes | None = None,
    *,
    admit: Callable[[], None] = lambda: None,
) -> Response:
    """Answers a request about a member where its state is: here, or by passing the request on to the member's gateway, once.

    ``admit`` is called here before the member is looked up, which may take a while; whatever it raises refuses the request.

    Raises: Problem (invalid_request, not_ready, no_owner).
    """
    check_id("user_id", user_id)
    gateway = gateway_of(request)
    partition = gateway.ownership.partition_of(user_id)
    owner = gateway.ownership.owner_of(partition)
    if owner is None:
        raise Problem(ProblemKind.NO_OWNER, "the gateways are sharing the members: ask again")
    if owner != gateway.ownership.address:
        return await gateway.forwarder.forward(request, partition, owner, body)
    _check_ready(gateway, partition)
    admit()
    member = await gateway.member(user_id)
    _check_ready(gateway, partition)  # it may have moved while the store was asked
    found = answer(member)
    return found if isinstance(found, Response) else await found


def _check_ready(gateway: Gateway, partition: int) -> None:
    if not gateway.is_ready(partition):
        raise Problem(ProblemKind.NOT_READY, "messages of the last while are being read: ask again")


def current_view(request: Request) -> BundleView:
    """The view of the bundle that is announced.

    Raises: Problem (no_bundle).
    """
    view = gateway_of(request).bundles.current
    if view is None:
        raise Problem(
            ProblemKind.NO_BUNDLE, "announce a bundle (intentrec train --announce), or wait until it is loaded"
        )
    return view


def check_id(name: str, value: str) -> None:
    """Raises: Problem (invalid_request) for an id that no play can have."""
    num_bytes = len(value.encode(errors="surrogatepass"))
    if not 1 <= num_bytes <= MAX_ID_BYTES:
        raise Problem(ProblemKind.INVALID_REQUEST, f"{name} has {num_bytes} bytes; allowed: 1 to {MAX_ID_BYTES}")


async def body_of(request: Request, max_bytes: int) -> bytes:
    """The body of a request.

    Raises: Problem (too_large) as soon as it is larger than ``max_bytes``.
    """
    declared = request.headers.get("Content-Length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
    return bytes(body)


def _too_large(max_bytes: int) -> Problem:
    return Problem(ProblemKind.TOO_LARGE, f"allowed: a body of at most {max_bytes} bytes")
