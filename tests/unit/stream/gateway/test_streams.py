"""Streams: newest state only, in bounded memory, resumed from where the reader was."""

from __future__ import annotations

import asyncio

import pytest

from stream.gateway.member_states import Kind, MemberState, Newest
from stream.gateway.problems import Problem, ProblemKind
from stream.gateway.streams import HEARTBEAT, MAX_OF_MEMBER, RETRY, Cursor, Streams, events_of, events_of_all


def newest(offset: int, *, partition: int = 3) -> Newest:
    return Newest(partition, offset, "b1", b'{"offset":%d}' % offset)


def of(user_id: str) -> MemberState:
    return MemberState(user_id, 0, {}, {})


def test_a_cursor_is_read_back_from_its_text() -> None:
    cursor = Cursor()
    assert str(cursor) == "-1-x-x"
    cursor.advance(Kind.RECOMMENDATIONS, newest(41))
    assert str(cursor) == "3-x-41"
    again = Cursor.parse(str(cursor))
    assert str(again) == "3-x-41"
    assert again.is_past(Kind.RECOMMENDATIONS, newest(41))
    assert not again.is_past(Kind.RECOMMENDATIONS, newest(42))
    assert not again.is_past(Kind.INTENTS, newest(0))
    assert not again.is_past(Kind.RECOMMENDATIONS, newest(1, partition=4)), "another partition has other offsets"


@pytest.mark.parametrize("text", ["", "x", "3-1", "3-1-2-4", "a-1-2", "-1-x-x", "3" * 99 + "-1-2", "٣-1-2\n"])
def test_an_id_that_is_not_ours_is_the_beginning(text: str) -> None:
    assert not Cursor.parse(text).is_past(Kind.INTENTS, newest(0))


def test_offsets_of_before_count_for_nothing_once_the_plays_have_other_partitions() -> None:
    """Of each kind: the offsets of the other kinds are of the old partition too."""
    cursor = Cursor.parse("3-700-600")
    cursor.advance(Kind.INTENTS, newest(1, partition=4))
    assert str(cursor) == "4-1-x"
    assert not cursor.is_past(Kind.RECOMMENDATIONS, newest(1, partition=4))


def test_a_slow_reader_gets_the_newest_state_and_waits_in_two_places() -> None:
    async def body() -> None:
        skipped: list[None] = []
        streams = Streams(9, lambda: skipped.append(None))
        slot = streams.open("u")
        chunks = events_of(slot, Cursor(), [(Kind.INTENTS, newest(0))], 9)
        assert await anext(chunks) == RETRY
        assert b'data: {"offset":0}' in await anext(chunks)
        for offset in range(1, 1001):
            streams.offer(Kind.INTENTS, of("u"), newest(offset))
            streams.offer(Kind.RECOMMENDATIONS, of("u"), newest(offset))
        assert len(slot.pending) == 2
        assert len(skipped) == 2 * 999
        assert [await anext(chunks) for _ in range(2)] == [
            b'id: 3-0-1000\nevent: recommendations\ndata: {"offset":1000}\n\n',
            b'id: 3-1000-1000\nevent: intents\ndata: {"offset":1000}\n\n',
        ]
        streams.offer(Kind.INTENTS, of("v"), newest(2000))
        assert not slot.pending
        streams.end_all("stopping")
        assert await anext(chunks) == b'event: bye\ndata: {"reason":"stopping"}\n\n'
        with pytest.raises(StopAsyncIteration):
            await anext(chunks)
        streams.close("u", slot)
        assert streams.num_open == 0

    asyncio.run(body())


def test_a_resumed_stream_does_not_repeat_what_was_sent() -> None:
    async def body() -> list[bytes]:
        slot = Streams(99).open("u")
        state = [(Kind.INTENTS, newest(7)), (Kind.RECOMMENDATIONS, newest(7))]
        chunks = events_of(slot, Cursor.parse("3-7-6"), state, 0.01)
        return [await anext(chunks) for _ in range(3)]

    assert asyncio.run(body()) == [
        RETRY,
        b'id: 3-7-7\nevent: recommendations\ndata: {"offset":7}\n\n',
        HEARTBEAT,
    ]


def test_what_came_while_a_stream_was_being_opened_is_newer_than_the_state_it_begins_with() -> None:
    async def body() -> list[bytes]:
        streams = Streams(99)
        slot = streams.open("u")
        chunks = events_of(slot, Cursor(), [(Kind.INTENTS, newest(7))], 0.01)
        streams.offer(Kind.INTENTS, of("u"), newest(8))
        return [await anext(chunks) for _ in range(3)][1:]

    assert asyncio.run(body()) == [b'id: 3-8-x\nevent: intents\ndata: {"offset":8}\n\n', HEARTBEAT]


def test_what_waits_is_sent_before_a_stream_ends() -> None:
    async def body() -> list[bytes]:
        streams = Streams(99)
        slot = streams.open("u")
        streams.offer(Kind.INTENTS, of("u"), newest(1))
        streams.end("moved", lambda user_id: user_id == "u")
        return [chunk async for chunk in events_of(slot, Cursor(), [], 9)]

    assert [chunk.split(b"\n")[1] for chunk in asyncio.run(body())[1:]] == [
        b"event: intents",
        b'data: {"reason":"moved"}',
    ]


def test_a_reader_who_is_gone_is_told_nothing() -> None:
    async def body() -> list[bytes]:
        slot = Streams(99).open("u")
        slot.end("")
        return [chunk async for chunk in events_of(slot, Cursor(), [], 9)]

    assert asyncio.run(body()) == [RETRY]


def test_a_stream_of_all_members_is_bounded_and_counts_what_it_skips() -> None:
    async def body() -> None:
        streams = Streams(99)
        slot = streams.open_all()
        for offset in range(3000):
            streams.offer(Kind.INTENTS, of(f"u{offset % 2000}"), newest(offset))
        assert len(slot.waiting) == 1000
        chunks = events_of_all(slot, 1_000_000, 9)
        assert await anext(chunks) == RETRY
        sent, skipped = 0, 0
        while sent < 1000:
            chunk = await anext(chunks)
            if chunk.startswith(b"event: skipped"):
                skipped += int(chunk.split(b":")[-1].rstrip(b"}\n"))
            else:
                sent += 1
        if slot.num_skipped:
            skipped += slot.num_skipped
        assert sent + skipped == 3000

    asyncio.run(body())


def test_one_member_cannot_take_every_stream() -> None:
    async def body() -> None:
        streams = Streams(99)
        slots = [streams.open("u") for _ in range(MAX_OF_MEMBER)]
        with pytest.raises(Problem) as raised:
            streams.open("u")
        assert raised.value.kind is ProblemKind.TOO_MANY_STREAMS
        assert streams.num_open == MAX_OF_MEMBER
        streams.open("v")
        streams.close("u", slots[0])
        streams.open("u")

    asyncio.run(body())


def test_all_streams_together_are_bounded_those_of_all_members_too() -> None:
    async def body() -> None:
        streams = Streams(2)
        of_all = streams.open_all()
        slot = streams.open("u")
        for open_one in (streams.open_all, lambda: streams.open("v")):
            with pytest.raises(Problem) as raised:
                open_one()
            assert raised.value.kind is ProblemKind.TOO_MANY_STREAMS
        streams.close("u", slot)
        streams.close_all(of_all)
        assert streams.num_open == 0
        streams.open("v")

    asyncio.run(body())
