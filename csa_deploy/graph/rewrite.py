"""What a rewrite is, and what rewrites share.

A rule is a name and a function that changes an IR model in place and returns how often. Most are rules of
onnxscript's rewriter; :func:`pattern_rule` keeps these to the main graph, because a rewrite inside a branch or loop
body that the random inputs never enter could not be proved.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript.rewriter import RewriteRule, RewriteRuleSet

_LOG = logging.getLogger(__name__)

LEFT_ALONE = "csa_deploy.left_alone"
"""Node metadata that keeps every rule of patterns away from a node."""


@dataclass(frozen=True)
class Rewrite:
    """One exact rewrite.

    Attributes:
        apply: changes the model in place and returns the number of rewrites.
        reference: what to prove by, as ``reference(before, after)``, where the graph before does not mean what it
            says; None: the graph before.
        slack: ``slack(before, after)`` -> by name of a value, what it may differ by beyond rounding, as a share of the
            largest number that the node behind it reads; None: nothing.
        moves: whether the slack is not rounding but another position, which the whole network feels as well.
    """

    name: str
    summary: str
    apply: Callable[[ir.Model], int]
    reference: Callable[[ir.Model, ir.Model], ir.Model] | None = None
    slack: Callable[[ir.Model, ir.Model], Mapping[str, float]] | None = None
    moves: bool = False


class DeclinedError(Exception):
    """A rule's reason for leaving a node be that somebody may have expected it to change."""


_LEFT_ALONE: ContextVar[frozenset[str]] = ContextVar("left_alone", default=frozenset())
_TAKEN: ContextVar[set[str]] = ContextVar("taken")
_NOTES: ContextVar[list[tuple[str, str]] | None] = ContextVar("notes", default=None)


@contextmanager
def attempt(left_alone: frozenset[str]) -> Iterator[list[tuple[str, str]]]:
    """Apply a rule to all nodes but those that make a value of these names; gives (node, reason) of declined ones."""
    notes: list[tuple[str, str]] = []
    tokens = _LEFT_ALONE.set(left_alone), _NOTES.set(notes)
    try:
        yield notes
    finally:
        _LEFT_ALONE.reset(tokens[0])
        _NOTES.reset(tokens[1])


def is_left_alone(node: ir.Node) -> bool:
    """Whether a rule has to leave a node be, because rewriting it was not proved."""
    return any(value.name in _LEFT_ALONE.get() for value in node.outputs)


def note(node: ir.Node, reason: str) -> None:
    """Say why a rule leaves a node be."""
    if (notes := _NOTES.get()) is not None:
        notes.append((node.name or node.op_type, reason))


class _MainGraphRule(RewriteRule):
    """A rewriter rule that leaves subgraphs and local functions alone."""

    def __init__(self, rule: RewriteRule) -> None:
        self.__dict__.update(rule.__dict__)

    def match(self, model: ir.Model, graph_or_function: ir.Graph | ir.Function, *args: Any, **kwargs: Any) -> Any:
        """Match in the main graph only, and no node that is marked as left alone."""
        if graph_or_function is not model.graph:
            return None
        found = super().match(model, graph_or_function, *args, **kwargs)
        return None if found and any(LEFT_ALONE in node.metadata_props for node in found.nodes) else found

    def try_rewrite(
        self, model: ir.Model, graph_or_function: ir.Graph | ir.Function, node: ir.Node, **kwargs: Any
    ) -> Any:
        """Rewrite one node; one that the rule trips over must not cost the others."""
        if is_left_alone(node):
            return None
        try:
            found = super().try_rewrite(model, graph_or_function, node, **kwargs)
            if found is not None:
                _name_apart(found)
            return found
        except DeclinedError as reason:
            note(node, str(reason))
        except Exception as problem:
            _LOG.debug("rule %s failed at %s", self.name, node.name, exc_info=True)
            note(node, f"the rule failed: {type(problem).__name__}: {problem}")
        return None


def pattern_rule(name: str, summary: str, rules: Iterable[RewriteRule], **extra: Any) -> Rewrite:
    """A :class:`Rewrite` out of rules of onnxscript's rewriter; ``extra``: its other fields."""
    rule_set = RewriteRuleSet([_MainGraphRule(rule) for rule in rules])

    def apply(model: ir.Model) -> int:
        known = set(model.graph)
        token = _TAKEN.set(set(_names(model.graph)))
        try:
            count = int(rule_set.apply_to_model(model))
        finally:
            _TAKEN.reset(token)
        if count:
            _name_after_outputs(model, known)
            remove_unused(model)
        return count

    return Rewrite(name, summary, apply, **extra)


def node_rule(op_type: str, rewrite: Callable[[Any, ir.Node], ir.Value | None]) -> RewriteRule:
    """A rewriter rule for single nodes with one used output: ``rewrite(op, node)`` returns None to leave a node be."""

    def pattern(op: Any) -> Any:
        return getattr(op, op_type)(_allow_other_inputs=True, _outputs=["out"])

    def replace(op: Any, out: ir.Value) -> ir.Value | None:
        node = out.producer()
        return rewrite(op, node) if node is not None else None

    return RewriteRule(pattern, replace, name=f"{op_type}:{rewrite.__name__}")


def _name_after_outputs(model: ir.Model, known: set[ir.Node]) -> None:
    """Give nodes that a rule left without a name of its own, or with another node's, a name that is only theirs."""
    taken = {node.name for node in known}
    seen = {node.name for node in model.graph if node in known}
    for node in model.graph:
        if node in known:
            continue
        if (node.name or "node").startswith("node") and node.name not in taken:
            node.name = f"{node.op_type}_{node.outputs[0].name}"
        node.name = _free(node.name or node.op_type, seen)
        seen.add(node.name)


def _name_apart(found: Any) -> None:
    """Give what a rule makes on the way to its result a name of its own.

    Rules name it after what they replace, ``x_1`` on the way to ``x``, and exporters count so, too. Of two values of
    one name the rewriter renames the later one, which may be the network's.
    """
    taken = _TAKEN.get()
    for value in (value for node in found.new_nodes for value in node.outputs):
        if value in found.new_outputs or not value.name:
            continue
        value.name = _free(value.name, taken)
        taken.add(value.name)


def _names(graph: ir.Graph) -> Iterator[str]:
    """Names of all values of a graph and of the bodies in it, as often as they are given."""
    yield from (value.name for value in graph.inputs if value.name)
    yield from (name for name, value in graph.initializers.items() if not value.is_graph_input())
    for node in graph.all_nodes():
        yield from (value.name for value in node.outputs if value.name)


def remove_unused(model: ir.Model) -> None:
    """Drop nodes and initializers that nothing uses."""
    RemoveUnusedNodesPass()(model)


def is_float(value: ir.Value | None) -> bool:
    """Whether a value is known to hold floating-point numbers."""
    return value is not None and value.dtype is not None and value.dtype.is_floating_point()


def fresh_name(graph: ir.Graph, base: str) -> str:
    """``base``, or ``base`` with a number, such that no value of the graph, or of a body in it, has this name."""
    return _free(base, set(_names(graph)))


def _free(base: str, taken: Container[str | None]) -> str:
    name, number = base, 1
    while name in taken:
        name, number = f"{base}_{number}", number + 1
    return name


def new_weight(op: Any, node: ir.Node, old: ir.Value | None, array: np.ndarray, suffix: str) -> ir.Value:
    """An initializer that takes the place of ``old`` among the inputs of ``node``, in the weights' element type.

    It keeps the name, and so the path of the PyTorch parameter, unless another node uses ``old`` too.
    """
    weight = node.inputs[1]
    assert weight is not None and weight.const_value is not None and node.graph is not None
    if old is not None and old.name and all(user is node for user, _ in old.uses()):
        name = old.name
    else:
        name = fresh_name(node.graph, f"{node.name}.{suffix}")
    tensor = ir.tensor(np.ascontiguousarray(array, weight.const_value.dtype.numpy()), name=name)
    return op.initializer(tensor, name=name)


def new_constant(op: Any, node: ir.Node, array: np.ndarray, suffix: str) -> ir.Value:
    """A new initializer, named after ``node``."""
    assert node.graph is not None
    name = fresh_name(node.graph, f"{node.name}.{suffix}")
    return op.initializer(ir.tensor(array.copy(order="C"), name=name), name=name)


def inherit(value: ir.Value, source: ir.Node, *, shape: tuple[int, ...] | None = None) -> ir.Value:
    """Give the node that makes ``value`` the metadata of ``source``, so that it still traces to its module path.

    Without ``shape``, the output takes over the shape of ``source``'s output.
    """
    node, old = value.producer(), source.outputs[0]
    assert node is not None
    node.metadata_props.update(source.metadata_props)
    value.type = old.type
    value.shape = ir.Shape(shape) if shape is not None else old.shape
    return value
