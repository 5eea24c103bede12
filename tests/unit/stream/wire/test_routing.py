"""Keys go to the partitions that Kafka's Java client would choose."""

from __future__ import annotations

import pytest

from stream.wire.routing import home_partition, key_hash

#: From the tests of Apache Kafka's Utils.murmur2, as signed 32-bit numbers.
KAFKA_VECTORS = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("key", "murmur2"), KAFKA_VECTORS.items())
def test_a_key_goes_where_the_java_client_sends_it(key: bytes, murmur2: int) -> None:
    assert key_hash(key) == murmur2 & 0x7FFFFFFF
    assert home_partition(key, 8) == (murmur2 & 0x7FFFFFFF) % 8
