"""Rewrite a graph to do the same with less: every rule is exact, and every rule is proved before it is kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from csa_deploy.graph.load import require_static
from csa_deploy.graph.proof import LocalProof, Proof, Prover
from csa_deploy.graph.rewrite import Rewrite, attempt
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
from csa_deploy.graph.sessions import CannotRunError
from csa_deploy.graph.shapes import editable, infer_shapes, require_dense
from csa_deploy.graph.stats import graph_statistics
from csa_deploy.records.graphs import GraphStatistics, Note, Step

_LOG = logging.getLogger(__name__)

RULES: tuple[Rewrite, ...] = (
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
"""Largest difference that floating-point order may explain in FP32, relative to the range of a channel."""

_MOVED = 1e-3
"""The same for a whole network, relative to a channel's range, where a rule moves positions within its slack."""

_MAX_ROUNDS = 8
_MAX_TRIES = 3

_ITSELF = "the original model"

Progress = Callable[[int, int], None]

Reference = Callable[[onnx.ModelProto, CannotRunError], tuple[onnx.ModelProto, str]]
"""``reference(model, why it does not run)`` -> what to prove by, and what it is in words."""


@dataclass(frozen=True)
class OptimizeResult:
    """A rewritten model with its evidence.

    Attributes:
        model: the rewritten model; the argument of :func:`optimize` is never changed.
        steps: every application of a rule that found something, in order.
        before: statistics of the original.
        proofs: number of random inputs that each step was proved on.
        tolerance: largest relative difference that was accepted.
        not_proved: why no proof could be run at all; empty where it was.
        reference: what the steps were proved against.
        declined: nodes that a rule left be though its pattern is there, with the reason.
    """

    model: onnx.ModelProto
    steps: tuple[Step, ...]
    before: GraphStatistics
    after: GraphStatistics
    proofs: int
    tolerance: float
    not_proved: str = ""
    reference: str = _ITSELF
    declined: tuple[Note, ...] = ()

    @property
    def error(self) -> float | None:
        """Relative difference of the result's outputs from the original's; None where nothing was measured."""
        return next((step.error for step in reversed(self.steps) if step.kept), None if self.not_proved else 0.0)

    @property
    def reverted(self) -> tuple[Step, ...]:
        """Steps that were not kept."""
        return tuple(step for step in self.steps if not step.kept)


def optimize(
    model: onnx.ModelProto,
    *,
    rules: Sequence[Rewrite] = RULES,
    proofs: int = 2,
    tolerance: float = TOLERANCE,
    progress: Progress | None = None,
) -> OptimizeResult:
    """Apply exact rewrites until none finds anything, proving each on random inputs.

    The nodes that a rule changed are compared with what they were, on several families of inputs, and the whole
    network with the original model on at least ``proofs`` inputs (:mod:`.proof`). What fails is left alone, the rest of
    the rule's work is kept. Where the model does not run, nothing can be proved and nothing is rewritten.

    Args:
        model: a model of static shape; not changed.
        proofs: number of random inputs.
        tolerance: largest accepted difference relative to an output's range.
        progress: called with (rules tried in this round, rules).

    Raises:
        UsageError: an input has no fixed shape, or the model holds sparse initializers.
    """
    return rewritten(model, rules, proofs=proofs, tolerance=tolerance, progress=progress)


def rewritten(
    model: onnx.ModelProto,
    rules: Sequence[Rewrite],
    *,
    proofs: int,
    tolerance: float,
    progress: Progress | None,
    reference: Reference | None = None,
    on_declared: Sequence[Rewrite] = (),
) -> OptimizeResult:
    """The driver behind :func:`optimize` and :func:`csa_deploy.graph.repair.repair`.

    Args:
        model: see :func:`optimize`, as are the other arguments.
        proofs: number of random inputs.
        tolerance: largest accepted difference.
        progress: see :func:`optimize`.
        reference: makes something to prove by where the model itself does not run, and says what it is.
        on_declared: rules to apply first, on the shapes that the graph declares: inference may contradict these.
    """
    require_static(model)
    require_dense(model)
    before = graph_statistics(model)
    try:
        prover, against = _reference(model, proofs, tolerance, reference)
    except CannotRunError as error:
        reason = f"nothing rewritten: ONNX Runtime does not run the original ({error})"
        return OptimizeResult(model, (), before, before, 0, tolerance, reason)
    with _quiet():
        driver = _Driver(editable(model), prover, proofs, tolerance)
        driver.to_fixpoint(on_declared, None)
        infer_shapes(driver.current)
        driver.to_fixpoint(rules, progress)
        result = ir.to_proto(driver.current)
    return OptimizeResult(
        result,
        tuple(driver.steps),
        before,
        graph_statistics(result),
        proofs,
        tolerance,
        reference=against,
        declined=driver.still_declined(),
    )


def _reference(
    model: onnx.ModelProto, proofs: int, tolerance: float, otherwise: Reference | None
) -> tuple[Prover, str]:
    """The original, or what it means where it does not run or its outputs are not what it declares."""
    try:
        itself = Prover(model, proofs=proofs, tolerance=tolerance)
    except CannotRunError as error:
        if otherwise is None:
            raise
        meant, words = otherwise(model, error)
        return Prover(meant, proofs=proofs, tolerance=tolerance), words
    if otherwise is None or not itself.contradiction:
        return itself, _ITSELF
    meant, words = otherwise(model, CannotRunError(itself.contradiction))
    try:
        other = Prover(meant, proofs=proofs, tolerance=tolerance)
    except CannotRunError:
        return itself, _ITSELF
    return (itself, _ITSELF) if other.contradiction else (other, words)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the libraries log about a graph's oddities from the user, who asked for something else."""
    loggers = [logging.getLogger(name) for name in ("onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class _Driver:
    """Applies rules to ``current`` and keeps what is proved."""

    def __init__(self, current: ir.Model, prover: Prover, proofs: int, tolerance: float) -> None:
        self.current = current
        self.steps: list[Step] = []
        self.declined: set[Note] = set()
        self._whole, self._local = prover, LocalProof(tolerance)
        self._proofs, self._tolerance = proofs, tolerance
        self._error: float | None = 0.0
        self._moved = 0.0
        self._left: dict[str, frozenset[str]] = {}

    def to_fixpoint(self, rules: Sequence[Rewrite], progress: Progress | None) -> None:
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

    def still_declined(self) -> tuple[Note, ...]:
        """What rules left be, of the nodes that are still there: another round may have changed some."""
        there = {node.name or node.op_type for node in self.current.graph}
        return tuple(sorted((n for n in self.declined if n.node in there), key=lambda n: (n.rule, n.node, n.reason)))

    def _try(self, rule: Rewrite) -> Step | None:
        """Apply one rule, without the nodes at which it is not proved; None where it found nothing."""
        problem: Step | None = None
        for _ in range(_MAX_TRIES):
            candidate = self.current.clone()
            try:
                count = self._apply(rule, candidate)
                if not count:
                    return problem
                proof = self._prove(rule, candidate)
            except CannotRunError as error:
                return Step(rule.name, rule.summary, count, None, False, f"the rewritten graph does not run: {error}")
            except Exception as error:  # a rule that trips over an unusual graph must not cost the user the others
                _LOG.debug("rule %s failed", rule.name, exc_info=True)
                reason = f"the rule failed: {type(error).__name__}: {error}"
                return Step(rule.name, rule.summary, 0, None, False, reason)
            if proof.holds:
                return self._keep(rule, candidate, count, proof, problem)
            problem = problem or Step(rule.name, rule.summary, count, proof.error, False, _said(proof))
            left = self._left.get(rule.name, frozenset())
            if proof.where <= left:
                return problem
            self._left[rule.name] = left | proof.where
        return problem

    def _apply(self, rule: Rewrite, candidate: ir.Model) -> int:
        with attempt(self._left.get(rule.name, frozenset())) as notes:
            count = rule.apply(candidate)
        self.declined.update(Note(rule.name, node, reason) for node, reason in notes)
        if count:
            infer_shapes(candidate)
        return count

    def _prove(self, rule: Rewrite, candidate: ir.Model) -> Proof:
        """What changed by itself, then the whole network."""
        before = self.current if rule.reference is None else rule.reference(self.current, candidate)
        slack = {} if rule.slack is None else rule.slack(before, candidate)
        local = self._local.prove(before, candidate, slack)
        if local is None:
            return Proof("proved", self._error, None)
        if not local.holds:
            return local
        return self._whole.prove(ir.to_proto(candidate), tolerance=max(_MOVED, self._tolerance) if rule.moves else None)

    def _keep(self, rule: Rewrite, candidate: ir.Model, count: int, proof: Proof, problem: Step | None) -> Step:
        self.current = candidate
        self._error = None if proof.error is None else proof.error + self._moved
        if rule.moves:  # what follows is exact again, so it is held against the moved positions
            self._moved = self._error or 0.0
            self._whole = Prover(ir.to_proto(candidate), proofs=self._proofs, tolerance=self._tolerance)
        blind = "" if proof.error is not None else "proved on what changed alone: the network's outputs show nothing"
        reason = f"left alone where {problem.reason}" if problem is not None else blind
        return Step(rule.name, rule.summary, count, self._error, True, reason)


def _said(proof: Proof) -> str:
    return proof.reason if proof.status == "wrong" else f"not proved: {proof.reason}"
