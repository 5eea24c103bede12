"""A reader of the item-counts topic sees whole tables only, however a writer was cut off and whatever compaction has removed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intentrec_core.features.count_columns import DECAYS_S
from stream.wire.codec import encode
from stream.wire.item_counts_record import HEAD_KEY, CountsAssembly, block_hash, block_key
from stream.wire.messages import ItemCountsHead

Records = list[tuple[bytes, bytes]]


def head(sequence: int, blocks: list[bytes]) -> ItemCountsHead:
    return ItemCountsHead(
        sequence=sequence,
        event_time_ms=1000 * sequence,
        offsets={"0": sequence},
        decays_s=list(DECAYS_S),
        num_items=len(blocks),
        blocks=[block_hash(block) for block in blocks],
        written_at="2026-03-01T20:15:00.000Z",
    )


def written(changes: list[tuple[list[int], int]]) -> tuple[Records, list[list[bytes]]]:
    """The records of some tables, by the numbers of the blocks that change before each; of a table that a killed writer leaves
    only the first so many records are there. Also the blocks of each whole table.
    """
    records: Records = []
    blocks: dict[int, bytes] = {}
    tables = []
    for sequence, (changed, num_written) in enumerate(changes, start=1):
        for number in changed:
            for missing in range(number):
                blocks.setdefault(missing, b"")
            blocks[number] = b"block %d of table %d" % (number, sequence)
        own = [blocks[number] for number in sorted(blocks)]
        new = [(block_key(number), blocks[number]) for number in sorted(blocks)]  # as a new writer: all of them
        new.append((HEAD_KEY, encode(head(sequence, own))))
        records += new[:num_written]
        if num_written >= len(new):
            tables.append(own)
    return records, tables


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=3), st.integers(0, 6)), max_size=8),
    st.integers(0, 60),
)
def test_no_reader_sees_half_a_table(changes: list[tuple[list[int], int]], compacted_to: int) -> None:
    records, tables = written(changes)
    first, rest = records[:compacted_to], records[compacted_to:]
    newest = {key: place for place, (key, _) in enumerate(records)}
    kept = [record for place, record in enumerate(first) if newest[record[0]] == place]
    everything, compacted = CountsAssembly(), CountsAssembly()
    for assembly, given_records in ((everything, records), (compacted, [*kept, *rest])):
        for key, value in given_records:
            if assembly.take(key, value):
                assert assembly.newest is not None
                assert list(assembly.newest.blocks) in tables
    if tables:
        assert everything.newest is not None
        assert list(everything.newest.blocks) == tables[-1]


def test_of_two_heads_with_one_number_the_first_counts_and_a_lower_one_is_refused() -> None:
    assembly = CountsAssembly()
    assert not assembly.take(block_key(0), b"a")
    assert assembly.take(HEAD_KEY, encode(head(5, [b"a"])))
    assert not assembly.take(block_key(0), b"b")
    assert not assembly.take(HEAD_KEY, encode(head(5, [b"b"])))
    assert not assembly.take(HEAD_KEY, encode(head(4, [b"b"])))
    assert assembly.newest is not None
    assert assembly.newest.blocks == [b"a"]
    assert not assembly.take(HEAD_KEY, encode(head(8, [b"not written"])))
    assert (assembly.last_sequence, assembly.num_incomplete) == (8, 1)
    assert assembly.take(HEAD_KEY, encode(head(9, [b"b"])))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (None, b"a", "the key is None"),
        (HEAD_KEY, None, "missing"),
        (b"block-x", b"a", "allowed: head, or block-<number>"),
        (HEAD_KEY, b"{}", "not a head"),
        (HEAD_KEY, encode(head(1, [])).replace(b"3600.0", b"60.0"), "another release"),
    ],
)
def test_what_is_no_part_of_a_table_is_refused(key: bytes | None, value: bytes | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CountsAssembly().take(key, value)
