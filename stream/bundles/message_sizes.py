"""Whether the largest messages of a bundle fit into their topics: checked when it is built and before it serves."""

from __future__ import annotations

import logging

from intentrec_core.domain.spec import Domain
from intentrec_core.errors import BundleError, BundleFault
from intentrec_core.features.vocabulary import ItemTable, Vocabulary
from stream.wire.records import OutputKind
from stream.wire.sizes import (
    TopicLimits,
    entry_bytes,
    fits_whatever_the_items,
    largest_intent_update,
    largest_recommendation,
)

logger = logging.getLogger(__name__)


def check_message_sizes(
    version: str,
    domain: Domain,
    vocabulary: Vocabulary,
    items: ItemTable,
    *,
    num_recommendations: int,
    limits: TopicLimits,
    embedding_width: int = 0,
    query_width: int = 0,
) -> None:
    """Checks the largest intent update and the largest list of ``num_recommendations`` items of a bundle, whatever members play.

    ``embedding_width`` and ``query_width``: of the vectors in each message; 0 where they are not published.

    Warns where only titles make a list too large: they will be cut.

    Raises: BundleError (message_size) where a message could not be sent.
    Cost: none for lists of up to 129 items on topics with Kafka's default limit; else encodes every item twice.
    """
    intent_bytes, most = largest_intent_update(domain, embedding_width), limits.of(OutputKind.INTENT)
    if intent_bytes > most:
        detail = (
            f"an intent update can take {intent_bytes} bytes, its topic takes {most}: raise the topic's max.message.bytes, or "
            "declare fewer or shorter labels in the domain"
        )
        raise BundleError(BundleFault.MESSAGE_SIZE, version, detail)
    most = limits.of(OutputKind.RECOMMENDATION)
    if fits_whatever_the_items(domain, num_recommendations, most, query_width):
        return
    item_ids, titles = vocabulary.item_ids[1:], items.titles[1:]
    bare_bytes = largest_recommendation(domain, item_ids, [""] * len(item_ids), num_recommendations, query_width)
    if bare_bytes > most:
        detail = (
            f"a recommendation of {num_recommendations} items can take {bare_bytes} bytes without titles, its topic takes "
            f"{most}: raise the topic's max.message.bytes, or lower num_recommendations"
        )
        raise BundleError(BundleFault.MESSAGE_SIZE, version, detail)
    whole_bytes = largest_recommendation(domain, item_ids, titles, num_recommendations, query_width)
    if whole_bytes > most:
        longest = max(range(len(titles)), key=lambda i: entry_bytes("", titles[i]))
        logger.warning(
            "bundle %s: a recommendation of %d items can take %d bytes, its topic takes %d: titles are cut in such a list; the "
            "longest title is that of item %s; shorten titles, or lower num_recommendations",
            version,
            num_recommendations,
            whole_bytes,
            most,
            item_ids[longest],
        )
