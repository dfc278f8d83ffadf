"""Repairs for the scopes that count: exact ones, and none that makes one of these scopes worse.

All repairs that the scopes' findings name are applied together, since one often needs another. Then every node that
was rewritten is held against what the scopes said of it before: where one of them is worse off, the node is left as
it is, and the rest is done again. Every step is proved against the network as it came.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from csa_deploy.graph.load import load_model, save_model
from csa_deploy.graph.optimize import OptimizeResult
from csa_deploy.graph.repair import repair
from csa_deploy.graph.repairs.pooling import Limits
from csa_deploy.graph.rewrite import LEFT_ALONE
from csa_deploy.records.check import Finding, ScopeReport
from csa_deploy.records.graphs import Note, Step
from csa_deploy.records.repair import COUNTED, Left, ScopeChange
from csa_deploy.restricted.check import check
from csa_deploy.restricted.inspection import GateResult, inspect

_ORIGIN = "csa_deploy.origin"  # node metadata: the node of the network as it came; every rewrite hands it on
_ATTEMPTS = 12
_POOLING = {"global_pool_to_pool", "pool_to_chain"}
_ANY_WINDOW = 1 << 16

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ScopeRepair:
    """A network repaired for scopes.

    Attributes:
        model: the repaired network; None where nothing was repaired.
        left: what was left as it is, for the scopes' sake.
        declined: nodes that a repair left be, though a finding named it, with the reason.
        before: all scopes of the network as it came.
        after: the same of the repaired one; ``before`` itself where nothing was repaired.
    """

    model: onnx.ModelProto | None
    steps: tuple[Step, ...]
    left: tuple[Left, ...]
    before: GateResult
    after: GateResult
    scopes: tuple[str, ...]
    declined: tuple[Note, ...] = ()

    @property
    def verdicts(self) -> tuple[ScopeChange, ...]:
        """Verdict and numbers of findings of each scope, before and after."""
        return ScopeChange.between(self.before.inspected.scopes, self.after.inspected.scopes)


def repair_for_scopes(
    path: Path,
    scopes: Sequence[str],
    *,
    before: GateResult | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> ScopeRepair:
    """Repair a network for scopes.

    The file is inspected once, unless ``before`` is given, and so is each graph that becomes the result; while nodes
    are tried only the rules are asked.

    Args:
        path: ONNX file of static shape; not changed.
        scopes: scopes to repair for; none of them gets a worse verdict or more findings.
        before: what :func:`csa_deploy.restricted.inspection.inspect` said of the file, these scopes among others.
        strict: see there.
        progress: called with (repairs tried, repairs) again and again.
    """
    before = before or inspect(path, scopes, strict=strict)
    asked = before.only(scopes).scopes
    nothing = ScopeRepair(None, (), (), before, before, tuple(scopes))
    if not any(scope.report.repairs for scope in asked):
        return nothing
    model = load_model(path, full_check=False)
    repaired = _repaired(path, model, nothing, Limits(), progress)
    remaining = {name for scope in repaired.after.only(scopes).scopes for name in scope.report.repairs}
    if not remaining & _POOLING:
        return repaired
    # Windows that some scope denies may still be what the asked ones allow.
    wide = _repaired(path, model, nothing, Limits(whole=_ANY_WINDOW), progress)
    reached, further = ([s.combined for s in found.after.only(scopes).scopes] for found in (repaired, wide))
    if _better(reached, further) and not _better(further, reached):
        return wide
    return replace(repaired, left=tuple(dict.fromkeys((*repaired.left, *wide.left))))


def _repaired(
    path: Path, model: onnx.ModelProto, nothing: ScopeRepair, limits: Limits, progress: Progress | None
) -> ScopeRepair:
    """With poolings of some limits."""
    before, scopes = nothing.before, nothing.scopes
    asked = before.only(scopes).scopes
    search = _Search(model, [scope.report for scope in asked], limits)
    every = [scope.report.scope for scope in before.scopes]
    result, reports = search.attempt(progress)
    for _ in range(_ATTEMPTS):
        if not search.kept(result) or not _better(search.before, reports):
            return replace(nothing, steps=result.steps, left=tuple(search.left), declined=search.declined(result))
        if not search.leave_worse(result, reports):
            after = _inspect(result.model, path.name, every, before)
            found = [scope.combined for scope in after.only(scopes).scopes]
            if not search.drop_worse(result, [scope.combined for scope in asked], found):
                left, declined = tuple(search.left), search.declined(result)
                return ScopeRepair(result.model, result.steps, left, before, after, tuple(scopes), declined)
        result, reports = search.attempt(progress)
    return replace(nothing, left=tuple(search.left))


def _inspect(model: onnx.ModelProto, name: str, scopes: Sequence[str], before: GateResult) -> GateResult:
    """As strictly as before, and held against NVIDIA's parser where that was."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        save_model(model, path)
        return inspect(path, scopes, strict=before.report.strict, parsed=before.parsed is not None)


class _Search:
    """What is still tried.

    Args:
        model: the network as it came; its nodes are marked with their own names, which rewrites hand on.
        before: what the rules of each asked scope say of it.
        limits: of the poolings that repairs make.
    """

    def __init__(self, model: onnx.ModelProto, before: Sequence[ScopeReport], limits: Limits) -> None:
        self.left: list[Left] = []
        self._limits = limits
        self._model, self.before = model, before
        self._dropped: set[str] = set()
        self._nodes = {_name(node): node for node in model.graph.node}
        self._origins: dict[str, str] = {}
        for name, node in self._nodes.items():
            _taken(node, LEFT_ALONE)
            node.metadata_props.add(key=_ORIGIN, value=name)

    def attempt(self, progress: Progress | None) -> tuple[OptimizeResult, Sequence[ScopeReport]]:
        """Apply the repairs that findings name, until they name no further one; what it gives, judged by the rules."""
        self._names: set[str] = set()
        result, reports = None, self.before
        while result is None or (self._wanted(reports) - self._names):
            self._names |= self._wanted(reports)
            result = repair(self._model, self._names, progress=progress, limits=self._limits)
            reports = check(result.model, [report.scope for report in self.before]).scopes
        self._origins = {_name(node): _taken(node, _ORIGIN) or _name(node) for node in result.model.graph.node}
        return result, reports

    def kept(self, result: OptimizeResult) -> list[str]:
        """Repairs that were kept, in order; constants that were folded on the way are none."""
        return [step.rule for step in result.steps if step.kept and step.rule in self._names]

    def declined(self, result: OptimizeResult) -> tuple[Note, ...]:
        """What the repairs that findings name left be."""
        return tuple(note for note in result.declined if note.rule in self._names)

    def leave_worse(self, result: OptimizeResult, after: Sequence[ScopeReport]) -> bool:
        """Leave rewritten nodes alone for which the rules of a scope say worse than before; whether there are any."""
        count = len(self.left)
        for old, new in zip(self.before, after, strict=True):
            was, now = (_by_node(report, self._origins) for report in (old, new))
            for name in now:
                if _score(now[name]) > _score(was.get(name, [])) and name in self._nodes:
                    self._leave(name, f"{new.scope} would have against it: {now[name][0].message}")
        return len(self.left) > count or self.drop_worse(result, self.before, after)

    def drop_worse(self, result: OptimizeResult, before: Sequence[ScopeReport], after: Sequence[ScopeReport]) -> bool:
        """Do without the last repair if a scope as a whole is worse off; whether one is."""
        for old, new in zip(before, after, strict=True):
            if _score(new.findings) > _score(old.findings):
                last = self.kept(result)[-1]
                self._dropped.add(last)
                counts = ", ".join(f"{key} {old.counts[key]} -> {new.counts[key]}" for key in COUNTED)
                self.left.append(Left(last, f"{new.scope} would be {new.verdict} ({counts})"))
                return True
        return False

    def _wanted(self, reports: Sequence[ScopeReport]) -> set[str]:
        return {name for report in reports for name in report.repairs} - self._dropped

    def _leave(self, name: str, reason: str) -> None:
        if all(item.what != name for item in self.left):
            self._nodes[name].metadata_props.add(key=LEFT_ALONE, value=reason)
            self.left.append(Left(name, reason))


def _name(node: onnx.NodeProto) -> str:
    """As findings name a node."""
    return node.name or next(iter(node.output), "")


def _taken(node: onnx.NodeProto, key: str) -> str:
    """A mark of a node, which has no marks after that."""
    found = next((entry.value for entry in node.metadata_props if entry.key == key), "")
    kept = [entry for entry in node.metadata_props if entry.key not in (_ORIGIN, LEFT_ALONE)]
    del node.metadata_props[:]
    node.metadata_props.extend(kept)
    return found


def _by_node(report: ScopeReport, origins: Mapping[str, str]) -> dict[str, list[Finding]]:
    """Findings by the node of the network as it came that they are about."""
    found: dict[str, list[Finding]] = {}
    for finding in report.findings:
        found.setdefault(origins.get(finding.node, finding.node), []).append(finding)
    return found


def _better(before: Sequence[ScopeReport], after: Sequence[ScopeReport]) -> bool:
    return any(_score(new.findings) < _score(old.findings) for old, new in zip(before, after, strict=True))


def worse(before: GateResult, after: GateResult) -> str:
    """Name of a scope that has more against a network than it had, by rules and validator; empty where none has."""
    pairs = ((old.combined, new.combined) for old, new in zip(before.scopes, after.scopes, strict=True))
    return next((old.scope for old, new in pairs if _score(new.findings) > _score(old.findings)), "")


def _score(findings: Sequence[Finding]) -> tuple[int, int]:
    """Findings that deny, and those that doubt: more is worse, and a doubt is better than a denial."""
    counted = Counter(finding.verdict for finding in findings)
    return counted["denied"], counted["unknown"]
