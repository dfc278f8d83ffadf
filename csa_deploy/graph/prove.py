"""Whether two graphs compute the same: the proof of the rewrites, for graphs that somebody else rewrote.

Both run whole on the families of inputs of :mod:`.inputs` and on real samples; every output is held against the bound
of each channel (:mod:`.proof`). Then the nodes in which they differ run by themselves, so that a fault which these
inputs do not bring out shows. Where the outputs differ, tensors of the same name tell from which node on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import onnx
import onnx_ir as ir
from onnx.inliner import inline_local_functions

from csa_deploy.errors import UsageError
from csa_deploy.graph.correspond import corresponding, renamed
from csa_deploy.graph.cut import unlike_customs
from csa_deploy.graph.inputs import WHOLE_GRAPH, Arrays
from csa_deploy.graph.inside import inside
from csa_deploy.graph.load import require_static
from csa_deploy.graph.proof import Allowance, LocalProof, OutputVerdict, Proof, why_not
from csa_deploy.graph.sessions import CannotFollowError, CannotRunError, Runs, Session, drawn
from csa_deploy.graph.shapes import editable, infer_shapes
from csa_deploy.results import Result
from csa_deploy.units import counted

_FAMILIES = (*WHOLE_GRAPH, "corners")
_NOT_REACHED = (
    "the outputs agree on all inputs, but {reason} when what it reads is free: a fault that these inputs do not bring "
    "out, or the name stands for something else in {b}"
)

Feeds = Iterable[tuple[str, Arrays]]


@dataclass(frozen=True, repr=False)
class Proven(Result):
    """Whether two graphs compute the same.

    Attributes:
        a: name of the original.
        b: name of the other.
        verdict: ``equal``, ``different`` or ``not proved``.
        difference: largest one of any output, relative to its range; None where nothing was compared, infinite where
            shapes, types or places of NaN differ.
        bound: bound of the channel that comes nearest to its own, relative to its range.
        inputs: families of generated inputs on which both ran.
        samples: number of real inputs on which both ran.
        reason: how the graphs differ, or why it is not proved; empty where they are equal.
        output: the output that differs most; empty where none does.
        on: the input on which it does.
        since: the first tensor of the same name that differs; empty where that is not known.
        node: the node of the original that makes it.
        by_parts: what comparing the differing nodes by themselves gave, in words.
        notes: what was assumed or left out.
    """

    a: str
    b: str
    verdict: Literal["equal", "different", "not proved"]
    difference: float | None
    bound: float | None
    inputs: tuple[str, ...]
    samples: int = 0
    reason: str = ""
    output: str = ""
    on: str = ""
    since: str = ""
    node: str = ""
    by_parts: str = ""
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """Verdict, and what it rests on."""
        pair = f"{self.a} and {self.b}"
        if self.verdict == "not proved":
            return f"{pair}: not proved: {self.reason}"
        if self.verdict == "different":
            node = f", which {self.node} makes" if self.node else ""
            since = f"; from '{self.since}' on{node}" if self.since else ""
            return f"{pair}: different: {self.reason}{since}"
        within = f"within {self.difference or 0.0:.1e} of the range on {self._compared}"
        return f"{pair}: equal: {within}; {self.by_parts}"

    def rows(self) -> list[dict[str, Any]]:
        """One row."""
        names = ("a", "b", "verdict", "difference", "bound", "samples", "output", "on", "since", "node", "reason")
        return [{name: getattr(self, name) for name in names}]

    @property
    def _compared(self) -> str:
        parts = [counted(len(self.inputs), "generated input")] if self.inputs else []
        return " and ".join([*parts, *([counted(self.samples, "sample")] if self.samples else [])])


@dataclass(frozen=True)
class _Worst:
    """The largest difference of an output beyond its bound, and the input on which it is."""

    error: float
    output: str
    on: str
    arrays: Arrays
    words: str


@dataclass
class _Seen:
    """What running both showed, as it grows."""

    verdicts: dict[str, OutputVerdict] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    error: float | None = None
    wrong: _Worst | None = None
    first: tuple[str, Arrays] | None = None
    unsure: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def prove_equal(
    a: onnx.ModelProto,
    b: onnx.ModelProto,
    *,
    names: tuple[str, str] = ("A", "B"),
    data: Feeds = (),
    seed: int = 0,
    tolerance: float = 1e-5,
) -> Proven:
    """Compare two graphs; neither is changed.

    Args:
        a: the original.
        b: what is to be the same.
        names: of both, for messages.
        data: real inputs, each with a name.
        seed: of the generated inputs.
        tolerance: largest difference that counts as rounding in FP32, relative to a channel's range.

    Raises:
        UsageError: inputs or outputs do not correspond, or have no fixed shape; or a tolerance by which all is equal.
    """
    if not 0 <= tolerance < 1:
        raise UsageError(f"tolerance {tolerance}: it is a part of a channel's range", fix="give 0 or more, less than 1")
    for model, name in zip((a, b), names, strict=True):
        try:
            require_static(model)
        except UsageError as error:
            raise UsageError(f"{name}: {error.message}", fix=error.fix) from None
    # Calls of functions whose bodies differ would count as the same node.
    a, b = (inline_local_functions(model) if model.functions else model for model in (a, b))
    b, assumed = corresponding(a, b, names)
    told = Proven(*names, "not proved", None, None, (), notes=assumed)
    comparison = Allowance(tolerance)
    if unlike := unlike_customs(a, b):
        return replace(told, reason=unlike)
    name = names[0]
    try:
        before, name = Runs(a, keep=False), names[1]
        after = Session(b)
    except CannotRunError as error:
        return replace(told, reason=f"ONNX Runtime does not load {name}: {error}")
    seen = _Seen()
    try:
        _run(seen, comparison, before, after, _generated(before, seed))
        told = replace(told, inputs=tuple(seen.inputs))
        _run(seen, comparison, before, after, _completed(before, data, seed))
    except CannotFollowError as error:
        return replace(told, verdict="different", reason=f"{names[1]} does not run where {names[0]} does: {error}")
    samples = len(seen.inputs) - len(told.inputs)
    told = replace(told, difference=seen.error, samples=samples, notes=(*assumed, *seen.notes))
    nearest = max(seen.verdicts.values(), key=lambda one: one.ratio, default=None)
    told = replace(told, bound=None if nearest is None else nearest.bound or nearest.tolerance)
    if seen.wrong is not None:
        worst = seen.wrong
        said = f"'{worst.output}' {worst.words}"
        told = replace(told, verdict="different", output=worst.output, on=worst.on, reason=said)
        return _since(told, a, b, comparison, worst.arrays)
    return _judged(told, a, b, seen, tolerance)


def _generated(before: Runs, seed: int) -> Iterator[tuple[str, Arrays]]:
    for family in _FAMILIES:
        try:
            yield family, drawn(family, before.inputs, seed)
        except CannotRunError:  # no numbers are known for a type of input
            return


def _completed(before: Runs, data: Feeds, seed: int) -> Feeds:
    """Data with generated values of what custom operators would make."""
    for name, arrays in data:
        lacking = {key: spec for key, spec in before.inputs.items() if key not in arrays}
        yield name, {**drawn(_FAMILIES[0], lacking, seed), **arrays}


def _run(seen: _Seen, comparison: Allowance, before: Runs, after: Session, feeds: Feeds) -> None:
    """Both on all inputs.

    Raises:
        CannotFollowError: the second does not run where the first does.
    """
    for name, arrays in feeds:
        for verdict in seen.verdicts.values():
            verdict.wrong, verdict.error = "", None
        try:
            comparison.run(before, after, [(name, arrays)], seen.verdicts)
        except CannotFollowError:
            raise
        except CannotRunError as error:
            seen.notes.append(f"the original itself does not run on {name}: {error}")
            continue
        seen.inputs.append(name)
        seen.first = seen.first or (name, arrays)
        for output, verdict in seen.verdicts.items():
            _note(seen, before, output, name, arrays, verdict)
        before.forget(name)


def _note(seen: _Seen, before: Runs, output: str, name: str, arrays: Arrays, verdict: OutputVerdict) -> None:
    """Keep what one output showed on one input."""
    if not verdict.wrong:
        if verdict.error is not None:
            seen.error = max(seen.error or 0.0, verdict.error)
        return
    if math.isinf(verdict.error or 0.0) and _moved_by_noise(before, output, name, arrays):
        seen.unsure[output] = f"{verdict.wrong}, and so does the original by one unit of rounding"
        return
    error = verdict.error or 0.0
    seen.error = max(seen.error or 0.0, error)
    if seen.wrong is None or error > seen.wrong.error:
        seen.wrong = _Worst(error, output, name, arrays, verdict.wrong)


def _moved_by_noise(before: Runs, output: str, name: str, arrays: Arrays) -> bool:
    """Whether rounding alone changes an integer or the place of a NaN in the original's answer."""
    expected = before.answer(name, arrays)
    return bool(before.noise(name, arrays, expected)[output].reason)


def _judged(told: Proven, a: onnx.ModelProto, b: onnx.ModelProto, seen: _Seen, tolerance: float) -> Proven:
    """Equal, or not proved: outputs that show nothing, or parts that differ by themselves."""
    if not seen.inputs:
        reason = seen.notes[-1] if seen.notes else "no numbers are known for its inputs: give real ones with --data"
        return replace(told, reason=reason)
    moving = _depending(a)
    silent = {
        name: why
        for name, one in seen.verdicts.items()
        if (why := seen.unsure.get(name) or why_not(one, has_to_vary=name in moving))
    }
    if silent:
        output, why = next(iter(silent.items()))
        return replace(told, output=output, reason=f"output '{output}' {why}")
    parts = _by_parts(a, b, seen, tolerance)
    if parts is None:
        return replace(told, verdict="equal", by_parts="the same nodes")
    if parts.status == "proved":
        said = "the nodes that differ give the same by themselves, on numbers drawn for them"
        return replace(told, verdict="equal", by_parts=said)
    if parts.status == "wrong":
        return replace(told, by_parts=parts.reason, reason=_NOT_REACHED.format(reason=parts.reason, b=told.b))
    said = f"the differing nodes could not be compared by themselves ({parts.reason})"
    return replace(told, verdict="equal", by_parts=said)


def _by_parts(a: onnx.ModelProto, b: onnx.ModelProto, seen: _Seen, tolerance: float) -> Proof | None:
    """The differing nodes by themselves.

    Some tools give a fused node the name of a value that was fused away. Such a name stands for something else in both
    graphs: where the networks run, its values differ and the outputs do not. There the nodes are compared up to the
    next value that both have.
    """
    first, second = editable(a), editable(b)
    infer_shapes(first)
    infer_shapes(second)
    found = LocalProof(tolerance).prove(first, second)
    if found is None or found.status != "wrong" or seen.first is None:
        return found
    groups = inside(a, b, Allowance(tolerance), *seen.first)
    reused = [name for group in groups for name in group.wrong]
    if not reused:
        return found
    second = editable(renamed(b, {name: f"{name} of the other graph" for name in reused}))
    infer_shapes(second)
    return LocalProof(tolerance).prove(first, second)


def _depending(model: onnx.ModelProto) -> set[str]:
    """Names of outputs that are computed of an input."""
    view = ir.from_proto(model)
    found = {value for value in view.graph.inputs if value.name not in view.graph.initializers}
    for node in view.graph:
        if any(value in found for value in _read_by(node)):
            found.update(node.outputs)
    return {str(value.name) for value in view.graph.outputs if value in found}


def _read_by(node: ir.Node) -> Iterator[ir.Value | None]:
    """What a node reads, and what the graphs inside it read."""
    yield from node.inputs
    for attribute in node.attributes.values():
        for graph in [attribute.as_graph()] if attribute.type == ir.AttributeType.GRAPH else []:
            for inner in ir.traversal.RecursiveGraphIterator(graph):
                yield from inner.inputs
            yield from graph.outputs


def _since(told: Proven, a: onnx.ModelProto, b: onnx.ModelProto, comparison: Allowance, arrays: Arrays) -> Proven:
    """With the first tensor of the same name that differs on these inputs, in the original's order."""
    equal = 0
    for group in inside(a, b, comparison, told.on, arrays):
        if group.problem:
            told = replace(told, notes=(*told.notes, group.problem))
            continue
        first = next(iter(group.wrong), None)
        if first is not None:
            equal += group.names.index(first)
            node = next(node for node in a.graph.node if first in node.output)
            note = f"{counted(equal, 'tensor')} of the same name before it agree"
            return replace(told, since=first, node=f"{node.name or first} ({node.op_type})", notes=(*told.notes, note))
        equal += len(group.names)
    return told
