"""Outputs that are maps: positions, classes and channels."""

from __future__ import annotations

import numpy as np
import pytest

from csa_deploy.data.targets import Mask
from csa_deploy.metrics.stream import OutputMetrics, SampleTable, measure
from csa_deploy.metrics.task import task_of
from csa_deploy.tasks.metrics import MeanIoU
from csa_deploy.tasks.task import Segmentation


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


@pytest.mark.parametrize("threshold", [0.5, 0.2])
def test_one_channel_has_classes_by_a_threshold(threshold: float) -> None:
    """On both sides of it and on it; without one the map may as well be a depth, and has none."""
    want = np.asarray([[[[0.1, 0.2, 0.5], [0.6, 0.49, 0.9]]]])
    got = np.asarray([[[[0.3, 0.19, 0.5], [0.6, 0.51, 0.1]]]])
    found = OutputMetrics("mask", threshold=threshold)
    found.update(want, got, ["s"], None)
    first, second = want >= threshold, got >= threshold
    assert found.values()["pixel_agreement"] == pytest.approx((first == second).mean())
    shares = [(a & b).sum() / (a | b).sum() for a, b in ((first, second), (~first, ~second))]
    assert found.values()["mean_iou_agreement"] == pytest.approx(np.mean(shares))
    assert "pixel_agreement" not in metrics(want, got).values()


def test_segmentation_gives_its_threshold_to_maps_of_one_channel() -> None:
    task = Segmentation(threshold=0.2)
    tables: dict[str, SampleTable] = {}
    want, got = {"mask": np.full((1, 1, 2, 2), 0.3)}, {"mask": np.asarray([[[[0.3, 0.1], [0.3, 0.3]]]])}
    measure(want, got, ["s"], [Mask(np.ones((2, 2), np.uint8))], tables, [task_of(MeanIoU(task))])
    assert tables["mask"].values()["pixel_agreement"] == 0.75
