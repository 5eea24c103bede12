"""Why a member's list is as it is: read from the changelog and the announced bundle, by the code that answers plays.

    changelog ─ history ─┐
    announcement ─ bundle ─┼─ encode, search ─▶ the list, and its parts: attention, intents, scores, filters
    items, item-counts ──┘

It is the list that a worker made for the member's newest play with what is committed, announced and counted now.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from index.base import PAD_ROW
from intentrec_core.bundle.store import BundleStore
from intentrec_core.engine.engine import EncodeRequest
from intentrec_core.engine.member_key import MemberKey
from intentrec_core.errors import DataError
from intentrec_core.evaluation.attention_examples import newest_attention
from intentrec_core.history.history import EventLayout
from intentrec_core.model.model import IntentRec
from intentrec_core.times import iso_time
from stream.bundles.announcements import AnnouncementFollower, newest
from stream.bundles.serving import Serving, load_serving
from stream.kafka.item_counts_reader import ItemCountsReader
from stream.kafka.items_reader import ItemsReader
from stream.ops.metrics import Metrics
from stream.pipeline.batch_rows import BatchRows, lay_out
from stream.pipeline.bundle_counts import BundleCounts
from stream.pipeline.folding import context_run
from stream.pipeline.index_probe import IndexProbe
from stream.pipeline.live_catalogue import LiveCatalogue
from stream.pipeline.popular import PopularNow
from stream.pipeline.retrieval import Retrieval, num_searched
from stream.pipeline.score_parts import ScoreParts, score_parts
from stream.pipeline.shown_items import ShownItems
from stream.pipeline.watched import WatchedCache
from stream.repair.state_view import find_member
from stream.wire.item_counts_record import read_table

if TYPE_CHECKING:
    from intentrec_core.engine.engine import Encoded
    from intentrec_core.history.history import History
    from stream.settings import Settings

#: Of the items that are hidden, so many of the best are named.
_MAX_HIDDEN = 20


class ExplainedPlay(msgspec.Struct, frozen=True):
    """A play of the context, and its share of the attention when the list was made. ``item_id`` is empty for an item that the
    bundle does not know.
    """

    event_time: str
    item_id: str
    title: str
    attention: float


class ExplainedIntent(msgspec.Struct, frozen=True):
    """What one head said, and how much it weighed; the likeliest labels first."""

    name: str
    weight: float
    labels: dict[str, float]


class ExplainedItem(msgspec.Struct, frozen=True):
    """An item with its score in parts. ``hidden_by``: the filters that keep it from the list, which it would be on."""

    item_id: str
    title: str
    score: float
    parts: dict[str, float]
    hidden_by: list[str] = []


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """See the module. ``plays``: newest first. ``hidden``: items with a better score than the last one of the list, best first,
    and ``num_hidden`` how many items each filter hides in all. ``notes``: what may make a worker's list another one.
    """

    user: str
    partition: int
    last_offset: int
    bundle: str
    fallback: str
    plays: list[ExplainedPlay]
    intents: list[ExplainedIntent]
    items: list[ExplainedItem]
    hidden: list[ExplainedItem]
    num_hidden: dict[str, int]
    notes: list[str]


async def explain(settings: Settings, user_id: str) -> Explanation:
    """Explains the list of a member by the bundle that is announced.

    Raises: DataError when no bundle is announced, or the member has no history; StateError when the history belongs to another
    domain than the bundle; BundleError; BrokerError.
    """
    async with AnnouncementFollower(settings) as follower:
        announcement = newest(await follower.read())
    if announcement is None:
        raise DataError(
            f"no bundle is announced on {settings.broker}: announce one with intentrec bundle rollback VERSION"
        )
    serving = await asyncio.to_thread(_load, settings, announcement.bundle, announcement.url)
    layout = EventLayout(serving.domain)
    partition, history = await find_member(settings, layout, user_id)
    async with ItemCountsReader(settings) as reader:
        packed = await reader.to_the_end()
    table = None if packed is None else read_table(packed)
    items, notes = ShownItems.of_bundle(serving), list[str]()
    if settings.catalogue_source == "topic":
        catalogue = LiveCatalogue()
        async with ItemsReader(settings) as topic:
            catalogue.apply(await topic.changes())
        items = ShownItems.of_catalogue(serving, catalogue)
    counts = None if table is None else BundleCounts.of(serving, table)
    return explained(settings, serving, layout, history, MemberKey(partition, user_id), items, counts, notes)


def explained(
    settings: Settings,
    serving: Serving,
    layout: EventLayout,
    history: History,
    member: MemberKey,
    items: ShownItems,
    counts: BundleCounts | None,
    notes: list[str],
) -> Explanation:
    """Explains what one bundle makes of a history, of these items and counts of plays."""
    run = context_run(member, history, layout)
    batch = lay_out([[run]], layout, serving.vocabulary)
    encoded = serving.engine.encode([EncodeRequest(member, run.anchor, run.context, 0)])
    watched = WatchedCache(layout, serving.vocabulary, 1).of(batch, items)
    k = settings.num_recommendations
    # As many as a worker looks for: of an approximate index, that can matter.
    searched = num_searched(k, has_rows=bool(settings.rows))
    retrieval = Retrieval(serving, k=searched, beta=settings.beta, probe=IndexProbe(Metrics().index_recall))
    popular = PopularNow(serving.popularity, serving.counted_at_s)
    unanswered = np.zeros(1, dtype=np.bool_)
    ranked = retrieval.search(batch, encoded, items, watched, unanswered, popular, counts)
    parts = score_parts(serving, retrieval, batch, encoded, items, watched[0], ranked, counts, settings.beta)
    listed = [row for row in ranked.rows[0, :k].tolist() if row != PAD_ROW]
    is_popular = bool(ranked.popular[0])
    if is_popular and counts is None:
        notes = [*notes, "without a table of counts, a worker adds the plays that it has seen to those of the bundle"]
    scores = dict(zip(listed, ranked.scores[0].tolist(), strict=False))
    return Explanation(
        user=member.user_id,
        partition=member.partition,
        last_offset=history.last_offset,
        bundle=serving.version,
        fallback="popular" if is_popular else "none",
        plays=_plays(serving, layout, batch, history, items),
        intents=_intents(serving, encoded),
        items=[_item(items, parts, row, scores[row]) for row in listed],
        hidden=_hidden(items, parts, listed, k),
        num_hidden={name: int(mask.sum()) for name, mask in parts.hiding.items() if mask.any()},
        notes=notes,
    )


def _load(settings: Settings, version: str, url: str) -> Serving:
    store = BundleStore(url or settings.bundle_url, settings.cache_dir)
    return load_serving(store.fetch(version), device="cpu", pool_bytes=settings.pool_bytes, kv_dtype=settings.kv_dtype)


def _plays(
    serving: Serving, layout: EventLayout, batch: BatchRows, history: History, items: ShownItems
) -> list[ExplainedPlay]:
    attention = newest_attention(IntentRec.of(serving.engine.weights), serving.features, batch.runs[0].context)
    plays = history.view(layout)
    rows = serving.vocabulary.rows(plays["item_hash"]).tolist()
    shown = []
    for ts_ms, item_hash, row, share in zip(
        plays["ts_ms"].tolist(), plays["item_hash"].tolist(), rows, attention.tolist(), strict=True
    ):
        new = items.new.get(item_hash)  # an item of the catalogue that the bundle does not know
        item_id, title = (new.item_id, new.title) if new is not None else ("", "an item that the bundle does not know")
        if row:
            item_id, title = items.item_ids[row], items.titles[row]
        shown.append(ExplainedPlay(iso_time(ts_ms), item_id, title, share))
    return shown[::-1]


def _intents(serving: Serving, encoded: Encoded) -> list[ExplainedIntent]:
    if not serving.has_intents:
        return []
    found = []
    for head, probabilities, weight in zip(
        serving.domain.heads, encoded.heads, encoded.alpha_NM[0].tolist(), strict=True
    ):
        best = np.argsort(-probabilities[0], kind="stable").tolist()
        labels = {head.label_names[i]: float(probabilities[0, i]) for i in best}
        found.append(ExplainedIntent(head.name, weight, labels))
    return found


def _item(items: ShownItems, parts: ScoreParts, row: int, score: float) -> ExplainedItem:
    return ExplainedItem(items.item_ids[row], items.titles[row], score, parts.of(row), parts.rules_hiding(row))


def _hidden(items: ShownItems, parts: ScoreParts, listed: list[int], k: int) -> list[ExplainedItem]:
    """Items that are not on the list although their score is better than that of its last one."""
    last = parts.total[listed[k - 1]] if len(listed) >= k else -np.inf
    is_hidden = np.any(list(parts.hiding.values()), axis=0)
    rows = np.flatnonzero(is_hidden & (parts.total > last))
    best = rows[np.argsort(-parts.total[rows], kind="stable")][:_MAX_HIDDEN].tolist()
    return [_item(items, parts, row, float(parts.total[row])) for row in best]
