"""The function of the API that cuts a network into encoder and heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from csa_deploy.api.given import Data, Graph, Network, data_spec, graph_of, is_named
from csa_deploy.api.results import Exported, SplitNetwork
from csa_deploy.api.stages import stand_in
from csa_deploy.api.staging import GIVEN, Given, Place, adopt, commit, folder_of, loaded, opened, run, run_alone
from csa_deploy.graph.facts import stated_types
from csa_deploy.graph.interface import interface_of
from csa_deploy.records.optimize import OptimizeRecord
from csa_deploy.records.precision import PrecisionRecord, TypedGraph
from csa_deploy.workspace import StageOutput


def split(
    graph: Graph | Network,
    tensors: str | Sequence[str],
    *,
    part: Mapping[str, str] | Sequence[str] = (),
    calib: Data = None,
    workspace: Place = None,
    **settings: Any,
) -> SplitNetwork:
    """Cut a network at tensors into its encoder and its heads, each with its own precision and target.

    A floating-point graph is typed first, each part in its precision, and INT8 calibrated on ``calib``. A graph that
    holds FP16 or Q/DQ is cut as it is.

    Args:
        graph: a graph, a path, or a result that holds one; with a workspace a network. It is not changed.
        tensors: to cut at: the encoder is all that they need, what is left falls into heads by what hangs together.
        part: precision and target of parts, such as ``{"encoder": "fp16@gpu", "heads": "int8@dla0"}``; a head is named
            by its outputs with + between them; default ``fp16@gpu``.
        calib: samples to calibrate on, see :func:`csa_deploy.quantize`.
        workspace: run the stages there.
        settings: by the names of flags, such as ``tensorrt``, ``scope``, ``fp16_io``, ``builder_option``.

    Raises:
        OperationRejectedError: with ``restricted``, a DLA does not take its part.
        UsageError: no such tensor, or others cross the cut, which are named; no calibration data for an INT8 part.
    """
    with folder_of(workspace) as root:
        if not is_named(calib):
            calib = data_spec(calib, [spec.name for spec in interface_of(graph_of(graph))[0]], root / GIVEN)
        given = {**settings, "split": tensors, "part": part or None, "calib": calib}
        if workspace is not None:
            with opened(root, graph, given, workspace) as context:
                run(["split"], context)
                return _split(context)
        with opened(root, stand_in(graph), given) as context:
            model = graph_of(graph)
            adopt(context, model, graph.report if isinstance(graph, Exported) else None)
            if stated_types(model).precision == "fp32":
                run_alone("precision", context)
            else:
                _as_typed(context)
            if (failure := run_alone("split", context)) is not None:
                raise failure
            return _split(context)


def _as_typed(context: Given) -> None:
    """Take the graph for that of every precision: its types say what each part is in."""
    given = context.workspace.read(OptimizeRecord)
    typed = TypedGraph(graph=given.graph, statistics=given.after)
    record = PrecisionRecord(summary="as given", precisions=dict.fromkeys(context.config.precision, typed))
    commit("precision", context, StageOutput(record))


def _split(context: Given) -> SplitNetwork:
    record = context.split
    assert record is not None  # it was asked for
    entry = context.workspace.stages.get("split")
    assert entry is not None
    files = {path: context.path(path).read_bytes() for path in entry.made}
    graphs = {part.name: loaded(context, part.graph) for part in record.parts}
    return SplitNetwork(context.name, record, graphs=graphs, files=files)
