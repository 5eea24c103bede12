"""No message is larger than what the size functions say, and a list that is too large keeps its items when titles are cut."""

from __future__ import annotations

from bisect import bisect_left
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET, structs

from intentrec_core.domain.spec import Domain, Field, FieldKind, FieldSource, Filter, FilterKind, json_bytes
from intentrec_core.domain.toml import MAX_NAMES_BYTES, parse_domain
from intentrec_core.errors import DomainError, HidingReason
from intentrec_core.features import catalogue
from intentrec_core.limits import MAX_ID_BYTES
from stream.kafka.publisher import BATCH_BYTES, max_batch_bytes
from stream.wire import sizes
from stream.wire.codec import decode_recommendation, encode_output, with_latency
from stream.wire.messages import (
    ClosedSession,
    Coalesced,
    HiddenBy,
    IntentLabel,
    IntentUpdate,
    PrimaryIntent,
    Reason,
    Recommendation,
    RecommendedItem,
    Source,
)
from stream.wire.output_headers import (
    MAX_TRACE_PARENT_BYTES,
    MAX_TRACE_STATE_BYTES,
    TRACE_PARENT,
    TRACE_STATE,
    OutputHeaders,
)
from stream.wire.records import OutputKind
from stream.wire.sizes import (
    DEFAULT_LIMITS,
    TopicLimits,
    closed_label,
    cut_text,
    fits_whatever_the_items,
    largest_intent_update,
    largest_recommendation,
    with_short_titles,
)
from tests.worlds.bundle_world import Record

#: Every kind of character by the bytes it takes in JSON: 1, 2 (escaped and not), 3, 4 and 6.
CHARACTERS = st.sampled_from('a"\\\n\0\x7fé…😀')
ODD = st.text(CHARACTERS, max_size=12)
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,31}", fullmatch=True)


def as_id(text: str) -> str:
    """An id of at most 256 bytes."""
    return (text or "x").encode()[:MAX_ID_BYTES].decode(errors="ignore") or "x"


IDS = st.one_of(ODD, st.sampled_from("\0a😀").map(lambda character: character * 256)).map(as_id)


@st.composite
def domains(draw: st.DrawFn) -> Domain:
    heads = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    fields = [
        Field(name=name, kind=FieldKind.CATEGORICAL, source=FieldSource.EVENT, intent=True,
              values=tuple(draw(st.lists(ODD.filter(bool), min_size=1, max_size=5, unique=True))))
        for name in heads
    ]  # fmt: skip
    filters = [
        Filter(kind=draw(st.sampled_from(list(FilterKind))), key=draw(ODD), event_key=draw(ODD)) for _ in range(3)
    ]
    return Domain(
        name="d", window=2, watched=0, session_gap_s=1, short_term_window_s=1, max_future_s=0, fields=tuple(fields),
        filters=tuple(filters),
    )  # fmt: skip


@st.composite
def shared_fields(draw: st.DrawFn) -> dict[str, object]:
    number = st.integers(0, 2**63 - 1)
    return {
        "user_id": draw(IDS),
        "session_id": f"{draw(st.integers(0, 2**64 - 1)):016x}",
        "event_id": draw(IDS),
        "event_time": "2026-03-01T20:15:00.000Z",
        "bundle": "b0123456789ab",
        "source": Source("p" * draw(st.integers(1, 249)), draw(st.integers(0, 2**31 - 1)), draw(number)),
        "coalesced": draw(st.none() | st.builds(Coalesced, number, number)) or UNSET,
    }


def probabilities(draw: st.DrawFn) -> float:
    return round(draw(st.floats(0, 1, width=32)), 5)


@settings(max_examples=150)
@given(st.data())
def test_no_intent_update_is_larger_than_the_largest(data: st.DataObject) -> None:
    domain = data.draw(domains())
    head = data.draw(st.sampled_from(domain.heads))
    message = IntentUpdate(
        **data.draw(shared_fields()),
        session_opened=data.draw(st.booleans()),
        intents={h.name: {label: probabilities(data.draw) for label in h.label_names} for h in domain.heads},
        weights={h.name: probabilities(data.draw) for h in domain.heads},
        primary=PrimaryIntent(head.name, data.draw(st.sampled_from(head.label_names)), probabilities(data.draw)),
        shifted=data.draw(st.booleans()),
        embedding=data.draw(st.just(UNSET) | st.binary(min_size=28, max_size=28)),
        closed_session=ClosedSession(
            f"{data.draw(st.integers(0, 2**64 - 1)):016x}",
            data.draw(st.integers(0, 4_102_444_800_000)) / 1000,
            data.draw(st.integers(1, 2**63 - 1)),
            closed_label(head.name, data.draw(st.sampled_from(head.label_names))),
        ),
    )
    assert len(encode_output(message)) <= largest_intent_update(domain, 7 if message.embedding else 0)


@settings(max_examples=150)
@given(st.data())
def test_no_recommendation_is_larger_than_the_largest(data: st.DataObject) -> None:
    domain, catalogued = data.draw(domains()), data.draw(st.lists(st.tuples(IDS, ODD), min_size=1, max_size=6))
    k = data.draw(st.integers(1, 5))
    listed = data.draw(st.permutations(catalogued))[: data.draw(st.integers(0, k))]
    scores = st.floats(width=32, allow_nan=False, allow_infinity=False).map(lambda s: float(np.round(np.float64(s), 5)))
    reason = data.draw(st.sampled_from(list(HidingReason))).value
    hiding = [
        HiddenBy(f.kind.value, f.key, reason, f.event_key or UNSET)
        for f in domain.filters
        if f.kind is not FilterKind.WATCHED
    ]
    shared = data.draw(shared_fields())
    message = Recommendation(
        **shared,
        items=[RecommendedItem(item_id, title, data.draw(scores)) for item_id, title in listed],
        fallback=data.draw(st.sampled_from(["none", "popular"])),
        hidden_by=UNSET if listed else hiding,
        recommendation_id=f"{shared['source'].partition}-{shared['source'].offset}-{shared['bundle']}",
        query=data.draw(st.just(UNSET) | st.binary(min_size=28, max_size=28)),
    )
    if message.query:
        values = {f.event_key: data.draw(scores | st.just("f" * 16)) for f in domain.event_filters}
        message = structs.replace(message, filter_values=values or UNSET)
    largest = largest_recommendation(domain, *map(list, zip(*catalogued, strict=True)), k, 7 if message.query else 0)
    assert len(encode_output(message)) <= largest


def test_every_field_of_a_message_has_its_longest_text_in_the_largest_one() -> None:
    """A field that is added to a message has to be added to the largest one, or the largest one is no bound."""
    longest = sizes._longest_list([], bytes(4), {})
    # Rows are left out of a message that would be too large with them.
    assert [name for name in longest.__struct_fields__ if getattr(longest, name) is UNSET] == ["rows", "latency_s"]
    assert {
        *sizes._LONGEST_FIELDS,
        "items",
        "fallback",
        "hidden_by",
        "counts_sequence",
        "recommendation_id",
        "rows",
        "query",
        "filter_values",
        "latency_s",
    } == set(longest.__struct_fields__)
    assert set(IntentUpdate.__struct_fields__) == {
        *sizes._LONGEST_FIELDS, "session_opened", "intents", "weights", "primary", "shifted", "closed_session", "embedding",
        "latency_s",
    }  # fmt: skip


def test_a_closed_session_names_no_label_that_fills_a_message() -> None:
    assert closed_label("genre", "é" * 500) == IntentLabel("genre", "é" * 500)
    assert closed_label("genre", "é" * 510) is UNSET
    assert closed_label("genre", "\0" * 200) is UNSET, "a control character is 6 bytes of JSON"


def domain_text(labels: list[str]) -> str:
    values = ", ".join(f'"{label}"' for label in labels)
    return (
        'name = "d"\n[history]\nwindow = 4\n[[field]]\nname = "genre"\nkind = "multi_label"\nsource = "catalogue"\n'
        f"intent = true\nvalues = [{values}]\n"
    )


@pytest.mark.parametrize("character", ["x", "\\u0001", "é"])
def test_the_largest_domain_that_is_read_fits_into_a_topic_with_kafkas_default_limit(character: str) -> None:
    def labels(length: int) -> list[str]:
        return [f"{number:04}" + character * length for number in range(3000)]

    def is_read(length: int) -> bool:
        with suppress(DomainError):
            parse_domain(domain_text(labels(length)), "d.toml")
            return True
        return False

    longest = bisect_left(range(400), True, key=lambda length: not is_read(length)) - 1
    domain = parse_domain(domain_text(labels(longest)), "d.toml")
    largest = largest_intent_update(domain)
    with pytest.raises(DomainError, match=r"field genre: .*; allowed: .*fewer or shorter labels"):
        parse_domain(domain_text(labels(longest + 1)), "d.toml")
    assert 0.95 * MAX_NAMES_BYTES < largest <= DEFAULT_LIMITS.of(OutputKind.INTENT)


def test_a_label_that_is_named_twice_counts_twice() -> None:
    parse_domain(domain_text(["x" * 400_000, "y"]), "d.toml")
    with pytest.raises(DomainError, match="fewer or shorter labels"):
        parse_domain(domain_text(["x" * 500_000, "y"]), "d.toml")


def test_lists_of_up_to_129_items_fit_whatever_the_catalogue_holds() -> None:
    domain = parse_domain(domain_text(["a", "b"]), "d.toml")
    most = DEFAULT_LIMITS.of(OutputKind.RECOMMENDATION)
    assert fits_whatever_the_items(domain, 129, most)
    assert not fits_whatever_the_items(domain, 500, most)
    item_ids = ["\0" * 256] * 500
    assert largest_recommendation(domain, item_ids, [""] * 500, 500) <= most, "500 items fit without titles"


def test_a_long_title_is_cut() -> None:
    assert catalogue.shown_title("x" * 1024) == "x" * 1024
    assert catalogue.shown_title("x" * 1_200_000) == "x" * 1023 + "…"


@given(st.lists(st.tuples(IDS, st.text(CHARACTERS, max_size=200)), max_size=8), st.integers(0, 4000))
@settings(max_examples=150)
def test_a_list_with_short_titles_has_the_same_items_and_fits(items: list[tuple[str, str]], max_bytes: int) -> None:
    message = Recommendation(
        user_id="u", session_id="s", event_id="e", event_time="t", bundle="b", source=Source("plays", 0, 1),
        items=[RecommendedItem(item_id, title, 1.5) for item_id, title in items],
    )  # fmt: skip
    short = with_short_titles(message, max_bytes)
    bare = Recommendation(
        user_id="u", session_id="s", event_id="e", event_time="t", bundle="b", source=Source("plays", 0, 1),
        items=[RecommendedItem(item_id, "", 1.5) for item_id, _ in items],
    )  # fmt: skip
    if not items or len(encode_output(bare)) > max_bytes:
        assert short is None
        return
    assert short is not None
    assert len(short) <= max_bytes
    found = decode_recommendation(with_latency(short, 0.5))
    assert [(item.item_id, item.score) for item in found.items] == [(item_id, 1.5) for item_id, _ in items]
    for item, (_, title) in zip(found.items, items, strict=True):
        assert item.title == title or title.startswith(item.title.removesuffix("…"))


def test_reasons_are_left_out_before_a_title_is_cut() -> None:
    item = RecommendedItem("a", "x" * 1000, 1.5, Reason("because_of", item_id="b", title="y" * 500))
    message = Recommendation(
        user_id="u", session_id="s", event_id="e", event_time="t", bundle="b", source=Source("plays", 0, 1),
        items=[item, RecommendedItem("c", "z", 1.0)],
    )  # fmt: skip
    short = with_short_titles(message, len(encode_output(message)) - 1)
    assert short is not None
    assert decode_recommendation(with_latency(short, 0.5)).items == [
        RecommendedItem("a", "x" * 1000, 1.5), RecommendedItem("c", "z", 1.0)
    ]  # fmt: skip


def test_titles_that_fit_stay_whole_and_a_long_one_keeps_what_fits() -> None:
    message = Recommendation(
        user_id="u", session_id="s", event_id="e", event_time="t", bundle="b", source=Source("plays", 0, 1),
        items=[RecommendedItem("a", "x" * 1_200_000, 1.5), RecommendedItem("b", "Heat (1995)", 1.0)],
    )  # fmt: skip
    short = with_short_titles(message, 100_000)
    assert short is not None
    long, heat = decode_recommendation(with_latency(short, 0.5)).items
    assert heat.title == "Heat (1995)"
    assert 49_000 < len(long.title) < 50_000
    assert long.title.endswith("x…")


@given(st.text(st.sampled_from('a"\0é…😀'), max_size=60), st.integers(0, 80))
def test_a_cut_text_is_the_longest_beginning_that_fits(text: str, max_bytes: int) -> None:
    short = cut_text(text, max_bytes)
    taken = json_bytes(short) - 2
    assert taken <= max_bytes
    if short != text:
        assert short == "" or short.endswith("…")
        if short:
            next_character = text[len(short) - 1]
            assert taken + json_bytes(next_character) - 2 > max_bytes


def test_the_overhead_covers_key_headers_and_framing() -> None:
    from aiokafka.record.default_records import DefaultRecordBatchBuilder

    parent = b"01-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01-"
    trace = (
        (TRACE_PARENT, parent.ljust(MAX_TRACE_PARENT_BYTES, b"c")),
        (TRACE_STATE, b"s" * MAX_TRACE_STATE_BYTES),
    )
    play = Record(2**63 - 1, None, None, 2**31 - 1, "t" * 249, headers=trace)
    longest_source = f"/intentrec/{'a' * 100}"  # settings allow an app_id of 100 characters
    value = b"v" * 1_000_000
    for headers in OutputHeaders(longest_source).of(play, "u" * 256, "2099-12-31T23:59:59.999Z", shifted=False):
        builder = DefaultRecordBatchBuilder(2, 0, 1, 2**40, 7, 0, 10**9)
        builder.append(0, 1_772_396_100_000, b"k" * 256, value, list(headers))
        latency = 24 - len(b"0.000000")  # digits that the publisher may add
        assert dict(headers).keys() >= {"intentrec-id", "ce_subject", TRACE_PARENT, TRACE_STATE}
        assert len(builder.build()) + latency <= len(value) + sizes.OVERHEAD_BYTES


def test_a_smaller_topic_leaves_less_and_the_smallest_one_bounds_a_batch() -> None:
    limits = TopicLimits(recommendations=50_000, intents=20_000)
    assert limits.of(OutputKind.RECOMMENDATION) == 50_000 - sizes.OVERHEAD_BYTES
    assert max_batch_bytes(limits) == 20_000
    assert max_batch_bytes(DEFAULT_LIMITS) == BATCH_BYTES
