"""Holds a graph against the errata packs: what is known of it in one TensorRT version, on one platform."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

from csa_deploy.records.errata import SEVERITIES, ErrataReport, KnownProblem, State
from csa_deploy.restricted.conditions import evaluate, every
from csa_deploy.restricted.errata.matching import FLOATS, Neighbourhood, types_of
from csa_deploy.restricted.errata.schema import ErrataPack, Erratum, all_errata, errata_packs
from csa_deploy.restricted.errata.versions import Known, checked_version, compared
from csa_deploy.restricted.graph import Graph, Node
from csa_deploy.restricted.schema import version_key

_TYPE = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_PLATFORM = "it is about {}, and the platform is not stated"
_UNDECIDED = "the graph does not say whether it is of the kind: a shape or a value is not fixed"


@dataclass(frozen=True)
class Question:
    """What errata are asked about.

    Attributes:
        tensorrt: version, with as many parts as are known ('' every one).
        platform: platform of the target, as its file names it ('' or ``other``: any).
        dla: whether DLA is to run the network.
        precisions: of the engines to build.
    """

    tensorrt: str = ""
    platform: str = ""
    dla: bool = False
    precisions: tuple[str, ...] = ("fp32", "fp16")

    @property
    def where(self) -> str:
        """``drive-orin, DLA``."""
        return ", ".join(filter(None, [self.platform, "DLA" if self.dla else ""]))

    def fits(self, erratum: Erratum) -> bool | None:
        """Whether an erratum is about this platform; None where the platform decides and is not known.

        What is about every network of one platform is not said where the platform is not stated.
        """
        if erratum.dla and not self.dla:
            return False
        if not erratum.platforms or self.platform in erratum.platforms:
            return True
        return None if erratum.pattern and self.platform in ("", "other") else False


def known_problems(graph: Graph, question: Question) -> ErrataReport:
    """What is known of a graph; time is linear in its nodes."""
    around = Neighbourhood(graph)
    network = around.network
    found = (_problem(pack, erratum, around, network, question) for pack, erratum in all_errata())
    return _report([problem for problem in found if problem is not None], question)


def listed(version: str = "") -> ErrataReport:
    """All errata of a version ('' every one), whatever the graph.

    Raises:
        UsageError: no version.
    """
    checked_version(version)
    states = ((pack, erratum, _in_version(pack, erratum, version)) for pack, erratum in all_errata())
    return _report([_said(pack, erratum, *state) for pack, erratum, state in states if state], Question(version))


def _report(problems: Sequence[KnownProblem], question: Question) -> ErrataReport:
    order = {severity: place for place, severity in enumerate(SEVERITIES)}
    packs = errata_packs()
    return ErrataReport(
        question.tensorrt,
        question.where,
        question.precisions,
        tuple(sorted(problems, key=lambda p: (p.state != "affected", order[p.severity]))),
        beyond(packs, question.tensorrt),
        str(max(pack.read for pack in packs)) if packs else "",
    )


def beyond(packs: Sequence[ErrataPack], version: str) -> tuple[str, ...]:
    """What the packs cannot say about a version: they are older than it, or do not go back so far."""
    if not version or not packs:
        return ()
    oldest = min((pack.tensorrt[0] for pack in packs), key=version_key)
    newest = max((pack.tensorrt[1] for pack in packs), key=version_key)
    read = max(pack.read for pack in packs)
    if compared(version, newest) > 0:
        return (f"nothing is known about TensorRT {version}: sources were read on {read}, up to {newest}",)
    if compared(version, oldest) < 0:
        return (f"nothing is known about TensorRT {version}: sources were read from {oldest} on",)
    return ()


def _in_version(pack: ErrataPack, erratum: Erratum, version: str) -> Known | None:
    """The state of a version; what names none is not certain in one that nobody looked for."""
    known = erratum.versions.state(version)
    return ("not ruled out", known[1]) if known and not erratum.seen and beyond([pack], version) else known


def _problem(
    pack: ErrataPack, erratum: Erratum, around: Neighbourhood, network: dict[str, Any], question: Question
) -> KnownProblem | None:
    """The erratum about this graph; None where it is not about it."""
    version, there = _in_version(pack, erratum, question.tensorrt), question.fits(erratum)
    of_network = evaluate(erratum.network, network)
    if version is None or there is False or of_network is False:
        return None
    engines = _engines(network, question)
    matches = [m for m in around.find(erratum) if _shows(erratum, network, types_of(m[0]), engines)]
    if not matches and (erratum.pattern or not _shows(erratum, network, FLOATS, engines)):
        return None
    sure = [match for match in matches if match[1]]
    decided = every([of_network, bool(sure) or not matches or None])
    platform = "" if there else _PLATFORM.format(" or ".join(erratum.platforms))
    reasons = [version[1], platform, "" if decided else _UNDECIDED]
    state: State = version[0] if there and decided else "not ruled out"
    return _said(pack, erratum, state, "; ".join(filter(None, reasons)), [node for node, _ in sure or matches])


def _said(pack: ErrataPack, erratum: Erratum, state: State, why: str, nodes: Sequence[Node] = ()) -> KnownProblem:
    return KnownProblem(
        id=erratum.id,
        title=erratum.title,
        state=state,
        why=why,
        symptom=erratum.symptom,
        severity=erratum.severity,
        nodes=tuple(node.name for node in nodes),
        modules=tuple(dict.fromkeys(node.module for node in nodes if node.module)),
        versions=erratum.versions.words,
        sources=erratum.source,
        read=str(pack.read),
        workaround=erratum.workaround,
        repair=erratum.repair,
        detect=erratum.detect,
    )


def _engines(network: dict[str, Any], question: Question) -> set[str]:
    """Precisions of the engines: those asked for, and those that the graph itself states."""
    stated = {name for name in ("fp16", "bf16") if _TYPE[name] in network["dtypes"]}
    return {*question.precisions, *stated, *(["int8"] if network["quantized"] else [])}


def _shows(erratum: Erratum, network: dict[str, Any], types: Set[str], engines: Set[str]) -> bool:
    """Whether an engine shows the problem in its precision; in a typed graph the node has to compute in it."""
    half = {_TYPE[name] for name in erratum.precision if name in ("fp16", "bf16")}
    typed = half & set(network["dtypes"])
    if not erratum.precision:
        return True
    return bool(half & types) if typed else bool(engines & set(erratum.precision))
