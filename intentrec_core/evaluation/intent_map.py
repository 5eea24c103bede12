"""Members' intents as a map: intent embeddings (Z) in clusters, each named by what its members play next (paper, Figure 6).

Clusters are those of K-means with K-means++ seeding (Arthur and Vassilvitskii, SODA 2007); the map is the plane of the two
largest principal components.

Shapes: N plays, P width of Z, K clusters, L labels of a head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUM_CLUSTERS = 10
#: Clusters are found on so many plays at most, drawn at random; the map shows fewer.
MAX_PLAYS, MAX_SHOWN = 20_000, 1_500
ROUNDS, TRIES = 50, 4
#: A label counts as typical of a cluster if at least this share of the cluster's plays have it.
MIN_SHARE = 0.05
#: A cluster is called by labels that at least this share of its plays have, where there are such.
MIN_NAMED = 0.2


@dataclass(frozen=True, slots=True)
class TypicalLabel:
    """A label of what a cluster's members play next: its share among them, and among all."""

    head: str
    label: str
    share: float
    share_of_all: float


@dataclass(frozen=True, slots=True)
class TypicalItem:
    """An item that a cluster's members play next more often than others do: ``times`` as often."""

    title: str
    plays: int
    times: float


@dataclass(frozen=True, slots=True)
class IntentCluster:
    """A cluster of intents. ``name``: unlike those of the others. ``share``: of all plays. ``center``: on the map; ``intent``:
    the center itself (P numbers).
    """

    name: str
    plays: int
    share: float
    labels: tuple[TypicalLabel, ...]
    items: tuple[TypicalItem, ...]
    center: tuple[float, float]
    intent: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class IntentMap:
    """The clusters, largest first, and some plays on the map: x, y and the number of the cluster.

    ``explained``: the share of the variance of Z that the two axes show.
    """

    clusters: tuple[IntentCluster, ...]
    points: tuple[tuple[float, float, int], ...]
    explained: float
    num_plays: int


def intent_map(
    intent: NDArray[np.float32],
    labels: Mapping[str, NDArray[np.bool_]],
    label_names: Mapping[str, Sequence[str]],
    next_row: NDArray[np.int64],
    titles: Sequence[str],
    *,
    num_clusters: int = NUM_CLUSTERS,
    seed: int = 0,
) -> IntentMap:
    """Clusters intents and names each cluster. ``labels``: of the play that came next, by head; ``next_row``: its item.

    Shapes: f32[N, P]; bool[N, L] for each head; i64[N] rows of ``titles`` (0: unknown).
    Raises: ValueError without a play.
    """
    if not len(intent):
        raise ValueError("a map needs a play: there is none")
    random = np.random.default_rng(seed)
    taken = np.sort(random.permutation(len(intent))[:MAX_PLAYS])
    z, row = intent[taken].astype(np.float64), next_row[taken]
    known = {head: observed[taken] for head, observed in labels.items()}
    which, centers = k_means(z, min(num_clusters, len(np.unique(z, axis=0))), random)
    order = np.argsort(-np.bincount(which, minlength=len(centers)), kind="stable")
    which, centers = np.argsort(order)[which], centers[order]
    middle, axes, explained = plane(z)
    flat, flat_centers = (z - middle) @ axes.T, (centers - middle) @ axes.T
    typical = [_typical_labels(which == k, known, label_names) for k in range(len(centers))]
    clusters = tuple(
        IntentCluster(
            name=name,
            plays=int((which == k).sum()),
            share=float((which == k).mean()),
            labels=tuple(typical[k][:6]),
            items=_typical_items(which == k, row, titles),
            center=(float(flat_centers[k, 0]), float(flat_centers[k, 1])),
            intent=tuple(centers[k].tolist()),
        )
        for k, name in enumerate(_names(typical))
    )
    shown = np.sort(random.permutation(len(z))[:MAX_SHOWN])
    points = tuple((float(flat[i, 0]), float(flat[i, 1]), int(which[i])) for i in shown)
    return IntentMap(clusters, points, explained, len(z))


def k_means(
    z: NDArray[np.float64], num_clusters: int, random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The best of several runs of Lloyd's algorithm from K-means++ seeds: each point's cluster, and the centers.

    Shapes: f64[N, P] with at least ``num_clusters`` different points -> i64[N], f64[K, P].
    """
    best: tuple[float, NDArray[np.int64], NDArray[np.float64]] | None = None
    for _ in range(TRIES):
        centers = _seeds(z, num_clusters, random)
        for _ in range(ROUNDS):
            which = _distances(z, centers).argmin(axis=1)
            sums, num = np.zeros_like(centers), np.bincount(which, minlength=num_clusters)
            np.add.at(sums, which, z)
            moved = np.where(num[:, None] > 0, sums / np.maximum(num, 1)[:, None], centers)
            if np.allclose(moved, centers):
                break
            centers = moved
        distance = _distances(z, centers)
        within = float(distance.min(axis=1).sum())
        if best is None or within < best[0]:
            best = within, distance.argmin(axis=1), centers
    assert best is not None
    return best[1], best[2]


def _seeds(z: NDArray[np.float64], num: int, random: np.random.Generator) -> NDArray[np.float64]:
    """K-means++: each next seed is a point drawn in proportion to its squared distance from the seeds so far."""
    centers = z[random.integers(len(z))][None]
    while len(centers) < num:
        nearest = _distances(z, centers).min(axis=1)
        chosen = random.choice(len(z), p=nearest / nearest.sum())
        centers = np.concatenate([centers, z[chosen][None]])
    return centers


def _distances(z: NDArray[np.float64], centers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared distances, exactly 0 between equal points. Shapes: -> f64[N, K]."""
    return np.stack([((z - center) ** 2).sum(axis=1) for center in centers], axis=1)


def plane(z: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """The mean, the two directions of the largest variance, and the share of the variance in them.

    Shapes: f64[N, P] -> f64[P], f64[2, P], float. With P = 1 the second direction is 0.
    """
    middle = z.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(z - middle, rowvar=False, bias=True).reshape(z.shape[1], z.shape[1]))
    axes = np.zeros((2, z.shape[1]))
    num = min(2, z.shape[1])
    axes[:num] = vectors[:, ::-1][:, :num].T
    axes *= np.where(axes[np.arange(2), np.abs(axes).argmax(axis=1)] < 0, -1.0, 1.0)[
        :, None
    ]  # one sign on every machine
    total = float(values.sum())
    return middle, axes, float(values[::-1][:num].sum()) / total if total > 0 else 0.0


def _typical_labels(
    inside: NDArray[np.bool_], labels: Mapping[str, NDArray[np.bool_]], names: Mapping[str, Sequence[str]]
) -> list[TypicalLabel]:
    """The labels that are more frequent in the cluster than among all, the most telling first: by share · log(share / share of
    all), their part in what the cluster says about the next play.
    """
    found = []
    for head, observed in labels.items():
        known = observed.any(axis=1)
        if not (known & inside).any():
            continue
        here, everywhere = observed[known & inside].mean(axis=0), observed[known].mean(axis=0)
        for code, name in enumerate(names[head]):
            if here[code] > max(everywhere[code], MIN_SHARE):
                found.append(TypicalLabel(head, str(name), float(here[code]), float(everywhere[code])))
    return sorted(found, key=lambda one: -one.share * np.log(one.share / one.share_of_all))


def _typical_items(
    inside: NDArray[np.bool_], row: NDArray[np.int64], titles: Sequence[str], num: int = 4
) -> tuple[TypicalItem, ...]:
    """The items that tell the cluster from the rest: frequent in it, and more frequent than elsewhere."""
    here = np.bincount(row[inside], minlength=len(titles)).astype(np.float64)
    everywhere = np.bincount(row, minlength=len(titles)).astype(np.float64)
    times = (here / inside.sum()) / np.maximum(everywhere / len(row), 1e-12)
    telling = np.where((here >= 2) & (times > 1.0), here * np.log(np.maximum(times, 1e-12)), 0.0)
    telling[0] = 0.0
    best = np.argsort(-telling, kind="stable")[:num]
    return tuple(TypicalItem(titles[i], int(here[i]), float(times[i])) for i in best if telling[i] > 0.0)


def _names(typical: Sequence[Sequence[TypicalLabel]]) -> list[str]:
    """A name for each cluster: its two most telling labels, of two heads where it can be; more where another's are the same."""
    ordered = [_one_of_each_head_first(labels) for labels in typical]
    num_labels = [2] * len(ordered)
    names = [_name(labels[:2]) for labels in ordered]
    for _ in range(4):
        for number, name in enumerate(names):
            num_labels[number] += names.count(name) > 1
        names = [_name(labels[:num]) for labels, num in zip(ordered, num_labels, strict=True)]
    return [name if names.count(name) == 1 else f"{name} (no. {i + 1})" for i, name in enumerate(names)]


def _one_of_each_head_first(labels: Sequence[TypicalLabel]) -> list[TypicalLabel]:
    """Labels in the order in which a name takes them. Those that few of the cluster's plays have come last."""
    frequent = [label for label in labels if label.share >= MIN_NAMED]
    first = {label.head: label for label in reversed(frequent)}
    return sorted(labels, key=lambda label: (label not in frequent, first.get(label.head) is not label))


def _name(labels: Sequence[TypicalLabel]) -> str:
    return ", ".join(map(label_text, labels)) or "anything"


def label_text(found: TypicalLabel) -> str:
    """A label as a reader understands it: a number says which head it belongs to."""
    return found.label if any(c.isalpha() for c in found.label) else f"{found.head} {found.label}"
