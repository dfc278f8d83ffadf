"""Holds a graph against the errata packs: what is known of it in one TensorRT version, on one platform."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from csa_deploy.records.errata import SEVERITIES, ErrataReport, KnownProblem, State
from csa_deploy.restricted.conditions import evaluate, every
from csa_deploy.restricted.errata.matching import Match, Neighbourhood, types_of
from csa_deploy.restricted.errata.schema import ErrataPack, Erratum, errata_packs
from csa_deploy.restricted.errata.versions import compared
from csa_deploy.restricted.graph import Graph

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
        """Whether an erratum is about this platform; None where the platform decides and is not known."""
        if erratum.dla and not self.dla:
            return False
        if not erratum.platforms or self.platform in erratum.platforms:
            return True
        return None if self.platform in ("", "other") else False


def known_problems(graph: Graph, question: Question) -> ErrataReport:
    """What is known of a graph; time is linear in its nodes."""
    around = Neighbourhood(graph)
    network = around.network
    packs = errata_packs()
    found = [
        problem
        for pack in packs
        for erratum in pack.errata
        if (problem := _problem(pack, erratum, around, network, question)) is not None
    ]
    order = {severity: place for place, severity in enumerate(SEVERITIES)}
    found.sort(key=lambda problem: (problem.state != "affected", order[problem.severity]))
    return ErrataReport(
        question.tensorrt,
        question.where,
        question.precisions,
        tuple(found),
        beyond(packs, question.tensorrt),
        str(max(pack.read for pack in packs)) if packs else "",
    )


def beyond(packs: Sequence[ErrataPack], version: str) -> tuple[str, ...]:
    """What the packs cannot say about a version: they are older than it, or do not go back so far."""
    if not version or not packs:
        return ()
    oldest, newest = packs[0].tensorrt[0], packs[0].tensorrt[1]
    for pack in packs:
        oldest = min(oldest, pack.tensorrt[0], key=_key)
        newest = max(newest, pack.tensorrt[1], key=_key)
    read = max(pack.read for pack in packs)
    if compared(version, newest) > 0:
        return (f"nothing is known about TensorRT {version}: sources were read on {read}, up to {newest}",)
    if compared(version, oldest) < 0:
        return (f"nothing is known about TensorRT {version}: sources were read from {oldest} on",)
    return ()


def _key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _problem(
    pack: ErrataPack, erratum: Erratum, around: Neighbourhood, network: dict[str, object], question: Question
) -> KnownProblem | None:
    """The erratum about this graph; None where it is not about it."""
    version, there = erratum.versions.state(question.tensorrt), question.fits(erratum)
    of_network = evaluate(erratum.network, network)
    if version is None or there is False or of_network is False:
        return None
    matches = around.find(erratum) if erratum.pattern else []
    matches = [match for match in matches if _computes_in(erratum, match, network, question)]
    if (erratum.pattern and not matches) or not (matches or _meets(erratum, network, question)):
        return None
    sure = [match for match in matches if match[1]]
    decided = every([of_network, bool(sure) or not matches or None])
    reasons = [
        version[1],
        "" if there else _PLATFORM.format(" or ".join(erratum.platforms)),
        "" if decided else _UNDECIDED,
    ]
    state: State = version[0] if there and decided else "not ruled out"
    shown = [node for node, _ in sure or matches]
    return KnownProblem(
        id=erratum.id,
        title=erratum.title,
        state=state,
        why="; ".join(filter(None, reasons)),
        symptom=erratum.symptom,
        severity=erratum.severity,
        nodes=tuple(node.name for node in shown),
        modules=tuple(dict.fromkeys(node.module for node in shown if node.module)),
        versions=erratum.versions.words,
        sources=erratum.source,
        read=str(pack.read),
        workaround=erratum.workaround,
        repair=erratum.repair,
        detect=erratum.detect,
    )


def _computes_in(erratum: Erratum, match: Match, network: dict[str, object], question: Question) -> bool:
    """Whether a node computes in a precision that shows the problem: by its types where the graph is typed."""
    wanted = {_TYPE[name] for name in erratum.precision if name in _TYPE}
    typed = {"float16", "bfloat16"} & set(_types(network))
    if not erratum.precision or "int8" in erratum.precision or not typed:
        return _meets(erratum, network, question)
    return bool(wanted & types_of(match[0]))


def _meets(erratum: Erratum, network: dict[str, object], question: Question) -> bool:
    """Whether one of the engines is of a precision that shows the problem."""
    has = {name for name, dtype in _TYPE.items() if name != "fp32" and dtype in _types(network)}
    engines = {*question.precisions, *has, *(["int8"] if network["quantized"] else [])}
    return not erratum.precision or bool(engines & set(erratum.precision))


def _types(network: dict[str, object]) -> Sequence[str]:
    types = network["dtypes"]
    return types if isinstance(types, list) else ()
