"""Functions of the API that work on a graph in memory: check, repair, optimize, to_fp16 and prove."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import onnx

from csa_deploy.api.given import Data, Graph, Network, graph_of, name_of, origin_of
from csa_deploy.api.results import CheckReport, Exported, Half, Optimized, Repaired
from csa_deploy.api.staging import Given, Place, folder_of, loaded, opened, run, with_precision
from csa_deploy.graph.load import save_model
from csa_deploy.graph.optimize import TOLERANCE
from csa_deploy.graph.optimize import optimize as rewrite
from csa_deploy.graph.prove import Proven, prove_equal
from csa_deploy.precision.fp16 import to_fp16 as typed_in_half
from csa_deploy.records.check import CheckRecord, Inspected
from csa_deploy.records.optimize import OptimizeRecord
from csa_deploy.records.precision import HalfFigures, HalfGraph, PrecisionRecord
from csa_deploy.records.repair import RepairRecord
from csa_deploy.restricted.errata.finding import Question
from csa_deploy.restricted.errata.versions import checked_version
from csa_deploy.restricted.inspection import gate_scopes, inspect
from csa_deploy.restricted.repairing import repair_for_scopes
from csa_deploy.results import jsonable, plain
from csa_deploy.stages.optimize import record_of


def check(
    graph: Graph | Network,
    scopes: str | Sequence[str] = (),
    *,
    strict: bool = False,
    errata: bool | str = False,
    workspace: Place = None,
    **settings: Any,
) -> CheckReport:
    """Judge the operations of a graph by the rules of safety scopes, and by NVIDIA's validator where it is installed.

    Args:
        graph: a graph, a path, or a result that holds one; with a workspace a network.
        scopes: a name or names, such as ``drive-os-6``; none: all.
        strict: count unknown as denied.
        errata: name the known problems of TensorRT that the graph meets, too: of a version such as ``"10.11"``, or
            True for every one.
        workspace: run the stage there.
        settings: of the export in that workspace, by the names of flags.

    Returns:
        The verdicts; a denied network raises nothing.

    Raises:
        UsageError: no such scope or version, or no readable graph.
    """
    if workspace is not None:
        given = {**settings, "scope": _names(scopes) or None, "strict": strict or None, "errata": errata is not False}
        given |= {"tensorrt": errata} if isinstance(errata, str) else {}
        with folder_of(workspace) as root, opened(root, graph, given, workspace) as context:
            run(["check"], context)
            record = context.workspace.read(CheckRecord)
            return CheckReport(**{item.name: getattr(record, item.name) for item in fields(Inspected)})
    _refuse(settings)
    with _on_disk(graph) as path:
        # Of an export the arithmetic about weights and shapes is folded first, as the command does.
        asked = None if errata is False else Question(checked_version("" if errata is True else errata))
        found = inspect(path, _names(scopes), strict=strict, folded=isinstance(graph, Exported), errata=asked)
        return CheckReport(**found.said())


def repair(
    graph: Graph | Network,
    scopes: str | Sequence[str] = (),
    *,
    strict: bool = False,
    workspace: Place = None,
    **settings: Any,
) -> Repaired:
    """Rewrite exactly what scopes deny and a repair is known for; every step is proved, and no scope gets worse.

    It is what ``csa-deploy check --fix`` does; with a workspace what ``run --fix`` does, on the optimized graph.
    The argument is not changed.

    Args:
        graph: a graph of fixed shape, a path, or a result that holds one; with a workspace a network.
        scopes: scopes to repair for; none: those that decide by default.
        strict: count unknown as denied.
        workspace: run the stages there.
        settings: of the export in that workspace, by the names of flags.

    Raises:
        UsageError: no such scope, or no readable graph.
    """
    if workspace is not None:
        given = {**settings, "scope": _names(scopes) or None, "strict": strict or None, "fix": True}
        with folder_of(workspace) as root, opened(root, graph, given, workspace) as context:
            return _repaired_in(context)
    _refuse(settings)
    model, name = graph_of(graph), name_of(graph)
    with _on_disk(graph) as path:
        before = inspect(path, _names(scopes), strict=strict, folded=isinstance(graph, Exported))
        found = repair_for_scopes(path, gate_scopes(_names(scopes)), before=before, strict=strict)
    return Repaired(
        name,
        found.steps,
        found.left,
        CheckReport(**before.said()),
        CheckReport(**found.after.said()),
        found.model is not None,
        found.scopes,
        found.declined,
        model=model if found.model is None else found.model,
        source=origin_of(graph),
    )


def _repaired_in(context: Given) -> Repaired:
    """The repair of a workspace, judged before and after."""
    run(["check"], context)
    optimized, repaired = context.workspace.read(OptimizeRecord), context.workspace.read(RepairRecord)
    before, after = (
        CheckReport(**inspect(context.path(made.graph), list(repaired.scopes), strict=context.config.strict).said())
        for made in (optimized, repaired)
    )
    return Repaired(
        context.name,
        repaired.steps,
        repaired.left,
        before,
        after,
        repaired.graph != optimized.graph,
        repaired.scopes,
        repaired.declined,
        model=loaded(context, repaired.graph),
        source=context.source,
    )


def optimize(graph: Graph | Network, *, workspace: Place = None, **settings: Any) -> Optimized:
    """Rewrite a graph to do the same with less; every rewrite is proved before it is kept.

    Args:
        graph: a graph of fixed shape, a path, or a result that holds one; with a workspace a network. It is not
            changed.
        workspace: run the stage there.
        settings: of the export in that workspace, by the names of flags.

    Raises:
        UsageError: an input has no fixed shape, or no readable graph.
    """
    if workspace is not None:
        with folder_of(workspace) as root, opened(root, graph, settings, workspace) as context:
            run(["optimize"], context)
            record = context.workspace.read(OptimizeRecord)
            return Optimized(context.name, record, model=loaded(context, record.graph), source=context.source)
    _refuse(settings)
    found, name = rewrite(graph_of(graph)), name_of(graph)
    record = record_of(found, f"onnx/{name}.optimized.onnx")
    return Optimized(name, record, model=found.model, source=origin_of(graph))


def to_fp16(
    graph: Graph | Network,
    *,
    io: Literal["fp32", "fp16"] = "fp32",
    keep_fp32: str | Sequence[str] = (),
    workspace: Place = None,
    **settings: Any,
) -> Half:
    """Type a graph in FP16, with FP32 where FP16 cannot hold the numbers.

    Args:
        graph: a graph of known shapes, a path, or a result that holds one; with a workspace a network, whose optimized
            graph is typed. It is not changed.
        io: type of the network's inputs and outputs.
        keep_fp32: names of nodes that stay in FP32.
        workspace: run the stages there.
        settings: of the export in that workspace, by the names of flags.

    Raises:
        UsageError: ``keep_fp32`` names a node that is not there, or no readable graph.
    """
    if workspace is not None:
        with folder_of(workspace) as root:
            given = {"fp16_io": io == "fp16" or None, "keep_fp32": _names(keep_fp32) or None, **settings}
            given.setdefault("precision", with_precision("fp16", root))
            with opened(root, graph, given, workspace) as context:
                run(["precision"], context)
                typed = context.workspace.read(PrecisionRecord).precisions["fp16"]
                assert isinstance(typed, HalfGraph)  # it was asked for
                report = {item.name: jsonable(getattr(typed, item.name)) for item in fields(HalfFigures)}
                counted = (context.name, typed.nodes, typed.casts, typed.kept)
                return Half(*counted, plain(report), model=loaded(context, typed.graph), source=context.source)
    _refuse(settings)
    found = typed_in_half(graph_of(graph), io=io, keep_fp32=_names(keep_fp32))
    said = (name_of(graph), found.nodes, found.casts, found.kept)
    return Half(*said, plain(found.to_json()), model=found.model, source=origin_of(graph))


def prove(
    a: Graph,
    b: Graph,
    data: Data = None,
    *,
    samples: int | None = None,
    seed: int = 0,
    tolerance: float = TOLERANCE,
) -> Proven:
    """Whether two graphs compute the same: equal, different (how far, from which node on), or not proved (why).

    Made for graphs that a slimmer, a simplifier or another exporter wrote. See docs/optimize.md for what it rests on.

    Args:
        a: the original.
        b: what is to be the same.
        data: samples to compare on beside the generated inputs.
        samples: use so many of them; default: all.
        seed: of the generated inputs.
        tolerance: largest difference that counts as rounding in FP32, relative to a channel's range.

    Raises:
        UsageError: inputs or outputs do not correspond, have no fixed shape, or no readable graph.
    """
    from csa_deploy.api.measuring import feeds_of

    first, second = graph_of(a), graph_of(b)
    feeds = feeds_of(first, data, samples, seed)
    names = [str(one) if isinstance(one, (str, Path)) else name_of(one) for one in (a, b)]
    if names[0] == names[1]:
        names = [f"{name} ({which})" for name, which in zip(names, ("a", "b"), strict=True)]
    return prove_equal(first, second, names=(names[0], names[1]), data=feeds, seed=seed, tolerance=tolerance)


def _names(given: str | Sequence[str]) -> list[str]:
    """One name needs no list."""
    return [given] if isinstance(given, str) else list(given)


def _refuse(settings: Mapping[str, Any]) -> None:
    """Settings are those of a network's export; a graph has been made already."""
    if settings:
        raise TypeError(f"{', '.join(settings)}: only with a workspace, where the network is exported")


@contextmanager
def _on_disk(graph: Graph) -> Iterator[Path]:
    """The graph as a file, which NVIDIA's parser and validator read."""
    if isinstance(graph, (str, Path)) and Path(graph).suffix == ".onnx":
        graph_of(graph)
        yield Path(graph)
        return
    model: onnx.ModelProto = graph_of(graph)
    with TemporaryDirectory(prefix="csa-deploy-") as scratch:
        path = Path(scratch) / f"{name_of(graph)}.onnx"
        save_model(model, path)
        yield path
