"""The static check: a model against rule packs, without TensorRT and without touching a weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from onnx import ModelProto

from csa_deploy.records.check import Finding, RuleReport, ScopeReport
from csa_deploy.restricted.graph import Graph
from csa_deploy.restricted.judge import Judge, LayerJudgement, is_real
from csa_deploy.restricted.loading import load_graph
from csa_deploy.restricted.mapping.network import map_graph, parser_family
from csa_deploy.restricted.mapping.recorder import TrtLayer
from csa_deploy.restricted.placement import place
from csa_deploy.restricted.schema import Pack, load_pack, scopes, version_key
from csa_deploy.restricted.vocabulary import NETWORK

Progress = Callable[[int, int], None]

_ORDER = {"denied": 0, "unknown": 1, "note": 2}


def check(
    model: ModelProto | Path | Graph,
    scope_names: Sequence[str] = (),
    *,
    strict: bool = False,
    name: str = "",
    progress: Progress | None = None,
) -> RuleReport:
    """Judge a model by the rule packs of safety scopes.

    Args:
        model: a path, a model in memory (it is not changed, its weights are not copied), or a graph that was read.
        scope_names: scopes to judge by; none: all that have a pack.
        strict: count unknown as denied.
        name: name of the model in the report; default: the file name, or the graph's name where it is in memory.
        progress: called with (scopes done, scopes).

    Raises:
        UsageError: unknown scope, broken pack, or no readable ONNX model.
    """
    packs = [load_pack(scope) for scope in scope_names or scopes()]
    graph = model if isinstance(model, Graph) else load_graph(model)
    mapped: dict[tuple[int, ...], list[TrtLayer]] = {}
    reports = []
    for done, pack in enumerate(packs, 1):
        family = parser_family(version_key(pack.tensorrt))
        if family not in mapped:
            mapped[family] = list(map_graph(graph, family))
        reports.append(judge_scope(graph, mapped[family], pack))
        if progress:
            progress(done, len(packs))
    default = model.name if isinstance(model, Path) else model.graph.name if isinstance(model, ModelProto) else ""
    skipped = ("validator: not asked by the static check", "build: nothing was built")
    return RuleReport(name or default, tuple(reports), strict, skipped)


def judge_scope(graph: Graph, layers: Sequence[TrtLayer], pack: Pack) -> ScopeReport:
    """Verdict of one pack about mapped layers (the network's pseudo layer comes last)."""
    judge = Judge(pack)
    judgements = [judge.judge(layer) for layer in layers if layer.type != NETWORK]
    placement = place(graph, judgements) if pack.kind == "dla" else None
    network = layers[-1]
    if placement is not None:
        network = replace(network, facts={**network.facts, "loadables": placement.subgraphs})
    whole = judge.judge(network)
    if placement is not None:
        nowhere = [whole, *(found for found in judgements if found.layer.node is None)]
        rules = (f.rule for found in nowhere for f in found.findings if f.verdict == "denied")
        placement = replace(placement, whole=tuple(dict.fromkeys(rules)))
    findings = _findings([*judgements, whole])
    return ScopeReport(
        scope=pack.scope,
        title=pack.title,
        tensorrt=pack.tensorrt,
        limits=pack.limits,
        nodes=sum(1 for _ in graph.walk()),
        layers=sum(is_real(layer) for layer in layers),
        findings=tuple(findings),
        placement=placement,
    )


def _findings(judgements: Sequence[LayerJudgement]) -> list[Finding]:
    """Each finding once, the worst first, then in graph order."""
    unique = dict.fromkeys(finding for judgement in judgements for finding in judgement.findings)
    return sorted(unique, key=lambda finding: _ORDER[finding.verdict])
