"""Words about rules, packs and errata, for ``check --explain``, ``rules`` and ``errata``."""

from __future__ import annotations

import json
from dataclasses import dataclass

from csa_deploy.errors import UsageError
from csa_deploy.naming import did_you_mean
from csa_deploy.restricted.errata.schema import ErrataPack, Erratum, all_errata
from csa_deploy.restricted.schema import Pack, Rule, load_pack, scopes
from csa_deploy.restricted.vocabulary import EVIDENCE
from csa_deploy.results import Stored

NOT_ASKED_OF_RTX = "errata.not-asked-of-rtx"

_NO_PACK = {
    "no-rule": """no-rule
  No rule of the pack speaks about this layer. The verdict is the default of the pack: 'unknown' where NVIDIA
  publishes no list, 'denied' where the documented list is closed (DLA).""",
    NOT_ASKED_OF_RTX: f"""{NOT_ASKED_OF_RTX}
  TensorRT-RTX built the engine. The errata packs are about TensorRT, so nothing is known about this engine's own
  version: `gate` leaves a policy with `errata` undecided until the project accepts that.""",
    "validator.refused": """validator.refused
  NVIDIA's validator (scope drive-os-7) refuses this layer, and the rule pack does not: denied.""",
    "validator.skipped": """validator.skipped
  NVIDIA's validator did not look at the network, because a shape in it is not fixed before run time: unknown.""",
    "validator.not-parsed": """validator.not-parsed
  NVIDIA's parser, or the builder's general checks, refused the network before its scope was validated: unknown.""",
    "validator.crashed": """validator.crashed
  NVIDIA's validator ended its process on this network: unknown.""",
    "validator.timed-out": """validator.timed-out
  NVIDIA's validator did not answer about this network in time: unknown.""",
}
"""Ids of findings that stand in no pack."""


@dataclass(frozen=True)
class PackSummary(Stored):
    """One line of ``csa-deploy rules``."""

    scope: str
    title: str
    tensorrt: str
    kind: str
    default: str
    rules: int
    limits: str


def list_packs() -> list[PackSummary]:
    """All scopes with a pack."""
    packs = [load_pack(scope) for scope in scopes()]
    return [
        PackSummary(pack.scope, pack.title, pack.tensorrt, pack.kind, pack.default, len(pack.rules), pack.limits)
        for pack in packs
    ]


def explain(rule_id: str) -> str:
    """All that is known about a rule, in every scope that has it, or about an erratum.

    Args:
        rule_id: id as in a finding, with or without ``scope/`` in front.

    Raises:
        UsageError: there is no such id; names the nearest ones.
    """
    wanted, _, name = rule_id.rpartition("/")
    if name in _NO_PACK:
        return _NO_PACK[name]
    errata = {erratum.id: (pack, erratum) for pack, erratum in all_errata()}
    if name in errata:
        return _erratum(*errata[name])
    found: list[tuple[Rule, list[Pack]]] = []
    names: set[str] = {*errata}
    for pack in (load_pack(scope) for scope in scopes()):
        names |= {rule.id for rule in pack.rules}
        for rule in pack.rules:
            if rule.id == name and wanted in ("", pack.scope):
                _packs_of(rule, found).append(pack)
    if not found:
        fix = did_you_mean(name, sorted(names), "`csa-deploy rules` and `csa-deploy errata` list them", most=3)
        raise UsageError(f"no scope has a rule '{rule_id}', and no erratum has this id", fix=fix)
    return "\n\n".join(_paragraph(rule, packs) for rule, packs in found)


def _erratum(pack: ErrataPack, erratum: Erratum) -> str:
    """All of an erratum; what it asks of nodes and network as the pack states it."""
    patterns = [json.dumps(pattern.model_dump(mode="json", exclude_defaults=True)) for pattern in erratum.pattern]
    lines = {
        "problem": erratum.title,
        "symptom": f"{erratum.symptom}, severity {erratum.severity}",
        "versions": erratum.versions.words,
        "on": ", ".join(filter(None, ["DLA" if erratum.dla else "", *erratum.platforms, erratum.gpu])),
        "precision": ", ".join(erratum.precision),
        "found by": "; ".join([*patterns, *([json.dumps(erratum.network)] if erratum.network else [])]),
        "unlike": ", ".join(erratum.unlike),
        "workaround": erratum.workaround,
        "repair": f"{erratum.repair} (check --errata --fix)" if erratum.repair else "",
        "verify": erratum.detect,
        "source": "; ".join(erratum.source),
        "state": f"{erratum.state} when it was read on {pack.read}; it may have moved since",
    }
    return "\n".join([erratum.id, *(f"  {name + ':':<12}{text}" for name, text in lines.items() if text)])


def _packs_of(rule: Rule, found: list[tuple[Rule, list[Pack]]]) -> list[Pack]:
    """Packs that have this very rule; scopes share inherited rules."""
    for other, packs in found:
        if other == rule:
            return packs
    found.append((rule, []))
    return found[-1][1]


def _paragraph(rule: Rule, packs: list[Pack]) -> str:
    lines = [
        rule.id,
        f"  verdict:  {rule.verdict}",
        f"  scopes:   {', '.join(f'{pack.scope} (TensorRT {pack.tensorrt})' for pack in packs)}",
        f"  layers:   {', '.join(rule.layer)}",
        f"  message:  {rule.message}",
        f"  evidence: {rule.evidence} - {EVIDENCE[rule.evidence]}",
        f"  source:   {rule.source}",
    ]
    optional = {
        "when": json.dumps(rule.when) if rule.when else "",
        "unless": json.dumps(rule.unless) if rule.unless else "",
        "since": rule.since,
        "until": rule.until,
        "instead": rule.instead,
        "repair": rule.repair,
        "probes": ", ".join(rule.probes[:10]) + (f" and {len(rule.probes) - 10} more" if len(rule.probes) > 10 else ""),
    }
    return "\n".join(lines + [f"  {name + ':':<10}{value}" for name, value in optional.items() if value])
