"""Two stored comparisons side by side: is the accuracy of the second run better, worse or no different?

The same samples went through both, so every change is paired: what a sample does in one run is held against what it
does in the other. That finds changes that two separate intervals would hide.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from csa_deploy.metrics.estimates import lost_and_gained
from csa_deploy.metrics.intervals import FEWEST
from csa_deploy.metrics.metric import Interval, Metric
from csa_deploy.metrics.table import FINITE, METRICS, defined_by, named, ordered
from csa_deploy.results import NotMeasured, Stored
from csa_deploy.verify.results import OutputColumns, Results

_NAMED = 5  # samples named per direction
_SAME_REFERENCE = 1e-3  # relative difference of the outputs' energies; rounding alone gives 1e-6


@dataclass(frozen=True)
class Change(Stored):
    """One metric of one output in two runs, over the samples that both compared.

    Attributes:
        metric: as in budgets, and ``finite`` where an output is not; shares in 0..1.
        samples: compared in both runs; all but shares count only those whose outputs are finite in both.
        a: value in the first run.
        b: value in the second run.
        interval: 95 % confidence interval of ``b - a``; None where the method gives none.
        method: how the interval was made.
        p_value: of a share, McNemar's exact p-value for "no difference".
        lost: of a share, identities of samples that were right in A and are wrong in B, up to five.
        gained: the other way round.
    """

    derived: ClassVar[tuple[str, ...]] = ("difference", "outcome")
    label: str
    output: str
    metric: str
    samples: int
    a: float
    b: float
    interval: Interval | None
    method: str
    p_value: float | None = None
    lost: tuple[str, ...] = ()
    gained: tuple[str, ...] = ()

    @property
    def difference(self) -> float:
        """``b - a``; 0 where both are the same infinity."""
        return 0.0 if self.a == self.b else self.b - self.a

    @property
    def outcome(self) -> Literal["better", "worse", "no difference shown", "undecided"]:
        """Whether B is better: when the interval excludes 0 and the change is at least the smallest that counts.

        Without interval only an infinite change is one, and not on a few samples.
        """
        metric = named(self.metric)
        if abs(self.difference) < metric.minimum_effect:
            return "no difference shown"
        low, high = self.interval or (self.difference, self.difference)
        if self.interval is None and (math.isfinite(self.difference) or self.samples < FEWEST):
            return "undecided" if self.difference else "no difference shown"
        if low <= 0 <= high:
            return "no difference shown"
        return "better" if (low > 0) == (metric.better == "higher") else "worse"


@dataclass(frozen=True)
class AccuracyComparison(Stored):
    """The accuracy of two runs.

    Attributes:
        method: how they were compared.
        caveats: why the two are not alike.
        rows: by candidate, output and metric.
    """

    method: str
    caveats: tuple[str, ...]
    rows: tuple[Change, ...]
    not_compared: tuple[NotMeasured, ...]


def compare_results(a: Results, b: Results) -> AccuracyComparison:
    """Compare two stored comparisons, candidate by candidate and output by output."""
    there = set(b.ids)
    common = [identity for identity in a.ids if identity in there]
    if not common:
        lacking = (NotMeasured("accuracy", "the two runs have no sample in common"),)
        return AccuracyComparison("nothing compared", tuple(_caveats(a, b, common)), (), lacking)
    caveats, missing = _caveats(a, b, common), dict[str, str]()
    rows: list[Change] = []
    outputs_a, outputs_b = _outputs(a, common), _outputs(b, common)
    for label, output in dict.fromkeys([*outputs_a, *outputs_b]):
        what = f"{label}, output '{output}'"
        sides = outputs_a.get((label, output)), outputs_b.get((label, output))
        first, second = sides
        if first is None or second is None:
            missing[what] = f"only in {'A' if second is None else 'B'}"
            continue
        if reason := _unlike(first, second):
            missing[what] = reason
            continue
        if not _same_reference(first, second):
            caveats.append(f"{label}: the reference itself answers otherwise in B: other weights or preprocessing")
        rows += _changes(label, output, common, first, second)
        for metric in sorted(_defined(first).keys() ^ _defined(second).keys()):
            missing[f"{what}: {metric}"] = f"only in {'A' if metric in _defined(first) else 'B'}"
    least = [f"{m.minimum_effect:g} {m.unit or m.name}" for m in METRICS.values() if m.minimum_effect]
    method = f"the same {len(common)} samples in both runs, paired; 95 % intervals of B - A"
    return AccuracyComparison(
        method=f"{method}; changes below {' or '.join(least)} do not count",
        caveats=tuple(dict.fromkeys(caveats)),
        rows=tuple(rows),
        not_compared=tuple(NotMeasured(what, reason) for what, reason in missing.items()),
    )


def _unlike(a: OutputColumns, b: OutputColumns) -> str:
    """Why two outputs of one name are not the same kind of output; empty when they are."""
    if a.classes != b.classes:
        return f"{a.classes} classes in A, {b.classes} in B"
    return "" if ("map" in a.kinds) == ("map" in b.kinds) else "a map in one run, none in the other"


def _defined(output: OutputColumns) -> dict[str, Metric]:
    """The metrics by which two runs can be compared, as far as an output has them."""
    first = [FINITE] if "finite" in output.columns else []
    return {m.name: m for m in (*first, *ordered(defined_by(output.columns))) if m.change}


def _outputs(results: Results, ids: list[str]) -> dict[tuple[str, str], OutputColumns]:
    """Per candidate and output the columns of the named samples, in that order."""
    place = {identity: i for i, identity in enumerate(results.ids)}
    rows = np.asarray([place[identity] for identity in ids], dtype=np.int64)
    return {
        (c.label, o.name): OutputColumns(o.name, o.classes, {n: v[rows] for n, v in o.columns.items()})
        for c in results.candidates
        for o in c.outputs
    }


def _caveats(a: Results, b: Results, common: list[str]) -> list[str]:
    found = [
        f"another {key}: {a.meta.get(key)} and {b.meta.get(key)}"
        for key in ("network", "data")
        if a.meta.get(key) != b.meta.get(key)
    ]
    found += [f"{side} is {results.partial}" for side, results in (("A", a), ("B", b)) if results.partial]
    if not len(a.ids) == len(b.ids) == len(common):
        found.append(f"other samples: {len(a.ids)} and {len(b.ids)}, of which {len(common)} are in both")
    elif _differs(a.meta.get("tensors_sha256"), b.meta.get("tensors_sha256")):
        found.append("samples of the same names gave other input tensors: other images or another preprocessing")
    if a.labels is not None and b.labels is not None:
        first, second = (dict(zip(r.ids, r.labels.tolist(), strict=True)) for r in (a, b))  # type: ignore[union-attr]
        if changed := [i for i in common if first[i] != second[i]]:
            found.append(f"other labels for {len(changed)} samples, first {changed[0]}")
    return found


def _differs(first: Any, second: Any) -> bool:
    """Whether both are known and not the same."""
    return first is not None and second is not None and first != second


def _same_reference(a: OutputColumns, b: OutputColumns) -> bool:
    """By the energies of its outputs, which are known where the candidate's are finite."""
    first, second = (side.columns.get("signal", np.ones(len(next(iter(side.columns.values()))))) for side in (a, b))
    known = np.isfinite(first) & np.isfinite(second)
    return bool(np.allclose(first[known], second[known], rtol=_SAME_REFERENCE, atol=0.0))


def _changes(label: str, output: str, ids: list[str], a: OutputColumns, b: OutputColumns) -> Iterator[Change]:
    """By every metric; all but those that count samples take those alone that are finite in both runs."""
    finite = _finite(a) & _finite(b)
    there = _defined(b)
    metrics = {n: m for n, m in _defined(a).items() if n in there and not (m is FINITE and finite.all())}
    infinite = set[str]()
    for metric in sorted(metrics.values(), key=lambda m: bool(m.instead_of)):
        used = finite | metric.counted
        if not used.any() or (metric.instead_of and metric.instead_of not in infinite):
            continue
        sides = [[side.columns[name][used] for name in metric.columns] for side in (a, b)]
        change = _change(label, output, metric, [ids[i] for i in np.flatnonzero(used)], *sides)
        if not (math.isfinite(change.a) or math.isfinite(change.b)):
            infinite.add(metric.name)
        yield change


def _finite(output: OutputColumns) -> np.ndarray:
    """Which samples are; of the tasks' rows each is, or is all NaN."""
    if "finite" in output.columns:
        return output.columns["finite"] > 0
    return np.all([np.isfinite(c.reshape(len(c), -1)).all(axis=1) for c in output.columns.values()], axis=0)


def _change(
    label: str, output: str, metric: Metric, ids: list[str], a: list[np.ndarray], b: list[np.ndarray]
) -> Change:
    assert metric.change is not None
    sure = metric.change(a, b)
    moved = lost_and_gained(a[0], b[0]) if metric.counted else ()
    lost, gained = (tuple(ids[i] for i in np.flatnonzero(which)[:_NAMED]) for which in moved) if moved else ((), ())
    first, second = (float(metric.reduce(*side)) for side in (a, b))
    return Change(label, output, metric.name, len(ids), first, second, *sure, lost, gained)
