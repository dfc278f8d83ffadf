"""Techniques that need no retraining, each kept where it is better on calibration images that it was not fitted to.

Better means by more than chance: the gain in dB is taken image by image, and its mean has to be twice its standard
error. With several outputs it is the worst output of an image that has to gain, as it is the one that breaks a budget.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import onnx

from csa_deploy.metrics.distance import decibels
from csa_deploy.precision.activations import Feeds
from csa_deploy.precision.bias_correction import corrected_biases
from csa_deploy.precision.calibration import Statistics
from csa_deploy.precision.equalization import equalize, find_groups, largest_by_channel
from csa_deploy.precision.qdq import NOTHING, Adjustments
from csa_deploy.precision.qdq_placement import QdqPlacement, place
from csa_deploy.precision.sensitivity import floating
from csa_deploy.precision.thresholds import Method
from csa_deploy.precision.toggled_graph import Switchable
from csa_deploy.precision.weight_rounding import round_weights
from csa_deploy.records.precision import TechniqueFinding

_LOG = logging.getLogger(__name__)
BETTER = 0.1
"""dB of signal-to-noise ratio that a technique has to bring in the mean over images."""
_STANDARD_ERRORS = 2.0
RANGED_IMAGES = 16
"""Calibration images on which methods of thresholds are compared."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Plan:
    """An INT8 graph in the making.

    Attributes:
        model: FP32 graph.
        placement: what runs in INT8.
        thresholds: by activation.
        largest: measured largest value by activation.
        adjustments: weights and biases of INT8 layers that are not the plain ones.
        method: of the thresholds; None where it is the one that was asked for.
        ranges: thresholds by other methods, which may be taken instead.
        limits: see :class:`csa_deploy.precision.equalization.Equalized`.
        equalized: tensors whose channels were equalized.
    """

    model: onnx.ModelProto
    placement: QdqPlacement
    thresholds: dict[str, float]
    largest: dict[str, float]
    adjustments: Adjustments = NOTHING
    method: Method | None = None
    ranges: Mapping[Method, dict[str, float]] = field(default_factory=dict)
    limits: Mapping[str, np.ndarray] = field(default_factory=dict)
    equalized: frozenset[str] = frozenset()

    def switchable(self, threads: int | None) -> Switchable:
        """The network with these INT8 layers to switch."""
        return Switchable(self.model, self.placement, self.thresholds, threads=threads, adjustments=self.adjustments)

    def fingerprint(self, samples: Sequence[Feeds]) -> str:
        """SHA-256 over what decides the outputs: graph, layers, thresholds, adjustments and samples."""
        digest = hashlib.sha256(self.model.SerializeToString(deterministic=True))
        digest.update(repr((self.placement, sorted(self.thresholds.items()))).encode())
        arrays: list[tuple[str, np.ndarray]] = list(self.adjustments.biases.items())
        arrays += [(str(key), weight.values) for key, weight in self.adjustments.weights.items()]
        arrays += [(name, array) for feeds in samples for name, array in feeds.items()]
        for name, array in arrays:
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class _Errors:
    """Energies of the outputs and of their errors, (outputs, images)."""

    signal: np.ndarray
    noise: np.ndarray

    @property
    def snr_db(self) -> float:
        return float(decibels(self.signal.sum(axis=1), self.noise.sum(axis=1)).min())

    def gains(self, better: _Errors) -> np.ndarray:
        """dB of another one over this one by image, each at its worst output."""
        return better._worst() - self._worst()

    def _worst(self) -> np.ndarray:
        tiny = np.finfo(np.float64).tiny
        smallest = np.finfo(np.float32).eps ** 2 * self.signal + tiny
        return np.asarray(decibels(np.maximum(self.signal, tiny), np.maximum(self.noise, smallest)).min(axis=0))


@dataclass(frozen=True)
class EvaluationContext:
    """What the techniques work with.

    Attributes:
        fitted: samples to fit to.
        held: samples to judge on.
        recalibrate: statistics of some tensors of a changed graph, over all calibration images.
        method: of the thresholds that is asked for.
        half_scales: whether scales must be representable in FP16.
        seed: of every draw.
        threads: of ONNX Runtime.
        progress: of a technique by its name, in words.
    """

    fitted: Sequence[Feeds]
    held: Sequence[Feeds]
    recalibrate: Callable[[onnx.ModelProto, tuple[str, ...]], Statistics]
    method: Method
    half_scales: bool
    seed: int = 0
    threads: int | None = None
    progress: Callable[[str], Progress | None] = lambda technique: None


def try_techniques(
    plan: Plan, wanted: Sequence[str], evaluation: EvaluationContext
) -> tuple[Plan, dict[str, TechniqueFinding]]:
    """Try the wanted techniques one after the other, each on top of those that were kept.

    Returns:
        The plan with what is kept, and a finding for every technique by name.
    """
    findings = dict.fromkeys(TECHNIQUES, TechniqueFinding(False, "not asked for: left out of --techniques"))
    if not plan.placement.layers:
        return plan, dict.fromkeys(TECHNIQUES, TechniqueFinding(False, "no layer is INT8"))
    without = _errors(plan, evaluation.held, evaluation.threads)
    for name in (name for name in TECHNIQUES if name in wanted):
        try:
            candidate, reason = TECHNIQUES[name](plan, evaluation)
            with_ = _errors(candidate, evaluation.held, evaluation.threads) if candidate else without
        except Exception as error:  # nothing depends on a technique: what calibration found is not given up for it
            findings[name] = TechniqueFinding(False, f"it failed: {type(error).__name__}: {error}")
            _LOG.warning("%s is not used, it failed: %s", name.replace("_", " "), error)
            _LOG.debug("the technique's failure", exc_info=error)
            continue
        findings[name] = _judged(without, with_, reason) if candidate else TechniqueFinding(False, reason)
        if candidate and findings[name].used:
            plan, without = candidate, with_
    return plan, findings


def worst_snr_db(plan: Plan, samples: Sequence[Feeds], threads: int | None) -> float:
    """Signal-to-noise ratio of the worst output with all layers in INT8."""
    return _errors(plan, samples, threads).snr_db


def _errors(plan: Plan, samples: Sequence[Feeds], threads: int | None) -> _Errors:
    """Of all layers in INT8."""
    network = plan.switchable(threads)
    names = [layer.name for layer in network.layers]
    signal, noise = [], []
    for feeds in samples:
        exact, got = floating(network.run(feeds, ())), network.run(feeds, names)
        signal.append([_energies(array) for array in exact.values()])
        noise.append([_energies(got[name] - array) for name, array in exact.items()])
    return _Errors(np.concatenate(signal, axis=1), np.concatenate(noise, axis=1))


def _energies(array: np.ndarray) -> np.ndarray:
    """Sum of squares by sample."""
    return np.asarray((array.reshape(len(array), -1) ** 2).sum(axis=1))


def _judged(without: _Errors, with_: _Errors, reason: str) -> TechniqueFinding:
    gains = without.gains(with_)
    mean = float(gains.mean())
    error = float(gains.std(ddof=1)) / math.sqrt(len(gains)) if len(gains) > 1 else None
    used = error is not None and mean > max(BETTER, _STANDARD_ERRORS * error)
    return TechniqueFinding(used, reason, without.snr_db, with_.snr_db, mean, error, len(gains))


def best_ranges(
    plan: Plan, ranges: Mapping[Method, dict[str, float]], usual: Method, samples: Sequence[Feeds], threads: int | None
) -> tuple[Method, dict[str, float]]:
    """The method whose thresholds keep most of the worst output, and dB by method.

    Args:
        plan: graph and placement.
        ranges: thresholds by method.
        usual: taken unless another one is better by :data:`BETTER`.
        samples: what to compare on.
        threads: of ONNX Runtime.
    """
    found: dict[str, float] = {
        name: worst_snr_db(replace(plan, thresholds=t), samples, threads) for name, t in ranges.items()
    }
    best = max(ranges, key=lambda name: found[name])
    return (best if found[best] > found[usual] + BETTER else usual), found


def _range_choice(plan: Plan, evaluation: EvaluationContext) -> tuple[Plan | None, str]:
    """The thresholds of another method: which one suits a network is not known beforehand."""
    ranges = {**plan.ranges, evaluation.method: plan.thresholds}
    if plan.placement.scales or len(ranges) == 1:
        return None, "ranges are chosen with the scales that tensors share"
    samples = evaluation.fitted[:RANGED_IMAGES]
    method, found = best_ranges(plan, ranges, evaluation.method, samples, evaluation.threads)
    stated = ", ".join(f"{name} {db:.1f}" for name, db in sorted(found.items(), key=lambda item: -item[1]))
    reason = f"{method}; signal-to-noise ratio in dB: {stated}"
    if method == evaluation.method:
        return None, reason
    return replace(plan, thresholds=ranges[method], method=method), reason


def _equalization(plan: Plan, evaluation: EvaluationContext, *, limited: bool) -> tuple[Plan | None, str]:
    if plan.placement.scales:
        return None, "scales that tensors share fix their channels, too"
    groups = find_groups(plan.model, plan.thresholds, limited=limited, done=plan.equalized)
    if not groups.found:
        return None, groups.describe()
    largest = largest_by_channel(plan.model, groups, evaluation.fitted, threads=evaluation.threads)
    equalized = equalize(plan.model, groups, largest, plan.thresholds)
    model = equalized.model
    changed = {name: new for group in groups.found for name, new in group.renamed.items()}
    statistics = evaluation.recalibrate(model, tuple(changed[n] for n in plan.thresholds if n in changed))
    kept = {layer.name for layer in plan.placement.layers}
    placement = place(model)
    return (
        replace(
            plan,
            model=model,
            placement=placement.without(layer.name for layer in placement.layers if layer.name not in kept),
            thresholds=_without(plan.thresholds, changed) | statistics.thresholds(evaluation.method),
            largest=_without(plan.largest, changed) | statistics.largest,
            ranges={name: _without(t, changed) | statistics.thresholds(name) for name, t in plan.ranges.items()},
            limits={**plan.limits, **equalized.limits},
            equalized=plan.equalized.union(changed.values()),
        ),
        groups.describe(),
    )


def _without(values: Mapping[str, float], names: Container[str]) -> dict[str, float]:
    return {name: value for name, value in values.items() if name not in names}


def _weight_rounding(plan: Plan, evaluation: EvaluationContext) -> tuple[Plan | None, str]:
    weights = round_weights(
        plan.model,
        plan.placement,
        plan.thresholds,
        evaluation.fitted,
        half_scales=evaluation.half_scales,
        seed=evaluation.seed,
        threads=evaluation.threads,
        progress=evaluation.progress("weight rounding"),
    )
    every = {(layer.weight, layer.axis) for layer in plan.placement.layers if layer.weight}
    if not weights:
        return None, f"none of the {len(every)} weights is of a kind that this is written for"
    return replace(
        plan, adjustments=replace(plan.adjustments, weights=weights)
    ), f"{len(weights)} of {len(every)} weights"


def _bias_correction(plan: Plan, evaluation: EvaluationContext) -> tuple[Plan | None, str]:
    if plan.placement.scales:
        return None, "a bias that FP16 cannot hold would put its layer on the GPU"
    samples = evaluation.fitted
    progress = evaluation.progress("bias correction")
    biases = corrected_biases(
        plan.model,
        plan.placement,
        plan.thresholds,
        samples,
        adjustments=plan.adjustments,
        threads=evaluation.threads,
        progress=(lambda done: progress(done, len(samples))) if progress else None,
    )
    if not biases:
        return None, "no INT8 layer takes a bias"
    return replace(plan, adjustments=replace(plan.adjustments, biases=biases)), f"{len(biases)} biases"


TECHNIQUES: Mapping[str, Callable[[Plan, EvaluationContext], tuple[Plan | None, str]]] = {
    "equalization": partial(_equalization, limited=False),
    "clip_equalization": partial(_equalization, limited=True),
    "range_choice": _range_choice,
    "weight_rounding": _weight_rounding,
    "bias_correction": _bias_correction,
}
