"""Clusters of intents: found where they are, and called by what their members play next."""

from __future__ import annotations

import numpy as np
import pytest

from intentrec_core.evaluation.intent_map import intent_map, k_means, plane

TITLES = ("", "War and Peace", "Toy Story", "Heat")


def blobs(random: np.random.Generator, num: int = 3, size: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Points around corners that are far apart, and the corner of each."""
    corners = 10.0 * np.eye(num, 5)
    which = np.arange(num * size) % num
    return (corners[which] + random.normal(scale=0.3, size=(num * size, 5))).astype(np.float32), which


def test_clusters_are_found_where_they_are() -> None:
    random = np.random.default_rng(0)
    z, truth = blobs(random)
    which, centers = k_means(z.astype(np.float64), 3, random)
    assert len(centers) == 3
    for blob in range(3):
        assert len(set(which[truth == blob])) == 1
        np.testing.assert_allclose(centers[which[truth == blob][0]], z[truth == blob].mean(axis=0), atol=1e-4)


def test_seeds_far_apart_are_what_k_means_begins_with() -> None:
    """Eight clusters at whatever drawing: seeds drawn evenly would put two of them into one cluster at most draws."""
    z = 100.0 * np.repeat(np.eye(8), 40, axis=0) + np.random.default_rng(1).normal(scale=0.1, size=(320, 8))
    for seed in range(5):
        which, _ = k_means(z, 8, np.random.default_rng(seed))
        assert sorted(np.bincount(which)) == [40] * 8


def test_the_plane_is_that_of_the_largest_variance() -> None:
    random = np.random.default_rng(2)
    z = np.zeros((500, 4))
    z[:, 2], z[:, 0], z[:, 1] = (
        random.normal(scale=5, size=500),
        random.normal(scale=2, size=500),
        random.normal(size=500),
    )
    middle, axes, explained = plane(z)
    np.testing.assert_allclose(middle, z.mean(axis=0))
    assert abs(axes[0, 2]) > 0.99
    assert abs(axes[1, 0]) > 0.99
    assert explained == pytest.approx(29 / 30, abs=0.02)


def test_a_cluster_is_called_by_what_its_members_play_next_more_often_than_others() -> None:
    z, truth = blobs(np.random.default_rng(3))
    genre = np.zeros((len(z), 3), dtype=np.bool_)
    genre[np.arange(len(z)), truth] = True
    genre[:, 2] = True  # a label that all have tells nothing
    decade = np.zeros((len(z), 2), dtype=np.bool_)
    decade[:, 0], decade[:, 1] = truth == 0, truth != 0
    row = np.array([1, 2, 3])[truth]
    found = intent_map(
        z,
        {"genre": genre, "decade": decade},
        {"genre": ("War", "Kids", "Long"), "decade": ("1970", "1990")},
        row,
        TITLES,
        num_clusters=3,
    )
    by_title = {cluster.items[0].title: cluster for cluster in found.clusters}
    assert by_title["War and Peace"].name == "War, decade 1970", "a label that is a number says of what"
    assert by_title["Toy Story"].name == "Kids, decade 1990"
    assert by_title["Heat"].name == "decade 1990"
    assert by_title["Heat"].items[0].times == pytest.approx(3.0)
    assert sum(cluster.plays for cluster in found.clusters) == found.num_plays == len(z)


def test_names_are_never_the_same_and_few_points_make_few_clusters() -> None:
    z = np.repeat(np.eye(4, dtype=np.float32), 5, axis=0)
    alike = np.ones((20, 1), dtype=np.bool_)
    found = intent_map(z, {"genre": alike}, {"genre": ("War",)}, np.ones(20, dtype=np.int64), TITLES)
    assert len(found.clusters) == 4
    assert len({cluster.name for cluster in found.clusters}) == 4
    with pytest.raises(ValueError, match="needs a play"):
        intent_map(z[:0], {}, {}, np.zeros(0, dtype=np.int64), TITLES)
