"""The gateway over HTTP, next to a plain handler of the same bytes and to reading the topic directly.

get       GET of a member's list, in a closed loop: p50, p99 and requests a second; the plain handler in turns with it
streams   streams held open: bytes of the gateway's memory a stream, and updates a second that reach all of their readers
path      plays at a constant rate through a real worker: from the play to the list on the topic, and to its event on a stream;
          both are read in this process, and differ by what the gateway adds
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import confluent_kafka
import numpy as np
from numpy.typing import NDArray

from stream.local_kafka.ports import free_port
from stream.ops.scrape import is_ready
from stream.settings import Settings
from stream.wire.routing import home_partition
from tests.bench.harness import BenchOptions, Figures
from tests.bench.http_client import HeldStreams, latencies_of
from tests.bench.open_loop import OpenLoop
from tests.bench.rates import BenchFailed, Program
from tests.bench.worker_plays import plays, user_id
from tests.bench.worker_stand import OUR_WORKER, Stand, open_stand
from tests.bench.worker_world import NUM_PLANNING, fill_plays, open_row

PARTS = ("get", "streams", "path")
GATEWAY = ("-m", "stream.cli", "gateway")
PLAIN = ("-m", "tests.bench.baselines.plain_handler")
_READY_WITHIN_S = 120.0
_CHUNK = 1000
#: Files that this process and the gateway need besides their streams.
_OTHER_FILES = 200
_EVENT_IDS = re.compile(rb'event: recommendations\ndata: [^\n]*?"event_id":"event-(\d+)"')


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much of it."""

    num_members: int = 300
    num_planning: int = NUM_PLANNING
    connections: int = 4
    seconds: float = 10.0
    rounds: int = 3
    num_streams: int = 5_000
    num_updates: int = 40_000
    rate: float = 100.0
    path_s: float = 30.0


QUICK = Scale(
    num_members=20, num_planning=0, seconds=0.5, rounds=1, num_streams=100, num_updates=500, rate=20, path_s=2.0
)


def measure(options: BenchOptions) -> Figures:
    """See the module."""
    scale = QUICK if options.quick else Scale()
    figures: Figures = {}
    with open_stand(scale.num_planning) as stand:
        settings = stand.settings("gateway", "plays-gateway")
        fill_plays(settings, [])
        open_row(settings, num_active=scale.num_members, bundle=stand.bundle.name)
        port, metrics_port = free_port(), free_port()
        environment = stand.environment(settings) | {
            "INTENTREC_GATEWAY_PORT": str(port),
            "INTENTREC_METRICS_PORT": str(metrics_port),
            "INTENTREC_GATEWAY_MAX_STREAMS": str(2 * scale.num_streams),
        }
        with Program(GATEWAY, stand.folder / "gateway.log", environment) as gateway:
            _wait(lambda: is_ready(metrics_port), gateway)
            with Program(OUR_WORKER, stand.folder / "worker.log", stand.environment(settings)) as worker:
                figures |= _with_worker(stand, settings, worker, port, scale, options)
            if options.wants("streams"):
                figures |= _streams(settings, gateway, port, scale)
    return figures


def _with_worker(
    stand: Stand, settings: Settings, worker: Program, port: int, scale: Scale, options: BenchOptions
) -> Figures:
    """The parts for which a worker has to answer plays first."""
    figures: Figures = {}
    with OpenLoop(settings, worker, _endless_plays(scale.num_members)) as loop:
        loop.burst(8 * scale.num_members)
        if options.wants("path"):
            figures |= _path(loop, settings, port, scale)
        if options.wants("get"):
            figures |= _get(stand.folder, port, scale)
    return figures


def _get(folder: Path, port: int, scale: Scale) -> Figures:
    """In turns with the plain handler, which answers with the bytes of one list."""
    paths = [f"/v1/users/{user_id(member)}/recommendations" for member in range(scale.num_members)]
    body, plain_port = folder / "body.json", free_port()
    body.write_bytes(asyncio.run(_body_of(port, paths[0])))
    found: dict[str, list[float]] = {"gateway": [], "plain": []}
    rates: dict[str, list[float]] = {"gateway": [], "plain": []}
    with Program((*PLAIN, str(plain_port), str(body)), folder / "plain.log", {}) as plain:
        _wait(lambda: _listens(plain_port), plain)
        for _, (name, at) in itertools.product(range(scale.rounds), (("gateway", port), ("plain", plain_port))):
            latencies_s, rate = asyncio.run(
                latencies_of(at, paths, connections=scale.connections, seconds=scale.seconds)
            )
            found[name] += latencies_s
            rates[name].append(rate)
    figures: Figures = {"get_body_bytes": body.stat().st_size}
    for name, latencies_s in found.items():
        figures |= _report(f"get_{name}", np.array(latencies_s))
        figures[f"get_{name}_per_s"] = round(float(np.median(rates[name])))
        print(f"{'':<24} {figures[f'get_{name}_per_s']:,} requests/s on {scale.connections} connections", flush=True)
    figures["get_over_plain"] = round(float(np.median(found["gateway"]) / np.median(found["plain"])), 3)
    return figures


def _path(loop: OpenLoop, settings: Settings, port: int, scale: Scale) -> Figures:
    """Each play twice: when the list was on the topic for a client of its own, and when its event was on the member's stream."""
    arrived_s: dict[int, float] = {}

    def on_chunk(chunk: bytes, at_s: float) -> None:
        for number in _EVENT_IDS.findall(chunk):
            arrived_s.setdefault(int(number), at_s)

    async def body() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        streams = HeldStreams(on_chunk)
        await streams.open(port, [f"/v1/users/{user_id(member)}/stream" for member in range(scale.num_members)])
        num_before = len(loop._due_s)
        due_s, latencies_s = await asyncio.to_thread(loop.send, scale.rate, lambda passed_s: passed_s >= scale.path_s)
        await streams.quiet(_QUIET_S)
        streams.close()
        events_s = np.array([arrived_s.get(num_before + number, np.nan) for number in range(len(due_s))]) - due_s
        return latencies_s, events_s

    topic_s, events_s = asyncio.run(body())
    # A member's next list takes the place of one that was not sent yet: such a play has no event of its own.
    has_event = np.isfinite(events_s)
    topic_s, events_s = topic_s[has_event], events_s[has_event]
    figures = _report("topic", topic_s) | _report("event", events_s)
    figures["plays_without_event"] = int(np.count_nonzero(~has_event))
    # Of each play by itself: what it waited for before it was on the topic is not the gateway's doing.
    return figures | _report("event_after_topic", events_s - topic_s)


def _streams(settings: Settings, gateway: Program, port: int, scale: Scale) -> Figures:
    """Streams of as many members; then updates as fast as they go, each to the stream of its member."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = scale.num_streams + _OTHER_FILES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise BenchFailed(f"{scale.num_streams} streams need {wanted} open files; allowed here: {hard} (ulimit -n)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    members = [f"reader-{number}" for number in range(scale.num_streams)]
    before_bytes = _resident(gateway)

    async def body() -> tuple[int, float]:
        streams = HeldStreams()
        await streams.open(port, [f"/v1/users/{member}/stream" for member in members])
        await asyncio.sleep(1)
        held_bytes, began_s = _resident(gateway) - before_bytes, time.perf_counter()
        await asyncio.to_thread(_write_updates, settings, members, scale.num_updates)
        # A stream that is behind skips: it is over when nothing more comes.
        await streams.until(lambda: streams.num_events >= len(members))
        await streams.quiet(_QUIET_S)
        took_s = time.perf_counter() - began_s - _QUIET_S
        num_events = streams.num_events
        streams.close()
        return held_bytes, num_events / took_s

    held_bytes, per_s = asyncio.run(body())
    figures: Figures = {
        "streams": scale.num_streams,
        "bytes_a_stream": round(held_bytes / scale.num_streams),
        "events_per_s": round(per_s),
    }
    print(
        f"{'streams':<24} {scale.num_streams:,} open, {figures['bytes_a_stream']:,} bytes each; {per_s:,.0f} events/s",
        flush=True,
    )
    return figures


_QUIET_S = 0.5


def _write_updates(settings: Settings, members: list[str], num: int) -> None:
    """Messages of both kinds, as a worker writes them, to the members in turn."""
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": settings.broker,
            "linger.ms": 5,
            "log_level": 0,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    for number in range(num):
        member = members[number % len(members)]
        partition = home_partition(member.encode(), settings.num_partitions)
        source = {"topic": settings.plays_topic, "partition": partition, "offset": 1_000_000_000 + number}
        common: dict[str, Any] = {"user_id": member, "bundle": "b000000000000", "source": source}
        items = [{"item_id": f"movie-{n}", "title": f"Movie {n}", "score": 4.5} for n in range(10)]
        intents = {"genre": dict.fromkeys(map(str, range(18)), 0.05555)}
        for topic, fields in (
            (settings.recommendations_topic, {"items": items}),
            (settings.intents_topic, {"intents": intents}),
        ):
            value = json.dumps(common | fields).encode()
            producer.produce(topic, key=member.encode(), value=value, partition=partition)
        producer.poll(0)
    assert producer.flush(60) == 0


async def _body_of(port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.1 200"), head
    return body


def _listens(port: int) -> bool:
    try:
        asyncio.run(_body_of(port, "/"))
    except OSError:
        return False
    return True


def _wait(holds: Callable[[], bool], program: Program) -> None:
    give_up_s = time.monotonic() + _READY_WITHIN_S
    while not holds():
        program.check()
        if time.monotonic() > give_up_s:
            raise BenchFailed(
                f"{program.log_path.name} is not ready within {_READY_WITHIN_S:.0f} s\n{program.log_end()}"
            )
        time.sleep(0.05)


def _resident(program: Program) -> int:
    """Bytes of memory that a process has. Its command may be a guard that runs it: the largest of the two counts."""
    text = Path(f"/proc/{program.process.pid}/statm").read_text()
    return int(text.split()[1]) * resource.getpagesize()


def _endless_plays(num_active: int) -> Iterator[tuple[bytes, bytes]]:
    for first in itertools.count(0, _CHUNK):
        yield from plays(_CHUNK, num_active=num_active, first=first)


def _report(name: str, latencies_s: NDArray[np.float64]) -> Figures:
    p50_ms, p99_ms = (1000 * float(np.quantile(latencies_s, q)) for q in (0.5, 0.99))
    print(f"{name:<24} p50 {p50_ms:7.2f} ms   p99 {p99_ms:7.2f} ms   of {len(latencies_s):,}", flush=True)
    return {f"{name}_p50_ms": round(p50_ms, 2), f"{name}_p99_ms": round(p99_ms, 2)}
