"""The most common label of the last 7 days of event time."""

from __future__ import annotations

import numpy as np

from stream.pipeline.live_quality.common_labels import CommonLabels


def observed_labels(*labels: int) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    return np.eye(3, dtype=np.bool_)[list(labels)]


def test_there_is_no_common_label_before_the_first_one() -> None:
    assert CommonLabels([3]).commonest.tolist() == [-1]


def test_the_commonest_label_is_that_of_the_window() -> None:
    common = CommonLabels([3], window_s=100.0)
    common.add(observed_labels(0, 0, 0), np.array([1.0, 2.0, 3.0]))
    common.add(observed_labels(1, 1), np.array([50.0, 60.0]))
    assert common.commonest.tolist() == [0]
    common.add(observed_labels(2), np.array([104.0]))
    assert common.commonest.tolist() == [1], "the first batch has left the window"


def test_an_old_play_does_not_move_the_time_back() -> None:
    common = CommonLabels([3], window_s=100.0)
    common.add(observed_labels(1), np.array([500.0]))
    common.add(observed_labels(2, 2), np.array([10.0, 11.0]))
    assert common.commonest.tolist() in ([1], [2])
    common.add(observed_labels(1), np.array([501.0]))
    assert common.commonest.tolist() == [1]


def test_plays_without_observed_labels_do_not_count() -> None:
    common = CommonLabels([3])
    common.add(np.zeros((4, 3), dtype=np.bool_), np.arange(4.0))
    assert common.commonest.tolist() == [-1]


def test_each_head_has_its_own_commonest_label() -> None:
    common = CommonLabels([2, 3, 1])
    common.add(np.array([[0, 1, 0, 0, 1, 0], [0, 1, 0, 1, 0, 0], [1, 0, 0, 0, 1, 0]], dtype=np.bool_), np.arange(3.0))
    assert common.commonest.tolist() == [1, 2, -1]


def test_batches_of_one_play_share_a_span() -> None:
    common = CommonLabels([3], window_s=100.0)
    for number in range(20_000):
        common.add(observed_labels(number // 10_000), np.array([number / 100]))
    assert len(common._spans) <= 1_001, "as many as the window has spans, however many batches there were"
    assert abs(common._counts.sum() - 10_000) <= 20, "those of 100 s, but for a span at its end"
