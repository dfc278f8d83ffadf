"""Task metrics: rows, values, intervals, what is refused, and that the table alone makes a metric known everywhere."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap, norm
from scipy.stats import t as student_t

import csa_deploy.tasks.stock  # noqa: F401 (registered before the first test, as after each the table is what it was)
from csa_deploy.config import make_config
from csa_deploy.errors import UsageError
from csa_deploy.metrics import table
from csa_deploy.metrics.intervals import FEW_DEVIATE, FEWEST, percentiles, resampled, student
from csa_deploy.metrics.stream import WHOLE, SampleTable, measure
from csa_deploy.metrics.table import METRICS, estimates_of
from csa_deploy.metrics.task import TASKS, Measured, register_task, task_of

CLASSES = 5


class MacroF1:
    """Of a classifier with :data:`CLASSES` classes."""

    unit, additive = "share", True

    def update(self, outputs: Mapping[str, np.ndarray], target: Any) -> np.ndarray:
        (scores,) = outputs.values()
        counts = np.zeros((3, len(scores)))
        counts[0, scores.argmax()] = scores.argmax() == target
        counts[1, scores.argmax()] = counts[2, target] = 1
        return counts.ravel()

    def reduce(self, rows: np.ndarray) -> float:
        hit, found, there = rows.sum(axis=0).reshape(3, -1)
        return float(np.mean(2 * hit / np.maximum(found + there, 1)))


@pytest.fixture(autouse=True)
def _same_table_after() -> Iterator[None]:
    before, tasks = dict(METRICS), dict(TASKS)
    yield
    for known, kept in ((METRICS, before), (TASKS, tasks)):
        known.clear()
        known.update(kept)  # type: ignore[arg-type]


def measured(
    want: np.ndarray, got: np.ndarray, targets: Any, *tasks: Measured, batches: int = 1
) -> tuple[dict[str, SampleTable], SampleTable]:
    found: dict[str, SampleTable] = {}
    for part in np.array_split(np.arange(len(want)), batches):
        ids = [f"s{i}" for i in part]
        measure({"y": want[part]}, {"y": got[part]}, ids, [targets[i] for i in part], found, tasks)
    return found, found[WHOLE]


def f1_score(labels: np.ndarray, found: np.ndarray) -> float:
    """The mean over classes of the harmonic mean of precision and recall, in fractions."""
    total = Fraction(0)
    for label in range(CLASSES):
        hits = sum(1 for a, b in zip(labels, found, strict=True) if a == b == label)
        if hits:
            precision, recall = Fraction(hits, list(found).count(label)), Fraction(hits, list(labels).count(label))
            total += 2 * precision * recall / (precision + recall)
    return float(total / CLASSES)


def drawn(count: int, noise: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    want, labels = draw.standard_normal((count, CLASSES)), draw.integers(0, CLASSES, count)
    want[np.arange(count), labels] += 2
    return want, want + noise * draw.standard_normal(want.shape), labels


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 5))
def test_a_value_is_that_written_out_in_any_batches(seed: int, count: int, batches: int) -> None:
    task = register_task(MacroF1())
    want, got, labels = drawn(count, seed=seed)
    values = measured(want, got, labels, task, batches=batches)[1].values()
    sides = [f1_score(labels, side.argmax(1)) for side in (want, got)]
    assert values["reference_MacroF1"] == pytest.approx(sides[0], abs=1e-12)
    assert values["MacroF1"] == pytest.approx(sides[1], abs=1e-12)
    assert values["MacroF1_drop"] == pytest.approx(sides[0] - sides[1], abs=1e-12)


def test_sums_resampling_and_a_vectorised_one_give_the_same_interval() -> None:
    class Slow(MacroF1):
        additive = False

    class Vectorised(MacroF1):
        def resample(self, rows: np.ndarray, times: np.ndarray) -> np.ndarray:
            return np.asarray([self.reduce((t @ rows)[None]) for t in times])

    tasks = [register_task(kind) for kind in (MacroF1, Slow, Vectorised)]
    found = measured(*drawn(80), *tasks)[1].estimates()
    for end in (0, 1):
        for what in ("", "_drop"):
            first, *others = (found[f"{task.name}{what}"].interval for task in tasks)
            assert first is not None
            for other in others:
                assert other is not None and other[end] == pytest.approx(first[end], abs=1e-12)


def test_the_quantile_of_student_is_that_of_scipy() -> None:
    for freedom in (*range(FEWEST - 1, 60), 1000, 10**6):
        assert student(freedom) == pytest.approx(student_t.ppf(0.975, freedom), abs=1e-6)


@pytest.mark.parametrize("count", [FEWEST, 60, 300])
def test_expanded_percentiles_are_those_of_scipy_between_wider_shares(count: int) -> None:
    """Hesterberg 2015: percentiles at the normal distribution's tail of Student's t, times the root of n / (n - 1)."""
    rows = np.random.default_rng(count).lognormal(size=(count, 2))

    def ratio(rows: np.ndarray) -> float:
        return float(rows[:, 0].sum() / rows[:, 1].sum())

    found = percentiles(resampled(rows, ratio, additive=False), count, count, 0.0)
    tail = norm.cdf(math.sqrt(count / (count - 1)) * student_t.ppf(0.025, count - 1))
    theirs = bootstrap(
        (rows[:, 0], rows[:, 1]),
        lambda a, b, axis: a.sum(axis=axis) / b.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=4000,
        confidence_level=1 - 2 * tail,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert found is not None
    for ours, other in zip(found, theirs, strict=True):
        assert ours == pytest.approx(other, abs=0.12 * (theirs.high - theirs.low))  # of 1,000 resamples


def test_no_interval_of_few_samples_or_of_few_that_moved() -> None:
    task = register_task(MacroF1())
    want, got, labels = drawn(FEWEST)
    assert measured(want, got, labels, task)[1].estimates()["MacroF1"].interval is not None
    assert measured(want[1:], got[1:], labels[1:], task)[1].estimates()["MacroF1"].interval is None
    want, _, labels = drawn(100)
    for moved, known in ((0, True), (FEW_DEVIATE - 1, False), (FEW_DEVIATE, True)):
        got = want.copy()
        got[:moved] = np.roll(want[:moved], 1, axis=1)
        lost = measured(want, got, labels, task)[1].estimates()["MacroF1_drop"]
        assert (lost.interval is not None) == known
        assert moved or lost.interval == (0.0, 0.0)


def test_lower_may_be_better_and_a_reference_may_be_the_target() -> None:
    class Far:
        better = "lower"

        def update(self, outputs: Any, target: Any) -> float:
            return abs(float(outputs["y"][0]) - target)

        def reduce(self, rows: np.ndarray) -> float:
            return float(rows.mean())

    class Near:
        against, heading = "reference", "as {}"

        def update(self, outputs: Any, target: Any) -> float:
            return float(outputs["y"][0] == target["y"][0])

        def reduce(self, rows: np.ndarray) -> float:
            return float(rows.mean())

    tasks = register_task(Far()), register_task(Near())
    want, got = np.zeros((30, 2)), np.ones((30, 2))
    found = measured(want, got, [0.25] * 30, *tasks)[1].values()
    assert found == {"Far": 0.75, "reference_Far": 0.25, "Far_rise": 0.5, "Near": 0.0}
    assert METRICS["Far"].side == METRICS["Far_rise"].side == "max" and "reference_Near" not in METRICS
    found = {}
    tables: dict[str, SampleTable] = {}
    measure({"y": want}, {"y": got}, [f"s{i}" for i in range(30)], None, tables, tasks)
    assert set(tables[WHOLE].values()) == {"Near"}  # without targets the other one is not measured


def test_what_is_not_finite_has_no_value_and_asks_the_metric_for_none() -> None:
    task = register_task(MacroF1())
    want, got, labels = drawn(30)
    got[0, 0] = np.nan
    found, whole = measured(want, got, labels, task)
    value = whole.estimates()["MacroF1_drop"]
    assert found["y"].non_finite == ["s0"] and np.isnan(value.value) and value.interval is None


class _Bad(MacroF1):
    name = "Bad"


def _bad(**methods: Any) -> Any:
    return type("Bad", (_Bad,), methods)()


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        (_bad(update=lambda self, outputs, target: outputs["lanes"]), "update() raised KeyError: 'lanes' on sample s0"),
        (_bad(update=lambda self, outputs, target: np.zeros((2, 2))), "update() gave an array of shape (2, 2)"),
        (_bad(update=lambda self, outputs, target: []), "update() gave an array of shape (0,)"),
        (_bad(update=lambda self, outputs, target: [1, np.nan]), "update() gave nan on sample s0"),
        (_bad(update=lambda self, outputs, target: "lanes"), "update() raised ValueError"),
        (
            _bad(update=lambda self, outputs, target: np.zeros(1 + target % 2)),
            "numbers of sample s2, 4 of the 2 before",
        ),
        (_bad(reduce=lambda self, rows: np.nan), "reduce() gave nan on 30 rows"),
        (_bad(reduce=lambda self, rows: rows), "reduce() gave an array of shape (30, 15) on 30 rows"),
        (_bad(reduce=lambda self, rows: None), "reduce() gave nan on 30 rows"),
        (_bad(reduce=lambda self, rows: 1 / 0), "reduce() raised ZeroDivisionError: division by zero on 30 rows"),
        (_bad(resample=lambda self, rows, times: times), "resample() gave no 1000 finite numbers"),
    ],
)
def test_a_bad_metric_is_one_line(metric: Any, said: str) -> None:
    with pytest.raises(UsageError) as error:
        measured(*drawn(30), register_task(metric))[1].estimates()
    assert said in error.value.message and error.value.message.startswith("metric Bad: ")
    assert "\n" not in error.value.message


def _undecodable(*given: Any) -> Any:
    raise UsageError("heads.py:decode: it returned no arrays of numbers", fix="return boxes")


def test_a_bad_decode_function_is_not_blamed_on_the_metric() -> None:
    with pytest.raises(UsageError) as error:
        measured(*drawn(30), register_task(_bad(update=_undecodable)))
    assert error.value.message == "heads.py:decode: it returned no arrays of numbers, on sample s0"
    assert error.value.fix == "return boxes"


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        (object(), "has no update() and reduce()"),
        (type("A", (MacroF1,), {"better": "up"}), "better is 'up'"),
        (type("A", (MacroF1,), {"against": "labels"}), "against is 'labels'"),
        (type("A", (MacroF1,), {"name": "a b"}), "its name is no identifier"),
        (type("A", (MacroF1,), {"name": "top1"}), "there is another one named reference_top1"),
        (type("A", (MacroF1,), {"__init__": lambda self, classes: None}), "making it raised TypeError"),
    ],
)
def test_what_is_no_metric_is_refused(metric: Any, said: str) -> None:
    with pytest.raises(UsageError, match="metric ") as error:
        register_task(metric)
    assert said in error.value.message


def test_the_same_name_again_replaces_the_task() -> None:
    first, second = register_task(MacroF1()), register_task(MacroF1())
    assert TASKS["MacroF1"] is second is not first
    assert METRICS["MacroF1"].reduce == second.reduce and task_of(MacroF1).name == "MacroF1"


def test_a_budget_measures_its_metric_and_a_default_bound_only_what_is_asked_for() -> None:
    class Careful(MacroF1):
        default_bounds: ClassVar = {"int8": 0.01}

    with pytest.raises(UsageError, match=r"unknown metric 'Careful_drop'.*--metric"):
        make_config({"budget": ["int8.Careful_drop=0.02"]})
    register_task(Careful())
    assert "Careful_drop" not in make_config({}).bounds("int8") and make_config({}).tasks() == []
    chosen = make_config({"metric": ["Careful"]})
    assert chosen.bounds("int8")["Careful_drop"] == 0.01 and "Careful_drop" not in chosen.bounds("fp16")
    asked = make_config({"budget": ["int8.Careful_drop=0.02"]})
    assert [task.name for task in asked.tasks()] == ["Careful"] and asked.bounds("int8")["Careful_drop"] == 0.02
    with pytest.raises(UsageError, match="share from 0 to 1"):
        make_config({"budget": ["int8.Careful_drop=2"]})


def test_every_metric_says_how_it_is_read() -> None:
    for name, metric in METRICS.items():
        assert metric.name == name and metric.shown(0.5) and metric.better in ("higher", "lower")
        assert not metric.beside or metric.beside in METRICS
        assert not metric.instead_of or METRICS[metric.instead_of].change
    assert set(table.default_budget("fp32")) == {"max_rel_error", "cosine", "top1_agreement"}
    assert estimates_of({}) == {}
