"""Rewrite a graph to do the same with less: every rule is exact, and every rule is proved before it is kept."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import onnx_ir as ir

from csa_deploy.errors import UsageError
from csa_deploy.graph.load import require_static
from csa_deploy.graph.proof import CannotRunError, Prover
from csa_deploy.graph.rewrite import Rule
from csa_deploy.graph.rules import (
    affine_after,
    affine_before,
    constants,
    duplicates,
    identities,
    pads,
    reshapes,
    resize,
)
from csa_deploy.graph.shapes import editable, infer_shapes
from csa_deploy.graph.stats import GraphStatistics, graph_statistics

_LOG = logging.getLogger(__name__)

RULES: tuple[Rule, ...] = (
    constants.RULE,
    identities.RULE,
    reshapes.RULE,
    pads.RULE,
    affine_after.RULE,
    affine_before.RULE,
    resize.RULE,
    duplicates.RULE,
)

TOLERANCE = 1e-5
"""Largest difference that floating-point order may explain, relative to the range of the output."""

_MAX_ROUNDS = 8

_ITSELF = "the original model"

Progress = Callable[[int, int], None]

Reference = Callable[[onnx.ModelProto, int, CannotRunError], tuple[Prover, str]]
"""``reference(model, proofs, why the model does not run)`` -> what to prove by, and what it is in words."""


@dataclass(frozen=True)
class Step:
    """One application of one rule.

    Attributes:
        rule: name of the rule.
        summary: what the rule does.
        rewrites: how often it applied.
        error: largest difference of any output from the original model's, relative to the range of that output; None
            where it could not be measured.
        kept: whether the result was kept.
        reason: why it was not kept, or why it was kept without a measurement; empty otherwise.
    """

    rule: str
    summary: str
    rewrites: int
    error: float | None
    kept: bool
    reason: str = ""


@dataclass(frozen=True)
class OptimizeResult:
    """A rewritten model with its evidence.

    Attributes:
        model: the rewritten model; the argument of :func:`optimize` is never changed.
        steps: every application of a rule that found something, in order.
        before: statistics of the original.
        after: statistics of the result.
        proofs: number of random inputs that each step was proved on.
        tolerance: largest relative difference that was accepted.
        not_proved: why no proof could be run at all; empty where it was.
        reference: what the steps were proved against.
    """

    model: onnx.ModelProto
    steps: tuple[Step, ...]
    before: GraphStatistics
    after: GraphStatistics
    proofs: int
    tolerance: float
    not_proved: str = ""
    reference: str = _ITSELF

    @property
    def error(self) -> float | None:
        """Relative difference of the result's outputs from the original's; None where nothing was measured."""
        return next((step.error for step in reversed(self.steps) if step.kept), None if self.not_proved else 0.0)

    @property
    def reverted(self) -> tuple[Step, ...]:
        """Steps that were not kept."""
        return tuple(step for step in self.steps if not step.kept)

    def to_json(self) -> dict[str, Any]:
        """Plain data, without the model."""
        return {
            "steps": [dataclasses.asdict(step) for step in self.steps],
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "proofs": self.proofs,
            "tolerance": self.tolerance,
            "error": self.error,
            "not_proved": self.not_proved,
            "reference": self.reference,
        }


def optimize(
    model: onnx.ModelProto,
    *,
    rules: Sequence[Rule] = RULES,
    proofs: int = 2,
    tolerance: float = TOLERANCE,
    progress: Progress | None = None,
) -> OptimizeResult:
    """Apply exact rewrites until none finds anything, proving each on random inputs.

    Each rule's result is run in ONNX Runtime on ``proofs`` seeded random inputs and compared with the original
    model; a rule whose result differs by more than ``tolerance`` of an output's range is undone and not tried again.
    Where the model does not run, nothing can be proved and nothing is rewritten.

    Args:
        model: a model of static shape; not changed.
        rules: the rewrites, in order.
        proofs: number of random inputs.
        tolerance: largest accepted difference relative to an output's range.
        progress: called with (rules tried in this round, rules).

    Raises:
        UsageError: an input has no fixed shape, or the model holds sparse initializers.
    """
    return rewritten(model, rules, proofs=proofs, tolerance=tolerance, progress=progress)


def rewritten(
    model: onnx.ModelProto,
    rules: Sequence[Rule],
    *,
    proofs: int,
    tolerance: float,
    progress: Progress | None,
    reference: Reference | None = None,
    on_declared: Sequence[Rule] = (),
) -> OptimizeResult:
    """The driver behind :func:`optimize` and :func:`csa_deploy.graph.repair.repair`.

    Args:
        model: see :func:`optimize`, as are the other arguments.
        rules: the rewrites, in order.
        proofs: number of random inputs.
        tolerance: largest accepted difference.
        progress: see :func:`optimize`.
        reference: makes something to prove by where the model itself does not run, and says what it is.
        on_declared: rules to apply first, on the shapes that the graph declares: inference may contradict these.
    """
    require_static(model)
    if model.graph.sparse_initializer:
        raise UsageError("sparse initializers are not supported", fix="export the model with dense weights")
    before = graph_statistics(model)
    try:
        prover, against = _reference(model, proofs, reference)
    except CannotRunError as error:
        reason = f"nothing rewritten: ONNX Runtime does not run the original ({error})"
        return OptimizeResult(model, (), before, before, 0, tolerance, reason)
    driver = _Driver(editable(model), prover, tolerance)
    driver.to_fixpoint(on_declared, None)
    infer_shapes(driver.current)
    driver.to_fixpoint(rules, progress)
    result = ir.to_proto(driver.current)
    after = graph_statistics(result)
    return OptimizeResult(result, tuple(driver.steps), before, after, proofs, tolerance, reference=against)


def _reference(model: onnx.ModelProto, proofs: int, otherwise: Reference | None) -> tuple[Prover, str]:
    try:
        return Prover(model, proofs=proofs), _ITSELF
    except CannotRunError as error:
        if otherwise is None:
            raise
        return otherwise(model, proofs, error)


class _Driver:
    """Applies rules to ``current`` and keeps what is proved."""

    def __init__(self, current: ir.Model, prover: Prover, tolerance: float) -> None:
        self.current = current
        self.steps: list[Step] = []
        self._prover = prover
        self._tolerance = tolerance

    def to_fixpoint(self, rules: Sequence[Rule], progress: Progress | None) -> None:
        failed: set[str] = set()
        for _ in range(_MAX_ROUNDS):
            changed = False
            for number, rule in enumerate(rules, 1):
                step = self._try(rule) if rule.name not in failed else None
                if step is not None:
                    self.steps.append(step)
                    changed = changed or step.kept
                    failed |= set() if step.kept else {step.rule}
                if progress:
                    progress(number, len(rules))
            if not changed:
                return

    def _try(self, rule: Rule) -> Step | None:
        """Apply one rule; None where it found nothing."""
        candidate = self.current.clone()
        try:
            count = rule.apply(candidate)
            if not count:
                return None
            infer_shapes(candidate)
            error = self._prover.error(ir.to_proto(candidate))
        except CannotRunError as problem:
            return Step(rule.name, rule.summary, count, None, False, f"the rewritten graph does not run: {problem}")
        except Exception as problem:  # a rule that trips over an unusual graph must not cost the user the others
            _LOG.debug("rule %s failed", rule.name, exc_info=True)
            return Step(
                rule.name, rule.summary, 0, None, False, f"the rule failed: {type(problem).__name__}: {problem}"
            )
        if not error <= self._tolerance:
            reason = f"an output differs by {error:.1e} of its range, more than {self._tolerance:.0e}"
            return Step(rule.name, rule.summary, count, error, False, reason)
        self.current = candidate
        return Step(rule.name, rule.summary, count, error, True)
