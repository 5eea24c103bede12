"""Client for /metrics and /readyz of another process, as Prometheus and an orchestrator read them."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]

#: On loopback a response takes milliseconds; a process that is busy with a bundle swap may need longer.
TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Samples:
    """The samples of one scrape, by name and labels."""

    values: dict[str, dict[Labels, float]] = field(default_factory=dict)

    def total(self, name: str, **labels: str) -> float:
        """Sum over the series of ``name`` with these ``labels``; 0 if there is none."""
        wanted = set(labels.items())
        return sum(value for found, value in self.values.get(name, {}).items() if wanted <= found)

    def by(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """The same sum for each value of the label ``label``."""
        wanted, sums = set(labels.items()), dict[str, float]()
        for found, value in self.values.get(name, {}).items():
            key = dict(found).get(label)
            if key is not None and wanted <= found:
                sums[key] = sums.get(key, 0.0) + value
        return sums


def parse(text: str) -> Samples:
    """Parses the Prometheus text format."""
    values: dict[str, dict[Labels, float]] = {}
    for name, labels, value in _samples(text):
        values.setdefault(name, {})[labels] = value
    return Samples(values)


def scrape(port: int, host: str = "127.0.0.1") -> Samples | None:
    """The current /metrics of a process; None if it does not respond."""
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=TIMEOUT_S) as response:
            return parse(response.read().decode())
    except (OSError, ValueError):
        return None


def is_ready(port: int, host: str = "127.0.0.1") -> bool:
    """Whether /readyz reports that the process is ready."""
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/readyz", timeout=TIMEOUT_S) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def _samples(text: str) -> Iterator[tuple[str, Labels, float]]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield sample.name, frozenset(sample.labels.items()), float(sample.value)
