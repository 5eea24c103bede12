"""The pipeline as one gateway sees it: how fast recommendations come and how late, and the metrics of its processes."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import aiohttp
import msgspec
from msgspec import UNSET, Struct, UnsetType

from stream.gateway.answers import MetricSample, ProcessStatus, UpdatesStatus
from stream.ops.quantiles import SlidingDigest
from stream.ops.scrape import parse

if TYPE_CHECKING:
    from stream.gateway.member_states import Newest

_SPAN_S = 10.0
_SCRAPE_INTERVAL_S = 1.0
_SCRAPE_DEADLINE_S = 2.0
_PREFIX = "intentrec_"


class _Latency(Struct, gc=False):
    latency_s: float | UnsetType = UNSET


_decode_latency = msgspec.json.Decoder(_Latency).decode


class PipelineStatus:
    """Owned by the event loop. ``urls``: metrics addresses of workers and trainers."""

    def __init__(self, urls: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._urls, self._clock = urls, clock
        self._latencies = SlidingDigest(_SPAN_S, clock)
        #: Recommendations of each second, newest last.
        self._seconds: deque[tuple[int, int]] = deque(maxlen=int(_SPAN_S) + 1)
        self._total = 0
        self._processes: list[ProcessStatus] = []
        self._scraping = asyncio.Lock()
        self._scraped_s = -_SCRAPE_INTERVAL_S

    def read(self, message: Newest) -> None:
        """Counts a recommendation that was read. Cost: 5 µs."""
        self._total += 1
        second = int(self._clock())
        last, num = self._seconds[-1] if self._seconds else (-1, 0)
        if last == second:
            self._seconds[-1] = second, num + 1
        else:
            self._seconds.append((second, 1))
        try:
            latency_s = _decode_latency(message.value).latency_s
        except msgspec.DecodeError:  # no number: the message is passed on all the same, as it is
            return
        if latency_s is not UNSET:
            self._latencies.add(latency_s)

    def updates(self) -> UpdatesStatus:
        """Figures over the last 10 s: whole seconds, the current one left out."""
        now = int(self._clock())
        num = sum(count for second, count in self._seconds if now - _SPAN_S <= second < now)
        return UpdatesStatus(
            total=self._total,
            per_s=num / _SPAN_S,
            latency_p50_s=self._latencies.quantile_s(0.5),
            latency_p99_s=self._latencies.quantile_s(0.99),
        )

    async def processes(self) -> list[ProcessStatus]:
        """Metrics of workers and trainers, at most a second old."""
        async with self._scraping:
            if self._urls and self._clock() - self._scraped_s >= _SCRAPE_INTERVAL_S:
                timeout = aiohttp.ClientTimeout(total=_SCRAPE_DEADLINE_S)
                async with aiohttp.ClientSession(timeout=timeout) as session:
                    self._processes = list(await asyncio.gather(*(_process(session, url) for url in self._urls)))
                self._scraped_s = self._clock()
            return self._processes


async def _process(session: aiohttp.ClientSession, url: str) -> ProcessStatus:
    base = url.rstrip("/")
    try:
        async with session.get(f"{base}/readyz") as answer:
            is_ready = answer.status == 200
        async with session.get(f"{base}/metrics") as answer:
            values = parse(await answer.text()).values
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return ProcessStatus(url=url, ready=False, metrics={})
    metrics = {
        name: [MetricSample(labels=dict(labels), value=value) for labels, value in series.items() if value == value]
        for name, series in values.items()
        if name.startswith(_PREFIX) and not name.endswith("_created")
    }
    return ProcessStatus(url=url, ready=is_ready, metrics=metrics)
