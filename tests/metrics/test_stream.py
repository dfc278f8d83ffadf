"""Metrics against hand-computed values, streamed in any batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import rel_entr, softmax
from scipy.stats import rankdata

from csa_deploy.errors import UsageError
from csa_deploy.metrics.distance import cosine, snr
from csa_deploy.metrics.stream import OutputMetrics


def metrics(want: object, got: object, labels: object = None, batches: int = 1) -> OutputMetrics:
    want, got = np.asarray(want, "f4"), np.asarray(got, "f4")
    found = OutputMetrics("y")
    ids = np.array([f"s{i}" for i in range(len(want))])
    for part in np.array_split(np.arange(len(want)), batches):
        chosen = None if labels is None else np.asarray(labels)[part]
        found.update(want[part], got[part], ids[part].tolist(), chosen)
    return found


def test_hand_computed() -> None:
    found = metrics([[3.0, 4.0], [0.0, 2.0]], [[3.0, 5.0], [0.0, 2.0]]).values()
    assert found["max_abs_error"] == 1.0
    assert found["mean_abs_error"] == 0.25
    assert found["max_rel_error"] == 1.0 / 4.0
    assert found["cosine"] == pytest.approx(29 / (5 * math.sqrt(34)))
    assert found["snr_db"] == pytest.approx(10 * math.log10(29 / 1))
    assert found["top1_agreement"] == 1.0
    assert "top1" not in found


def test_accuracy_with_labels() -> None:
    want = np.eye(6, 6)[[0, 1, 2, 3]]
    got = np.eye(6, 6)[[0, 1, 5, 5]]
    found = metrics(want, got, labels=[0, 1, 2, 0]).values()
    assert (found["reference_top1"], found["top1"], found["top1_drop"]) == (0.75, 0.5, 0.25)
    assert found["top1_agreement"] == 0.5
    assert found["top5"] == 1.0  # ties are ranked by class


def test_no_top5_for_five_classes() -> None:
    found = metrics(np.eye(5), np.eye(5), labels=range(5)).values()
    assert found["top1"] == 1.0 and "top5" not in found


@pytest.mark.parametrize("batches", [1, 2, 3, 7])
def test_batches_do_not_matter(batches: int) -> None:
    draw = np.random.default_rng(0)
    want = draw.standard_normal((7, 9))
    got = want + 0.1 * draw.standard_normal((7, 9))
    labels = draw.integers(0, 9, 7)
    whole, parts = metrics(want, got, labels), metrics(want, got, labels, batches)
    assert parts.values() == whole.values() and parts.worst() == whole.worst()


def test_an_output_that_is_no_classification() -> None:
    draw = np.random.default_rng(1)
    want = draw.standard_normal((3, 2, 4, 4))
    found = metrics(want, want, labels=[0, 1, 1])
    general = {"max_abs_error", "mean_abs_error", "max_rel_error", "mean_rel_error", "cosine", "snr_db"}
    assert found.classes == 0 and set(found.values()) == general | {"pixel_agreement", "mean_iou_agreement"}
    assert found.values()["mean_iou_agreement"] == 1.0
    assert found.values()["snr_db"] == math.inf and found.values()["cosine"] == pytest.approx(1.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.shows("MEA-28", "ERR-23")
def test_one_value_that_is_not_finite_spoils_all(bad: float) -> None:
    want = np.ones((3, 4))
    got = want.copy()
    got[1, 2] = bad
    found = metrics(want, got, labels=[0, 0, 0])
    values = found.values()
    assert found.non_finite == ["s1"] and found.worst()[0]["id"] == "s1"
    assert values["max_abs_error"] == math.inf and values["snr_db"] == -math.inf and values["cosine"] == -1.0
    assert values["top1_agreement"] == pytest.approx(2 / 3)


def test_the_worst_sample_is_named_and_other_classes_come_first() -> None:
    want = [[1.0, 0.0], [1.0, 0.0], [1.0, 0.9]]
    got = [[1.5, 0.0], [9.0, 0.0], [1.0, 1.1]]
    assert [w["id"] for w in metrics(want, got).worst()] == ["s2", "s1", "s0"]
    assert [w["agrees"] for w in metrics(want, got).worst(2)] == [False, True]


def test_the_worst_sample_comes_with_the_strongest_classes_of_both() -> None:
    want, got = np.log([[0.6, 0.3, 0.1], [0.8, 0.1, 0.1]]), np.log([[0.3, 0.6, 0.1], [0.8, 0.1, 0.1]])
    (worst,) = metrics(want, got).worst(1)
    assert [c["class"] for c in worst["reference_classes"]] == [0, 1, 2]
    assert [c["class"] for c in worst["classes"]] == [1, 0, 2]
    assert [c["probability"] for c in worst["classes"]] == pytest.approx([0.6, 0.3, 0.1], rel=1e-5)
    broken = metrics([[0.0, 1.0]], [[np.nan, 1.0]]).worst(1)[0]
    assert broken["classes"] == [] and broken["reference_classes"][0]["class"] == 1
    assert "classes" not in metrics(np.ones((1, 2, 3, 3)), np.ones((1, 2, 3, 3))).worst(1)[0]


def test_only_the_first_samples_are_kept() -> None:
    draw = np.random.default_rng(2)
    want, got = draw.standard_normal((2, 7, 9))
    found = metrics(want, got, labels=range(7), batches=3)
    found.keep(4)
    assert found.values() == metrics(want[:4], got[:4], labels=range(4)).values()
    assert found.worst() == metrics(want[:4], got[:4], labels=range(4)).worst()


def test_zero_signals() -> None:
    zero, one = np.zeros(3), np.ones(3)
    assert cosine(zero, zero) == 1.0 and cosine(zero, one) == 0.0 and cosine(one, zero) == 0.0
    assert snr(0.0, 0.0) == math.inf and snr(0.0, 1.0) == -math.inf and snr(1.0, 0.0) == math.inf


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(UsageError, match=r"\[2\] in the reference and \[3\] in the candidate"):
        metrics(np.ones((1, 2)), np.ones((1, 3)))


logits = st.integers(2, 9).flatmap(
    lambda classes: st.tuples(*(arrays("f4", (3, classes), elements=st.integers(-4, 4).map(float)) for _ in range(2)))
)


@settings(max_examples=80, deadline=None)
@given(logits)
@pytest.mark.shows("MEA-28")
def test_divergence_is_scipys_relative_entropy(pair: tuple[np.ndarray, np.ndarray]) -> None:
    want, got = pair
    expected = rel_entr(softmax(want.astype("f8"), axis=1), softmax(got.astype("f8"), axis=1)).sum(axis=1)
    assert metrics(want, got).columns["kl_divergence"] == pytest.approx(expected, abs=1e-12)


@settings(max_examples=80, deadline=None)
@given(logits, st.integers(0, 8))
def test_ranking_is_scipys_with_ties_by_class(pair: tuple[np.ndarray, np.ndarray], label: int) -> None:
    """Small whole numbers tie often: the class that comes first ranks first."""
    want, got = pair
    classes = want.shape[1]
    label %= classes
    ranks = [np.array([rankdata(-row, method="ordinal") for row in side]) for side in pair]
    found = metrics(want, got, labels=[label] * 3).columns
    first = ranks[0].argmin(axis=1)
    assert found["agrees"].tolist() == (first == ranks[1].argmin(axis=1)).astype(float).tolist()
    assert found["reference_top1"].tolist() == (ranks[0][:, label] == 1).astype(float).tolist()
    assert found["top1"].tolist() == (ranks[1][:, label] == 1).astype(float).tolist()
    assert ("top5" in found) == (classes > 5)
    if classes > 5:
        assert found["top5"].tolist() == (ranks[1][:, label] <= 5).astype(float).tolist()
        assert found["agrees_top5"].tolist() == [float(ranks[1][i, c] <= 5) for i, c in enumerate(first)]


@settings(max_examples=60, deadline=None)
@given(st.tuples(*(arrays("f4", (2, 3, 3, 4), elements=st.integers(-2, 2).map(float)) for _ in range(2))))
def test_overlap_of_maps_by_sets_of_positions(pair: tuple[np.ndarray, np.ndarray]) -> None:
    found = metrics(*pair).columns
    for sample in range(2):
        places: list[dict[int, set[tuple[int, int]]]] = []
        for side in pair:
            of: dict[int, set[tuple[int, int]]] = {}
            for y in range(3):
                for x in range(4):
                    values = side[sample, :, y, x].tolist()
                    of.setdefault(values.index(max(values)), set()).add((y, x))
            places.append(of)
        seen = set(places[0]) | set(places[1])
        both = {c: (places[0].get(c, set()), places[1].get(c, set())) for c in seen}
        assert found["mean_iou"][sample] == pytest.approx(np.mean([len(a & b) / len(a | b) for a, b in both.values()]))
        assert found["pixel_agreement"][sample] == pytest.approx(sum(len(a & b) for a, b in both.values()) / 12)
