"""The explanation of a failed comparison: a table of modules, and the fewest modules that restore the budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx

from csa_deploy.metrics.stream import SampleTable
from csa_deploy.records.localization import Localization, ModuleError
from csa_deploy.verify.localize.boundaries import Boundary, needed
from csa_deploy.verify.localize.case import Case, Cuts
from csa_deploy.verify.localize.measure import BoundaryErrors, Feeds, GraphSource, TrueValues, compare
from csa_deploy.verify.localize.quantized import Clipping, ranges
from csa_deploy.verify.localize.surgery import restore

STEPS = 4  # of progress
ZOOMS = 3  # modules that are taken apart after the memory cap left them whole
RESTORING_FAILS = "restoring modules does not bring the budget back"
UNLIMITED = "--localize takes the time that it needs"
NEGLIGIBLE = 1e-5  # relative error that floating-point order explains

Progress = Callable[[int, int], None]


def localize(case: Case, progress: Progress | None = None) -> Localization:
    """Explain the error of a candidate; see the package.

    Every module's own error is measured by feeding it the reference's values. Where the memory cap left modules
    together, the worst of them is taken apart. The modules are then restored to the reference's precision in the order
    of their error, and bisection finds the fewest that bring the budget back.
    """
    advance = progress or (lambda done, total: None)
    cuts, rows = _compared(case)
    advance(2, STEPS)
    modules = cuts.modules
    order = [row.module for row in rows if row.error_added > 0]
    outputs = case.outputs(case.candidate)
    failing = case.fails(outputs)
    culprits = _fewest(case, modules, order) if failing else ()
    advance(3, STEPS)
    tried = list(dict.fromkeys([*culprits, *order]))[: case.tried]
    gains = {}
    for module in tried:
        if case.late:
            break
        gains[module] = _snr(case.outputs(restore(case.candidate, case.reference, modules, [module])))
    rows = tuple(replace(row, restored_snr_db=gains.get(row.module)) for row in rows)
    advance(4, STEPS)
    if case.late:
        case.not_done.append(f"cut short: restoring was tried on {len(gains)} modules alone; {UNLIMITED}")
    elif len(order) > len(tried):
        case.not_done.append(f"restoring was tried on the {len(tried)} modules that add the largest errors")
    return Localization(
        case.label,
        case.compared_with,
        case.samples,
        _snr(outputs),
        rows,
        culprits,
        _statement(case, rows, culprits, failing),
        tuple(case.not_done),
        tuple(b.tensor for b in cuts.bounds) if case.survivors is not None else (),
    )


def _compared(case: Case) -> tuple[Cuts, tuple[ModuleError, ...]]:
    """The division of the graph, and its modules' errors: as fine as memory allows, finer where the error is."""
    cuts = case.cuts()
    rows = _rows(case, cuts.bounds, cuts.bounds)
    if cuts.depth is None:
        return cuts, rows
    apart: list[str] = []
    while len(apart) < ZOOMS and rows and rows[0].error_added > NEGLIGIBLE:
        closer = case.finer(cuts, rows[0].module)
        if closer is None:
            break
        apart.append(rows[0].module)
        cuts, own = closer
        inner = {b.module for b in own}
        fresh = [r for r in _rows(case, needed(own, cuts.bounds), own) if r.module in inner]
        rows = _ordered([*rows[1:], *fresh])
    said = f"; {', '.join(apart)}, where the error is, was taken apart" if apart else ""
    case.not_done.append(
        f"modules below depth {cuts.depth} were not told apart: their tensors exceed the memory cap{said}"
    )
    return cuts, rows


def _rows(case: Case, bounds: Sequence[Boundary], shown: Sequence[Boundary]) -> tuple[ModuleError, ...]:
    clipping: dict[str, Clipping] = {}

    def source(tensors: Sequence[str]) -> TrueValues:
        return _Watching(GraphSource(case.reference, tensors, case.threads), case.candidate, clipping)

    comparison = compare(source, case.candidate, bounds, case.feeds, case.executes(), case.cap)
    return rows_of(shown, comparison, clipping)


class _Watching:
    """A source that also looks at how much of its values the candidate's quantization clips."""

    def __init__(self, source: GraphSource, candidate: onnx.ModelProto, clipping: dict[str, Clipping]) -> None:
        self.source, self.clipping = source, clipping
        self.ranges = ranges(candidate, source.tensors)

    def values(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """See :class:`csa_deploy.verify.localize.measure.TrueValues`."""
        found = self.source.values(feeds)
        for name, given in self.ranges.items():
            self.clipping.setdefault(name, Clipping()).add(found[name], given)
        return found


def rows_of(
    bounds: Sequence[Boundary], comparison: BoundaryErrors, clipping: Mapping[str, Clipping]
) -> tuple[ModuleError, ...]:
    """One row per module, from all tensors that leave it; largest added error first, then in order of execution."""
    grouped: dict[str, list[Boundary]] = {}
    for bound in bounds:
        grouped.setdefault(bound.module, []).append(bound)
    rows = []
    for module, own in grouped.items():
        before = {t for b in own for t in b.before} - {b.tensor for b in own}
        clipped = max((clipping[t] for t in before if t in clipping), key=lambda c: c.share, default=None)
        rows.append(
            ModuleError(
                module,
                max((comparison.accumulated[t].relative for t in before), default=0.0),
                max(comparison.accumulated[b.tensor].relative for b in own),
                max(comparison.added[b.tensor].relative for b in own),
                next((d.broken for b in own if (d := comparison.added[b.tensor]).broken), ""),
                clipped=clipped.share if clipped else None,
                largest=clipped.largest if clipped else None,
                limit=clipped.limit if clipped else None,
            )
        )
    return _ordered(rows)


def _ordered(rows: Iterable[ModuleError]) -> tuple[ModuleError, ...]:
    return tuple(sorted(rows, key=lambda row: -row.error_added))


def _fewest(case: Case, modules: dict[str, str], order: Sequence[str]) -> tuple[str, ...]:
    """The shortest beginning of ``order`` whose restoration brings the budget back, by bisection; () if none does."""

    def restores(count: int) -> bool:
        return not case.fails(case.outputs(restore(case.candidate, case.reference, modules, order[:count])))

    if case.late or not order or not restores(len(order)):
        return ()
    low, high = 0, len(order)
    while high - low > 1:
        if case.late:
            case.not_done.append(f"cut short: fewer modules than the {high} that were restored may do; {UNLIMITED}")
            break
        middle = (low + high) // 2
        low, high = (low, middle) if restores(middle) else (middle, high)
    return tuple(order[:high])


def _snr(outputs: Mapping[str, SampleTable]) -> float:
    """The lowest signal-to-noise ratio of any output."""
    return min(ratio for metrics in outputs.values() if (ratio := metrics.values().get("snr_db")) is not None)


def these(samples: Sequence[str]) -> str:
    """The samples that an explanation rests on, in words."""
    return "its worst sample" if len(samples) == 1 else f"its {len(samples)} worst samples"


def _statement(case: Case, rows: Sequence[ModuleError], culprits: Sequence[str], failing: bool) -> str:
    where = these(case.samples)
    if culprits:
        listed = ", ".join(culprits[:5]) + (f" and {len(culprits) - 5} more" if len(culprits) > 5 else "")
        reasons = {row.module: row.reason for row in rows}
        said = f" ({reasons[culprits[0]]})" if reasons[culprits[0]] else ""
        restored = "all of them restored" if len(culprits) > 1 else "restored"
        return (
            f"{listed}{said}: {restored} to {case.compared_with}, {case.label} is within its budget on {where}; "
            "it was tried on no other"
        )
    if not failing and case.broken:
        return (
            f"{case.label} breaks its budget over all samples ({', '.join(case.broken)}), but not on {where} alone: "
            "they name no module to restore"
        )
    if not failing:
        return f"{case.label} agrees with {case.compared_with} within its budget on {where}"
    if not rows or rows[0].error_added <= NEGLIGIBLE:
        return (
            f"no module of {case.label} adds a relative error above {NEGLIGIBLE:g} to {case.compared_with} on {where}: "
            "the error is spread over them, or in what both have in common"
        )
    tried = "which modules to restore was not found out in time" if case.late else RESTORING_FAILS
    return f"{rows[0].module} adds the largest error on {where}; {tried}"
