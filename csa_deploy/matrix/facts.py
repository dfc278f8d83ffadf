"""What is known of a network in a TensorRT version without any machine: verdicts of scopes, known problems."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from csa_deploy.matrix.plan import Spot
from csa_deploy.records.matrix import RTX, KnownOfVersion, KnownProblemHere, ScopeHere
from csa_deploy.restricted.errata.asking import question_of
from csa_deploy.restricted.errata.finding import Question, known_problems
from csa_deploy.restricted.inspection import inspect
from csa_deploy.restricted.loading import load_graph
from csa_deploy.restricted.scopes import Platform, choose_gates, fitting

if TYPE_CHECKING:
    from csa_deploy.config import Config


def known_of(graph: Path, spots: Sequence[Spot], config: Config) -> tuple[KnownOfVersion, ...]:
    """One entry per version and platform.

    Args:
        graph: FP32 graph that engines are made of.
        spots: versions and places.
        config: precisions, scopes, and whether scopes decide.
    """
    found: dict[tuple[str, str], KnownOfVersion] = {}
    asked = question_of(config.model_copy(update={"target": None}))
    for spot in spots:
        key = spot.tensorrt, spot.place.platform
        if key not in found:
            question = Question(spot.tensorrt, spot.place.platform, asked.dla, asked.precisions)
            found[key] = _known(graph, spot, question, config)
    return tuple(found.values())


def _known(graph: Path, spot: Spot, question: Question, config: Config) -> KnownOfVersion:
    if spot.tensorrt == RTX:
        return KnownOfVersion(RTX, "", (), (), 0, ("rules and known problems are of TensorRT, not TensorRT-RTX",))
    platform = Platform(spot.place.name, question.platform or "other", spot.tensorrt, question.dla)
    kinds = ("gpu", "dla") if question.dla else ("gpu",)
    fits = [p.scope for p in fitting(platform) if (p.scope in config.scope if config.scope else p.kind in kinds)]
    gates = choose_gates([name for name in config.scope if name in fits], platform).scopes if config.restricted else ()
    if fits:
        result = inspect(graph, fits, strict=config.strict, errata=question)
        scopes = tuple(ScopeHere(s.report.scope, s.verdict, s.level, s.report.scope in gates) for s in result.scopes)
        assert result.errata is not None
        report = result.errata
    else:
        scopes, report = (), known_problems(load_graph(graph), question)
    problems = tuple(KnownProblemHere(p.id, p.severity, p.title) for p in report.affected)
    unknown = (*report.unknown, *(() if scopes else (f"no scope speaks for TensorRT {spot.tensorrt}",)))
    rest = len(report.problems) - len(problems)
    return KnownOfVersion(spot.tensorrt, question.platform, scopes, problems, rest, unknown)
