"""Judges layers by the rules of a pack: every rule speaks, the worst wins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from csa_deploy.records.check import Finding, Verdict
from csa_deploy.restricted.conditions import evaluate, every, negate
from csa_deploy.restricted.mapping.recorder import TrtLayer
from csa_deploy.restricted.schema import Pack, Rule
from csa_deploy.restricted.vocabulary import NETWORK, PSEUDO_LAYERS

NO_RULE = "no-rule"
"""Rule id of a finding about a layer that no rule of the pack speaks about."""


@dataclass(frozen=True)
class LayerJudgement:
    """What a pack says about one layer."""

    layer: TrtLayer
    verdict: Verdict
    findings: tuple[Finding, ...]


class Judge:
    """A pack, ready to judge many layers."""

    def __init__(self, pack: Pack) -> None:
        self.pack = pack
        allows = any(rule.verdict == "allowed" for rule in pack.rules)
        self._permitted = f"a layer that `csa-deploy rules {pack.scope}` allows, or " if allows else ""
        self._spoken: dict[tuple[str, str], list[tuple[Rule, bool | None]]] = {}

    def judge(self, layer: TrtLayer) -> LayerJudgement:
        """All that the pack says about a layer.

        A ``denied`` rule that cannot be decided makes the layer unknown; an ``allowed`` rule only counts when it holds.
        """
        if (spoken := self._spoken.get(layer.key)) is None:
            spoken = [(rule, speaks(rule, layer.facts)) for rule in self.pack.rules_for(layer.type)]
            self._spoken[layer.key] = spoken
        findings = [found for rule, holds in spoken if (found := _finding(rule, holds, layer))]
        verdicts = {finding.verdict for finding in findings}
        allowed = any(holds for rule, holds in spoken if rule.verdict == "allowed")
        if "denied" in verdicts:
            return LayerJudgement(layer, "denied", tuple(findings))
        if "unknown" in verdicts:
            return LayerJudgement(layer, "unknown", tuple(findings))
        if allowed or layer.type == NETWORK:  # of the network, only defects are worth a rule
            return LayerJudgement(layer, "allowed", tuple(findings))
        return LayerJudgement(layer, self.pack.default, (*findings, self._default(layer)))

    def _default(self, layer: TrtLayer) -> Finding:
        pack = self.pack
        what = describe(layer)
        if pack.default == "denied":
            message, source = f"{what} is not among what {pack.title} takes", "the list of this scope is closed"
            instead = f"a layer that `csa-deploy rules {pack.scope}` allows"
        else:
            message, source = (
                f"no source says whether {what} is allowed",
                pack.limits or "the list of this scope is open",
            )
            instead = f"{self._permitted}a build that decides"
        return _make(layer, NO_RULE, pack.default, message, source=source, evidence="definition", instead=instead)


def speaks(rule: Rule, facts: Mapping[str, Any]) -> bool | None:
    """Whether a rule speaks about a layer with these facts; None when a fact it needs is missing."""
    exempt = evaluate(rule.unless, facts) if rule.unless else False
    return every((evaluate(rule.when, facts), negate(exempt)))


def describe(layer: TrtLayer) -> str:
    """A layer in words: its type, its kind, and what distinguishes it from one that a rule knows."""
    facts = layer.facts
    words = [f"a layer {layer.type}"]
    words += [str(facts[name]) for name in ("kind", "mode") if facts.get(name)]
    ranks = [rank for side in ("in_rank", "out_rank") for rank in facts.get(side, ())[:1] if rank is not None]
    if ranks:
        words.append(f"of rank {' -> '.join(map(str, dict.fromkeys(ranks)))}")
    dtypes = sorted({dtype for dtype in (*facts.get("in_dtype", ()), *facts.get("out_dtype", ())) if dtype})
    if dtypes and set(dtypes) != {"float32"}:
        words.append(f"({', '.join(dtypes)})")
    return " ".join(words)


def _finding(rule: Rule, holds: bool | None, layer: TrtLayer) -> Finding | None:
    if rule.verdict == "allowed" or holds is False:
        return None
    message = render(rule.message, layer.facts)
    if holds:
        return _of_rule(rule, rule.verdict, message, layer)
    if rule.verdict == "note":
        return None
    return _of_rule(rule, "unknown", f"cannot be decided, a fact is missing: {message}", layer)


def _of_rule(rule: Rule, verdict: Literal["denied", "unknown", "note"], message: str, layer: TrtLayer) -> Finding:
    return _make(
        layer,
        rule.id,
        verdict,
        message,
        since=rule.since,
        evidence=rule.evidence,
        source=rule.source,
        instead=rule.instead,
        repair=rule.repair,
    )


def _make(
    layer: TrtLayer, rule: str, verdict: Literal["denied", "unknown", "note"], message: str, **words: str
) -> Finding:
    node = layer.node
    return Finding(
        rule=rule,
        verdict=verdict,
        node=node.name if node else "",
        op=node.op if node else str(layer.facts.get("op", "")),
        layer=layer.type,
        module=node.module if node else "",
        message=message,
        since=words.get("since", ""),
        evidence=words["evidence"],
        source=words["source"],
        instead=words.get("instead", ""),
        repair=words.get("repair", ""),
    )


class _Words(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "?"


def render(template: str, facts: Mapping[str, Any]) -> str:
    """A message with the facts of the layer at hand; a fact that is not known reads ``?``."""
    return template.format_map(
        _Words({name: _text(value) for name, value in facts.items() if f"{{{name}}}" in template})
    )


def _text(value: Any) -> str:
    if value is None:
        return "?"
    if isinstance(value, float):
        return f"{value:.9g}"
    if isinstance(value, list | tuple):
        inner = ", ".join(_text(item) for item in value)
        return inner if value and isinstance(value[0], list | tuple) else f"[{inner}]"
    return str(value)


def is_real(layer: TrtLayer) -> bool:
    """Whether a layer is one of TensorRT's, not a pseudo layer."""
    return layer.type not in PSEUDO_LAYERS
