"""Chooses, by evidence from calibration images, which techniques are used and which layers are INT8."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import onnx

from csa_deploy.data.base import Dataset, choose
from csa_deploy.precision.activations import Feeds
from csa_deploy.precision.calibration import Statistics, calibrate
from csa_deploy.precision.cost import latency, milliseconds, node_costs, not_known
from csa_deploy.precision.measurement_cache import MeasurementCache
from csa_deploy.precision.phases import MEASURING, SEARCHING, Phases
from csa_deploy.precision.propagation import propagated
from csa_deploy.precision.search import search
from csa_deploy.precision.sensitivity import measure
from csa_deploy.precision.techniques import EvaluationContext, Plan, try_techniques
from csa_deploy.precision.thresholds import METHODS, PUBLISHED, USUAL_METHOD, Method
from csa_deploy.precision.toggled_graph import Switchable
from csa_deploy.records.precision import Search, Sensitivity, TechniqueFinding
from csa_deploy.runners.base import filled
from csa_deploy.tasks.plugins import fingerprints

if TYPE_CHECKING:
    from csa_deploy.context import Context
    from csa_deploy.precision.int8_stage import Calibrated
    from csa_deploy.spec import Sampling

_LOG = logging.getLogger(__name__)
UNFINISHED_SEARCH = "calibration/unfinished-search.json"
UNFINISHED_EQUALIZED = "calibration/unfinished-equalized.npz"
UNTRAINED = "the network is not known to be trained, so that its strongest classes are nearly tied"
HELD_IMAGES = 32
FITTED_IMAGES = 64
_INFERENCES = 256  # of the sensitivity measurement: a bound on its time that does not depend on the clock


@dataclass(frozen=True)
class Selection:
    """What to write.

    Attributes:
        plan: FP32 graph to quantize and how, with the techniques that pay.
        kept: layers that go back to floating point, with the reason.
        search: the search's result; None where it was switched off.
        techniques: what was found about each.
        latency_ms: estimate by the cost model, for this graph and for FP16 throughout; None where a cost is not known.
        cost_unknown: nodes whose cost is not known.
    """

    plan: Plan
    kept: dict[str, str]
    search: Search | None
    techniques: dict[str, TechniqueFinding]
    latency_ms: dict[str, float | None]
    cost_unknown: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """What the accuracy gate has to judge alone."""
        left = self.search.not_judged if self.search else {}
        return [f"not judged in the search: {metric} ({reason})" for metric, reason in left.items()]


@dataclass(frozen=True)
class SearchSamples:
    """Calibration samples as full batches, with what the data say of each where they do of all."""

    feeds: list[Feeds]
    targets: list[Sequence[Any]]

    def __post_init__(self) -> None:
        assert len(self.targets) in (0, len(self.feeds))

    def only(self, indices: Sequence[int]) -> SearchSamples:
        """Some of the batches."""
        return SearchSamples(
            [self.feeds[i] for i in indices], [self.targets[i] for i in indices] if self.targets else []
        )


def _other_ranges(calibration: Calibrated) -> dict[Method, dict[str, float]]:
    """Thresholds of the methods that may take the place of the usual one; another one was asked for by name."""
    if calibration.method != USUAL_METHOD or calibration.dla is not None:
        return {}
    return {name: calibration.statistics.thresholds(name) for name in METHODS if name != PUBLISHED}


def choose_layers(
    context: Context, model: onnx.ModelProto, calibration: Calibrated, rest: str, phases: Phases
) -> Selection:
    """Try the techniques on all layers in INT8, then search with those that pay."""
    config = context.config
    sampling = context.sampling
    size = sampling.batch or 1
    samples = read_samples(calibration.data, sampling, HELD_IMAGES + FITTED_IMAGES)
    if context.task is not None and calibration.data.task != context.task.kind:
        samples = SearchSamples(samples.feeds, [])  # what they say is of another task
    held, fitted = split(len(samples.feeds))

    def recalibrate(changed: onnx.ModelProto, tensors: tuple[str, ...]) -> Statistics:
        return calibrate(
            changed,
            calibration.data,
            tensors,
            threads=config.threads,
            unfinished=context.path(UNFINISHED_EQUALIZED),
            progress=phases.of("equalization"),
        )

    evaluation = EvaluationContext(
        fitted=samples.only(fitted).feeds,
        held=samples.only(held).feeds,
        recalibrate=recalibrate,
        method=calibration.method,
        half_scales=rest == "fp16",
        seed=config.seed,
        threads=config.threads,
        progress=phases.of,
    )
    placement = calibration.placement.without(calibration.kept.floating)
    plan = Plan(
        model, placement, calibration.thresholds, calibration.statistics.largest, ranges=_other_ranges(calibration)
    )
    plan, findings = try_techniques(plan, config.techniques, evaluation)
    costs = node_costs(model)
    network = plan.switchable(config.threads)
    # Those that nothing was fitted to come first; with few images the others make up the number.
    searched = samples.only(list(dict.fromkeys([*held, *fitted]))[: max(1, HELD_IMAGES // size)])

    key = [plan.fingerprint(searched.feeds), *fingerprints(config.code).values()]
    cache = MeasurementCache(context.path(UNFINISHED_SEARCH), " ".join(key))

    def sensitivities() -> list[Sensitivity]:
        few = searched.feeds[: max(1, _INFERENCES // max(1, len(network.layers)))]
        measured = measure(network, few, phases.of(MEASURING), cache)
        estimated = _estimated(plan, network, few, config.threads)
        return [
            Sensitivity(
                layer.name,
                layer.op,
                measured[layer.name],
                estimated.get(layer.name),
                costs[layer.name].saved(rest),
            )
            for layer in network.layers
        ]

    found = None
    if config.search and calibration.dla is None:
        budget = budget_of(context)
        found = search(
            network,
            searched.feeds,
            searched.targets or None,
            budget,
            costs,
            sensitivities,
            rest=rest,
            cache=cache,
            progress=phases.of(SEARCHING),
            asked=config.asked("int8"),
            tasks=context.tasks(),
        )
        found.not_judged.update(dict.fromkeys(set(context.config.bounds("int8")) - set(budget), UNTRAINED))
    kept = dict.fromkeys(found.returned if found else (), "returned by the search to hold the accuracy budget")
    int8 = frozenset(layer.name for layer in network.layers) - frozenset(kept)
    estimates = {
        name: milliseconds(latency(costs, nodes, rest)) for name, nodes in (("int8", int8), (rest, frozenset()))
    }
    return Selection(plan, kept, found, findings, estimates, not_known(costs))


def _estimated(plan: Plan, network: Switchable, samples: list[Feeds], threads: int | None) -> dict[str, float]:
    """The estimate that stands beside the measurement; none where it fails, as the search does not need it."""
    try:
        return propagated(plan.model, network.layers, plan.thresholds, samples, threads=threads)
    except Exception as error:
        _LOG.warning("the sensitivities were measured and not estimated, which failed: %s", error)
        _LOG.debug("the estimate's failure", exc_info=error)
        return {}


def budget_of(context: Context) -> dict[str, float]:
    """The budget to hold, without agreement on the first class where the network is untrained and that is chance."""
    entry = context.source.entry
    untrained = entry is not None and not entry.pretrained and context.checkpoint is None
    bounds = context.config.bounds("int8").items()
    return {key: b for key, b in bounds if not (untrained and key.rpartition(".")[2] == "top1_agreement")}


def split(batches: int) -> tuple[list[int], list[int]]:
    """Two runs of a sixth each to judge techniques on, and the others to fit them to; a single batch is both.

    Runs, as neighbours in a folder are often alike: frames of a film, or views of one scene.
    """
    held = [index for index in range(batches) if 6 * index // batches in (1, 4)] or [0]
    return held, [index for index in range(batches) if index not in held] or held


def read_samples(data: Dataset, sampling: Sampling, count: int) -> SearchSamples:
    """Up to ``count`` calibration samples, evenly spread, as the network takes them.

    A batch is filled up only where there is no other: a sample that stands in it many times would be as many samples
    of evidence.
    """
    size = sampling.batch or 1
    batches = list(data.batches(size, indices=choose(len(data), count, None)))
    batches = [batch for batch in batches if len(batch) == size] or batches
    known: list[Sequence[Any]] = [
        [*truth, *[truth[-1]] * (size - len(truth))] for batch in batches if (truth := batch.truth) is not None
    ]
    feeds = [sampling.network(filled(batch.feed(sampling.shapes), size)) for batch in batches]
    return SearchSamples(feeds, known if len(known) == len(batches) else [])
