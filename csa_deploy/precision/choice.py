"""Chooses, by evidence from calibration images, which layers are INT8 and whether their biases are corrected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from csa_deploy.data.base import choose
from csa_deploy.precision.bias_correction import correct_biases
from csa_deploy.precision.cost import latency, node_costs
from csa_deploy.precision.placement import Placement
from csa_deploy.precision.search import Feeds, SearchResult, compare, search
from csa_deploy.precision.sensitivity import Sensitivity, estimate, measure
from csa_deploy.precision.switch import Switchable

if TYPE_CHECKING:
    from csa_deploy.pipeline import Context
    from csa_deploy.precision.calibration_data import CalibrationData
    from csa_deploy.precision.int8_stage import Calibrated

SEARCH_IMAGES = 32
_INFERENCES = 256  # of the sensitivity measurement: a bound on its time that does not depend on the clock
_BETTER = 0.1  # dB of signal-to-noise that a technique has to bring


@dataclass(frozen=True)
class Choice:
    """What to write.

    Attributes:
        model: FP32 graph to quantize, biases corrected where that pays.
        kept: layers that go back to floating point, with the reason.
        search: the search's result; None where it was switched off.
        bias_correction: signal-to-noise in dB without and with it, and whether it is used.
        latency_ms: estimate by the cost model, for this graph and for FP16 throughout.
    """

    model: onnx.ModelProto
    kept: dict[str, str]
    search: SearchResult | None
    bias_correction: dict[str, Any]
    latency_ms: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """JSON form, without the model."""
        return {
            "search": self.search.to_json() if self.search else {"not_done": "switched off with --no-search"},
            "techniques": {"bias_correction": self.bias_correction},
            "estimated_latency_ms": self.latency_ms,
        }


def choose_layers(context: Context, model: onnx.ModelProto, calibration: Calibrated, rest: str) -> Choice:
    """Search, then try bias correction on what the search chose."""
    config = context.config
    placement = calibration.placement.without(config.keep_fp32)
    samples, labels = search_samples(calibration.data, _shapes(model), SEARCH_IMAGES)
    costs = node_costs(model)
    network = Switchable(model, placement, calibration.thresholds, threads=config.threads)

    def sensitivities() -> list[Sensitivity]:
        few = samples[: max(1, _INFERENCES // max(1, len(network.layers)))]
        measured = measure(network, few, context.progress)
        estimated = estimate(model, network.layers, calibration.statistics.histograms, calibration.thresholds)
        return [
            Sensitivity(
                layer.name,
                layer.op,
                measured[layer.name],
                estimated[layer.name],
                costs[layer.name].seconds(rest) - costs[layer.name].seconds("int8"),
            )
            for layer in network.layers
        ]

    found = None
    if config.search:
        found = search(network, samples, labels, _budget(context), costs, sensitivities, rest=rest)
    kept = dict.fromkeys(found.returned if found else (), "returned by the search to hold the accuracy budget")
    chosen = placement.without(kept)
    corrected, evidence = _bias_correction(network, model, chosen, calibration, samples, config.threads)
    int8 = frozenset(layer.name for layer in network.layers) - frozenset(kept)
    estimates = {"int8": 1000 * latency(costs, int8, rest), rest: 1000 * latency(costs, frozenset(), rest)}
    return Choice(corrected, kept, found, evidence, estimates)


def _budget(context: Context) -> dict[str, float]:
    """The budget to hold, without agreement on the first class where the network is untrained and that is chance."""
    entry = context.source.entry
    untrained = entry is not None and not entry.pretrained and context.checkpoint is None
    return {m: b for m, b in context.config.bounds("int8").items() if not (untrained and m == "top1_agreement")}


def _bias_correction(
    network: Switchable,
    model: onnx.ModelProto,
    placement: Placement,
    calibration: Calibrated,
    samples: list[Feeds],
    threads: int | None,
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """The graph with corrected biases and the evidence, or as it was where that is not better."""
    names = [layer.name for layer in placement.layers if layer.name in {known.name for known in network.layers}]
    if not names:
        return model, {"used": False, "reason": "no layer is INT8"}
    corrected = correct_biases(model, placement, calibration.thresholds, samples, threads=threads)
    candidate = Switchable(corrected, placement, calibration.thresholds, threads=threads)
    exact = [network.run(feeds, ()) for feeds in samples]
    without, with_ = (
        compare(exact, [graph.run(feeds, names) for feeds in samples], None)["snr_db"] for graph in (network, candidate)
    )
    used = with_ > without + _BETTER
    return corrected if used else model, {"used": used, "snr_db_without": without, "snr_db_with": with_}


def search_samples(
    data: CalibrationData, shapes: dict[str, tuple[int, ...]], count: int
) -> tuple[list[Feeds], np.ndarray | None]:
    """Up to ``count`` calibration samples, evenly spread, as full batches, with their labels where all have one."""
    size = next(iter(shapes.values()))[0]
    batches = list(data.batches(size, choose(len(data), min(count, len(data)), None)))
    labels = [batch.filled_labels(size) for batch in batches]
    known = [label for label in labels if label is not None]
    return [b.filled(shapes) for b in batches], np.concatenate(known) if len(known) == len(batches) else None


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    weights = {t.name for t in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    return {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in inputs}
