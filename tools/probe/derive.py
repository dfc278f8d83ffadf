"""Derive the rule pack from the evidence of the probes.

Every rule must be exact on the evidence: it speaks about each layer that the validator refused for that limit, and
about no other. A number is taken only where a passing and a failing probe lie next to each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from csa_deploy.restricted.conditions import evaluate, lookup
from tools.probe.evidence import Evidence, Finding
from tools.probe.facts import Facts
from tools.probe.limits import CANDIDATES, DTYPE_LIMITS, IMPLIED, INSTEAD, Candidate

SHOWN = 6
"""Probes named in a rule on each side; the evidence file has all of them."""

_SPLIT = ("kind", "mode")
Condition = dict[str, Any]


class DerivationError(Exception):
    """The evidence contradicts a candidate, or does not decide it."""


@dataclass(frozen=True)
class Case:
    """One layer of one probe, and the limits that it breaks (None: the validator accepted it)."""

    probe: str
    facts: Facts
    limits: tuple[str, ...] | None


@dataclass(frozen=True)
class DerivedRule:
    """A rule of the pack, before it is written."""

    id: str
    layer: str
    verdict: str
    message: str
    when: Condition
    unless: Condition
    instead: str
    probes: tuple[str, ...]
    count: int


def cases(evidence: Evidence) -> dict[str, list[Case]]:
    """Group the layers of every judged network by layer type."""
    grouped: dict[str, list[Case]] = defaultdict(list)
    for finding in evidence.findings:
        if finding.has_verdict:
            for place, facts in enumerate(finding.layers):
                grouped[facts["layer"]].append(Case(finding.id, facts, finding.refused.get(place)))
    return dict(grouped)


def derive(evidence: Evidence) -> list[DerivedRule]:
    """Derive all rules.

    Raises:
        DerivationError: a candidate is contradicted, a number is not pinned down, or a refusal stays unexplained.
    """
    rules: list[DerivedRule] = []
    for layer, found in sorted(cases(evidence).items()):
        if layer == "NETWORK":
            rules += _network(found)
        elif all(case.limits == () for case in found):
            rules.append(_always(layer, found))
        else:
            rules += _layer(layer, found)
    return rules


def _layer(layer: str, found: Sequence[Case]) -> Iterator[DerivedRule]:
    explained = set(IMPLIED)
    for candidate in CANDIDATES:
        if layer in candidate.layers:
            yield _fitted(layer, candidate, found)
            explained.update(candidate.limits)
    for name, (limit, fact) in DTYPE_LIMITS.items():
        yield from _dtypes(layer, name, limit, fact, found)
        explained.add(limit)
    unexplained = {limit for case in found for limit in case.limits or ()} - explained
    if unexplained:
        raise DerivationError(f"{layer}: no candidate explains {', '.join(sorted(unexplained))}")
    yield from _allowed(layer, found)


def _fitted(layer: str, candidate: Candidate, found: Sequence[Case]) -> DerivedRule:
    broken = [case for case in found if set(case.limits or ()) & set(candidate.limits)]
    others = [case for case in found if not set(case.limits or ()) & set(candidate.limits)]
    when, unless, limit = _fit(layer, candidate, broken, others)
    _must_be_exact(f"{layer}.{candidate.id}", when, unless, broken, others)
    message = candidate.message.replace("{limit}", limit)
    return _rule(layer, candidate.id, message, when, unless, candidate.instead, broken)


def _fit(
    layer: str, candidate: Candidate, broken: Sequence[Case], others: Sequence[Case]
) -> tuple[Condition, Condition, str]:
    """Fill in the open number or set of a candidate: (when, unless, the number or set in words)."""
    if candidate.one_of:
        passed = sorted(
            {lookup(case.facts, candidate.one_of) for case in others if lookup(case.facts, candidate.one_of)}
        )
        return {}, {candidate.one_of: passed}, ", ".join(passed)
    if candidate.upper:
        bound = _bound(layer, candidate, candidate.upper, broken, others, largest=True)
        return {}, {candidate.upper: {"le": bound}}, str(bound)
    if candidate.lower:
        bound = _bound(layer, candidate, candidate.lower, broken, others, largest=False)
        return {}, {candidate.lower: {"ge": bound}}, str(bound)
    return candidate.when, candidate.unless, ""


def _bound(
    layer: str, candidate: Candidate, fact: str, broken: Sequence[Case], others: Sequence[Case], *, largest: bool
) -> int:
    """The outermost passing number; the next one must be among the failing ones."""
    passing = {number for case in others for number in _numbers(case.facts, fact)}
    failing = {number for case in broken for number in _numbers(case.facts, fact)} - passing
    bound, neighbour = (max(passing), max(passing) + 1) if largest else (min(passing), min(passing) - 1)
    if neighbour not in failing:
        raise DerivationError(f"{layer}.{candidate.id}: {bound} passes, but no probe fails at {neighbour}")
    return bound


def _numbers(facts: Facts, fact: str) -> list[int]:
    value = lookup(facts, fact)
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _dtypes(layer: str, name: str, limit: str, fact: str, found: Sequence[Case]) -> Iterator[DerivedRule]:
    """Dtypes that a layer refuses, for all its operations at once or, where they differ, for each."""
    broken = [case.limits or () for case in found if limit in (case.limits or ())]
    if not broken or (fact == "out_dtype" and all("LayerInputTypesLimit" in limits for limits in broken)):
        return  # never broken, or only together with the inputs, whose rule then says it already
    condition = _refused_dtypes(fact, limit, found)
    if condition is not None:
        yield _dtype_rule(layer, name, {"any": condition}, limit, fact, found)
        return
    for split in _SPLIT:
        groups: dict[str, list[Case]] = defaultdict(list)
        for case in found:
            groups[case.facts.get(split, "")].append(case)
        fitted = {kind: _refused_dtypes(fact, limit, members) for kind, members in sorted(groups.items())}
        if len(groups) < 2 or None in fitted.values():
            continue
        for kind, tests in fitted.items():
            if tests:
                when = {split: kind, "any": tests}
                yield _dtype_rule(layer, f"{name}.{kind.lower().replace('_', '-')}", when, limit, fact, found)
        return
    raise DerivationError(f"{layer}: {limit} does not follow from the dtypes at any one position")


def _refused_dtypes(fact: str, limit: str, found: Sequence[Case]) -> list[Condition] | None:
    """Tests, one per position, that hold for exactly the cases that break the limit; None when there are none such."""
    broken = [case for case in found if limit in (case.limits or ())]
    others = [case for case in found if limit not in (case.limits or ())]
    tests: list[Condition] = []
    for position in range(max((len(case.facts[fact]) for case in broken), default=0)):
        path = f"{fact}.{position}"
        bad = {lookup(case.facts, path) for case in broken} - {lookup(case.facts, path) for case in others} - {None}
        if bad:
            tests.append({path: {"known": True, "in": sorted(bad)}})  # a missing operand is no reason to doubt
    missed = [case for case in broken if not any(evaluate(test, case.facts) for test in tests)]
    return None if missed else tests


def _dtype_rule(layer: str, name: str, when: Condition, limit: str, fact: str, found: Sequence[Case]) -> DerivedRule:
    broken = [case for case in found if limit in (case.limits or ()) and evaluate(when, case.facts)]
    if len(when["any"]) == 1:
        when = {**{k: v for k, v in when.items() if k != "any"}, **when["any"][0]}
    words = "takes" if fact == "in_dtype" else "makes"
    message = f"{layer.replace('_', ' ').lower()} {words} no such dtype: {{in_dtype}} -> {{out_dtype}}"
    return _rule(layer, name, message, when, {}, "float32 or float16", broken)


def _network(found: Sequence[Case]) -> Iterator[DerivedRule]:
    limit = "NetworkDataTypesLimit"
    broken = [case for case in found if limit in (case.limits or ())]
    others = [case for case in found if limit not in (case.limits or ())]
    passed = {dtype for case in others for side in ("input_dtype", "output_dtype") for dtype in case.facts[side]}
    unless = {side: sorted(passed) for side in ("input_dtype", "output_dtype")}
    _must_be_exact("network.types", {}, unless, broken, others)
    message = f"network inputs {{input_dtype}}, outputs {{output_dtype}}: only {', '.join(sorted(passed))}"
    yield _rule("NETWORK", "types", message, {}, unless, "cast inside the network", broken)


def _always(layer: str, found: Sequence[Case]) -> DerivedRule:
    return _rule(layer, "refused", f"{layer} layers are out of scope", {}, {}, INSTEAD.get(layer, ""), found)


def _allowed(layer: str, found: Sequence[Case]) -> Iterator[DerivedRule]:
    """What passed, for the dtypes and operations that were seen to pass; anything else stays unknown."""
    split = next((name for name in _SPLIT if all(name in case.facts for case in found)), "")
    groups: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Case]] = defaultdict(list)
    kinds: dict[str, list[Case]] = defaultdict(list)
    for case in found:
        if case.limits is None:
            kinds[case.facts[split] if split else ""].append(case)
    for members in kinds.values():
        groups[_seen(members, "in_dtype"), _seen(members, "out_dtype")] += members
    for number, ((inputs, outputs), members) in enumerate(groups.items(), start=1):
        when: Condition = {"in_dtype": list(inputs)} if inputs else {}
        when |= {"out_dtype": list(outputs)} if outputs else {}
        if split:
            when[split] = sorted({case.facts[split] for case in members})
        name = "passes" if len(groups) == 1 else f"passes-{number}"
        yield _rule(layer, name, "within every limit", when, {}, "", members, verdict="allowed")


def _seen(found: Iterable[Case], fact: str) -> tuple[str, ...]:
    return tuple(sorted({dtype for case in found for dtype in case.facts[fact] if dtype}))


def _rule(
    layer: str,
    name: str,
    message: str,
    when: Condition,
    unless: Condition,
    instead: str,
    found: Sequence[Case],
    verdict: str = "denied",
) -> DerivedRule:
    identity = f"{layer.lower().replace('_', '-')}.{name}"
    probes = list(dict.fromkeys(case.probe for case in found))
    return DerivedRule(identity, layer, verdict, message, when, unless, instead, tuple(probes[:SHOWN]), len(probes))


def _must_be_exact(
    name: str, when: Condition, unless: Condition, broken: Sequence[Case], others: Sequence[Case]
) -> None:
    for expected, group in ((True, broken), (False, others)):
        for case in group:
            exempt = evaluate(unless, case.facts) if unless else False
            speaks = evaluate(when, case.facts) is True and exempt is False
            if speaks is not expected:
                raise DerivationError(f"{name}: probe {case.probe} contradicts it ({case.facts})")


def verdict_of(finding: Finding) -> str:
    """The verdict that a correct pack gives on a probe: allowed or denied; unknown where the validator gave none."""
    return {"accepted": "allowed", "refused": "denied"}.get(finding.answer, "unknown")
