"""Outputs that are maps: positions, classes and channels."""

from __future__ import annotations

import numpy as np
import pytest

from csa_deploy.metrics.stream import OutputMetrics


def metrics(want: np.ndarray, got: np.ndarray) -> OutputMetrics:
    found = OutputMetrics("mask")
    found.update(want.astype("f4"), got.astype("f4"), [f"s{i}" for i in range(len(want))], None)
    return found


def one_hot(classes: list[list[int]], channels: int = 3) -> np.ndarray:
    return np.eye(channels)[np.asarray(classes)].transpose(2, 0, 1)[None]


def test_intersection_over_union_by_hand() -> None:
    found = metrics(one_hot([[0, 0], [1, 1]]), one_hot([[0, 1], [1, 1]])).values()
    assert found["pixel_agreement"] == 0.75
    assert found["mean_iou_agreement"] == pytest.approx(
        (1 / 2 + 2 / 3) / 2
    )  # class 2 is in neither, so it does not count


def test_the_worst_channel_is_named() -> None:
    draw = np.random.default_rng(0)
    want = draw.standard_normal((4, 3, 5, 5))
    got = want.copy()
    got[:, 2] += 0.5
    got[:, 0] += 0.01
    worst = metrics(want, got).worst_channels()
    assert [row["channel"] for row in worst] == [2, 0, 1]
    assert worst[0]["snr_db"] == pytest.approx(10 * np.log10((want[:, 2] ** 2).sum() / (0.25 * 100)), abs=1e-3)


def test_a_shifted_map_is_seen() -> None:
    draw = np.random.default_rng(0)
    want = draw.standard_normal((24, 4, 8, 8))
    found = metrics(want, np.roll(want, 1, axis=3)).estimates()["mean_iou_agreement"]
    assert found.value < 0.3 and found.interval is not None and found.interval[0] < found.value < found.interval[1]


def test_a_map_that_is_not_finite_agrees_nowhere() -> None:
    want = np.ones((2, 3, 4, 4))
    got = want.copy()
    got[1, 0, 0, 0] = np.inf
    found = metrics(want, got)
    assert found.non_finite == ["s1"] and found.values()["mean_iou_agreement"] == 0.5
