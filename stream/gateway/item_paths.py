"""The paths of items, answered from the announced bundle."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from stream.gateway.access import Caller
from stream.gateway.answers import ItemsAnswer, SimilarAnswer, StoredItem
from stream.gateway.bundle_view import BundleView
from stream.gateway.member_paths import recommended
from stream.gateway.openapi import json_answer
from stream.gateway.problems import Problem, ProblemKind, statuses_of
from stream.gateway.requests import ItemId, checked_caller, current_view, gateway_of

router = APIRouter(tags=["items"])
_COMMON = (
    ProblemKind.INVALID_REQUEST,
    ProblemKind.NO_TOKEN,
    ProblemKind.INVALID_TOKEN,
    ProblemKind.TOO_MANY_REQUESTS,
    ProblemKind.NO_BUNDLE,
)
_MAX_SIMILAR, _MAX_FOUND = 100, 200
_MAX_QUERY_LENGTH, _MAX_WORDS = 200, 8


@router.get(
    "/v1/items",
    summary="Search items",
    responses={200: json_answer("Items, popular ones first.", ItemsAnswer), **statuses_of(*_COMMON)},
)
async def items(
    request: Request,
    _: Annotated[Caller, Depends(checked_caller)],
    q: Annotated[
        str,
        Query(
            max_length=_MAX_QUERY_LENGTH,
            description=f"Words that the title or the id must all have; at most {_MAX_WORDS}.",
        ),
    ] = "",
    limit: Annotated[int, Query(ge=1, le=_MAX_FOUND, description="At most so many items.")] = 20,
) -> Response:
    """Items of the announced bundle, or of the catalogue where that is followed."""
    view, words = current_view(request), q.split()
    if len(words) > _MAX_WORDS:
        raise Problem(ProblemKind.INVALID_REQUEST, f"q has {len(words)} words; allowed: {_MAX_WORDS}")
    async with gateway_of(request).searches:
        rows = await asyncio.to_thread(view.search, words, limit)
    return _json(ItemsAnswer(bundle=view.version, items=[_stored(view, row) for row in rows]))


@router.get(
    "/v1/items/{item_id:any}/similar",
    summary="Items similar to one",
    responses={
        200: json_answer("The nearest items.", SimilarAnswer),
        **statuses_of(*_COMMON, ProblemKind.UNKNOWN_ITEM),
    },
)
async def similar(
    request: Request,
    item_id: ItemId,
    _: Annotated[Caller, Depends(checked_caller)],
    k: Annotated[int, Query(ge=1, le=_MAX_SIMILAR, description="At most so many items.")] = 10,
) -> Response:
    """By the item vectors of the announced bundle. Items that no member may be shown are left out."""
    view = current_view(request)
    row = _row(view, item_id)
    async with gateway_of(request).searches:
        rows, cosines = await asyncio.to_thread(view.similar, row, k)
    found = SimilarAnswer(item_id=item_id, bundle=view.version, items=recommended(view, rows, cosines))
    return _json(found)


@router.get(
    "/v1/items/{item_id:any}",
    summary="One item",
    responses={200: json_answer("The item.", StoredItem), **statuses_of(*_COMMON, ProblemKind.UNKNOWN_ITEM)},
)
async def item(request: Request, item_id: ItemId, _: Annotated[Caller, Depends(checked_caller)]) -> Response:
    """Title and attributes, as the catalogue has them."""
    view = current_view(request)
    return _json(_stored(view, _row(view, item_id)))


def _row(view: BundleView, item_id: str) -> int:
    row = view.row(item_id)
    if not row:
        raise Problem(ProblemKind.UNKNOWN_ITEM, f"item {item_id!r} is not in bundle {view.version}; see GET /v1/items")
    return row


def _stored(view: BundleView, row: int) -> StoredItem:
    found = view.item(row)
    return StoredItem(item_id=found.item_id, title=found.title, attributes=dict(found.attributes))


def _json(answer: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(answer), media_type="application/json")
