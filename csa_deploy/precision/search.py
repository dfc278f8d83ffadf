"""Mixed precision: returns layers to floating point until the accuracy budget holds.

Layers go back in the order of accuracy lost per time saved (of accuracy lost alone where the time is not known), so the
choice is one number: how many. It is doubled until the budget holds, then bisected. The budget is the accuracy gate's,
on every output. Everything is measured on calibration images, never on those that accuracy is reported on, and no step
depends on the clock or on chance: the same inputs give the same graph.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from csa_deploy.metrics.table import METRICS, worst_values
from csa_deploy.metrics.task import Measured
from csa_deploy.precision.activations import Feeds
from csa_deploy.precision.cost import ORIN, Work, latency, milliseconds
from csa_deploy.precision.judging import Outputs, broken, compare, unjudged
from csa_deploy.precision.measurement_cache import MeasurementCache
from csa_deploy.precision.sensitivity import agreement, in_order
from csa_deploy.precision.toggled_graph import Switchable
from csa_deploy.records.precision import Search, SearchPoint, Sensitivity
from csa_deploy.verify.gate import require_outputs


def search(
    network: Switchable,
    samples: Sequence[Feeds],
    targets: Sequence[Sequence[Any]] | None,
    budget: Mapping[str, float],
    costs: Mapping[str, Work],
    order: Callable[[], list[Sensitivity]],
    *,
    rest: str = "fp16",
    cache: MeasurementCache | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    asked: Collection[str] = (),
    tasks: Sequence[Measured] = (),
) -> Search:
    """Find the fewest layers to return.

    Args:
        network: the layers, to switch.
        samples: network inputs.
        targets: what the data say of each sample, a batch each, where known.
        budget: bounds by metric, held on every output that they are defined for.
        costs: of every node.
        order: makes the sensitivities; called only when not all layers can stay INT8.
        rest: precision of what is not INT8.
        cache: what an interrupted search measured.
        progress: called with (choices measured, the most that there may be).
        asked: keys of the budget that were asked for.
        tasks: task metrics to measure.

    Raises:
        UsageError: the budget names an output that is not there.
    """
    cache = cache or MeasurementCache()
    names = [layer.name for layer in network.layers]
    exact: list[Outputs] = [network.run(feeds, ()) for feeds in samples]
    images = sum(len(next(iter(outputs.values()))) for outputs in exact)
    require_outputs(budget, list(exact[0]), "int8")
    points: dict[int, SearchPoint] = {}
    ranked: list[Sensitivity] = []
    left: dict[str, str] = {}

    def measured(count: int) -> SearchPoint:
        if count not in points:
            gone = {s.name for s in ranked[:count]}
            int8 = [name for name in names if name not in gone]
            metrics = cache.of(
                f"without {','.join(sorted(gone))}",
                lambda: compare(exact, [network.run(feeds, int8) for feeds in samples], targets, tasks),
            )
            seconds = latency(costs, frozenset(int8), rest)
            found = {n: v for n, v in worst_values(list(metrics.values())).items() if METRICS[n].budget}
            points[count] = SearchPoint(count, found, broken(metrics, budget, images), milliseconds(seconds))
            left.update(unjudged(metrics, budget, images, asked))
            if ranked:  # the first choice only says whether there is anything to search
                progress(len(points), 2 * len(names).bit_length() + 2)
        return points[count]

    chosen = 0
    if not measured(0).holds:
        ranked = in_order(order())
        chosen = _fewest(lambda count: measured(count).holds, len(names))
        measured(len(names))
    return Search(
        pareto=tuple(points[count] for count in sorted(points)),
        sensitivities=tuple(ranked),
        estimate_agrees=agreement(ranked),
        returned=tuple(s.name for s in ranked[:chosen]),
        images=images,
        budget={key: bound for key, bound in budget.items() if key.rpartition(".")[2] in points[0].metrics},
        not_judged=left,
        outputs=len(exact[0]),
        device=ORIN.name,
    )


def _fewest(holds: Callable[[int], bool], most: int) -> int:
    """The smallest number that holds, given that 0 does not and that more never hold less."""
    low, high = 0, 1
    while high < most and not holds(high):
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
