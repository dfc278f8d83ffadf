"""Mixed precision: returns layers to floating point until the accuracy budget holds.

Layers go back in the order of accuracy lost per time saved (of accuracy lost alone where the time is not known), so the
choice is one number: how many. It is doubled until the budget holds, then bisected. The budget is the accuracy gate's,
on every output. Everything is measured on calibration images, never on those that accuracy is reported on, and no step
depends on the clock or on chance: the same inputs give the same graph.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from csa_deploy.metrics.table import METRICS, worst_values
from csa_deploy.metrics.task import Measured
from csa_deploy.precision.activations import Feeds
from csa_deploy.precision.cost import ORIN, Work, latency, milliseconds
from csa_deploy.precision.judging import Outputs, broken, compare, unjudged
from csa_deploy.precision.measurement_cache import Recall
from csa_deploy.precision.sensitivity import Sensitivity, in_order, rank_correlation
from csa_deploy.precision.toggled_graph import Switchable
from csa_deploy.verify.gate import require_outputs


@dataclass(frozen=True)
class SearchPoint:
    """One choice of layers.

    Attributes:
        returned: number of layers in floating point.
        metrics: measured on the search images against FP32; of several outputs the worst.
        broken: bounds that do not hold there, in words.
        latency_ms: estimated by the cost model; None where the cost of a node is not known.
    """

    returned: int
    metrics: dict[str, float]
    broken: tuple[str, ...]
    latency_ms: float | None

    @property
    def holds(self) -> bool:
        """Whether the budget holds."""
        return not self.broken

    def to_json(self) -> dict[str, Any]:
        """JSON form."""
        return {**asdict(self), "holds": self.holds}


@dataclass(frozen=True)
class SearchResult:
    """What the search found.

    Attributes:
        points: every choice that was measured, by number of returned layers.
        sensitivities: of the layers, in the order in which they go back; empty where all of them could stay INT8.
        returned: layers chosen for floating point.
        images: number of search images.
        budget: the bounds that were held.
        unjudged: bounds that could not be, with the reason: the accuracy gate judges them alone.
        outputs: number of outputs that were judged.
        device: of the cost model.
    """

    points: tuple[SearchPoint, ...]
    sensitivities: tuple[Sensitivity, ...]
    returned: tuple[str, ...]
    images: int
    budget: dict[str, float] = field(default_factory=dict)
    unjudged: dict[str, str] = field(default_factory=dict)
    outputs: int = 1
    device: str = ORIN.name

    @property
    def agreement(self) -> float | None:
        """Rank correlation of measured and estimated sensitivity."""
        estimated = [s.estimated for s in self.sensitivities if s.estimated is not None]
        if not estimated or len(estimated) < len(self.sensitivities):
            return None
        return rank_correlation([s.measured for s in self.sensitivities], estimated)

    def to_json(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "pareto": [p.to_json() for p in self.points],
            "sensitivities": [s.to_json() for s in self.sensitivities],
            "estimate_agrees": self.agreement,
            "returned": list(self.returned),
            "images": self.images,
            "budget": self.budget,
            "not_judged": self.unjudged,
            "outputs": self.outputs,
            "device": self.device,
            "latency_is": f"estimated for {self.device} by operations and bytes, without fusions",
        }


def search(
    network: Switchable,
    samples: Sequence[Feeds],
    targets: Sequence[Sequence[Any]] | None,
    budget: Mapping[str, float],
    costs: Mapping[str, Work],
    order: Callable[[], list[Sensitivity]],
    *,
    rest: str = "fp16",
    recall: Recall | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    asked: Collection[str] = (),
    tasks: Sequence[Measured] = (),
) -> SearchResult:
    """Find the fewest layers to return.

    Args:
        network: the layers, to switch.
        samples: network inputs.
        targets: what the data say of each sample, a batch each, where known.
        budget: bounds by metric, held on every output that they are defined for.
        costs: of every node.
        order: makes the sensitivities; called only when not all layers can stay INT8.
        rest: precision of what is not INT8.
        recall: what an interrupted search measured.
        progress: called with (choices measured, the most that there may be).
        asked: keys of the budget that were asked for.
        tasks: task metrics to measure.

    Raises:
        UsageError: the budget names an output that is not there.
    """
    recall = recall or Recall()
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
            metrics = recall.of(
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
    return SearchResult(
        points=tuple(points[count] for count in sorted(points)),
        sensitivities=tuple(ranked),
        returned=tuple(s.name for s in ranked[:chosen]),
        images=images,
        budget={key: bound for key, bound in budget.items() if key.rpartition(".")[2] in points[0].metrics},
        unjudged=left,
        outputs=len(exact[0]),
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
