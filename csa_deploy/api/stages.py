"""Functions of the API that make something by a stage of the pipeline: export, quantize and build."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from csa_deploy.api.given import Data, Graph, Network, data_spec, graph_of, is_named, name_of, origin_of
from csa_deploy.api.results import Built, Exported, GraphResult, Quantized
from csa_deploy.api.staging import (
    GIVEN,
    Given,
    Place,
    adopt,
    commit,
    folder_of,
    loaded,
    opened,
    run,
    run_alone,
    with_precision,
)
from csa_deploy.config import inherited
from csa_deploy.engine.parts import parts_folder
from csa_deploy.engine.passport import passport_of, read_passport, sealed
from csa_deploy.errors import UsageError
from csa_deploy.graph.facts import stated_types
from csa_deploy.graph.interface import interface_of
from csa_deploy.records.export import ExportRecord
from csa_deploy.records.optimize import OptimizeRecord
from csa_deploy.records.precision import PrecisionRecord, TypedGraph
from csa_deploy.source import Source
from csa_deploy.workspace import StageOutput


def export(network: Network, *, workspace: Place = None, **settings: Any) -> Exported:
    """Make the ONNX graph of a network, checked, loaded, and compared with PyTorch on random and real inputs.

    Args:
        network: a registered name, ``file.py:factory``, ``package.module:factory``, a ``torch.nn.Module``, a function
            that makes one, an ``.onnx`` path or a model in memory (which is made static and described). A module is
            copied and stays as it is.
        workspace: run the stage there, and keep its files.
        settings: by the names of flags, such as ``size``, ``batch``, ``opset``, ``input_shape``, ``checkpoint``.

    Raises:
        UsageError: no such network, it fails or cannot be exported, or a setting is not valid.
        AccuracyGateError: the graph does not agree with PyTorch.
    """
    with folder_of(workspace) as root, opened(root, network, settings, workspace) as context:
        run(["export"], context)
        return exported_in(context)


def exported_in(context: Given) -> Exported:
    """The export that a workspace holds."""
    record, config = context.export, context.config.to_json()
    return Exported(
        context.name,
        record.preprocessing,
        record,
        _of_export(inherited(config, context.source.spec)),
        model=loaded(context, record.graph),
        source=context.source,
    )


def quantize(
    graph: Graph | Network,
    *,
    calib: Data = None,
    budget: Any = None,
    labels: Any = None,
    samples: int | None = None,
    workspace: Place = None,
    **settings: Any,
) -> Quantized:
    """Make an INT8 graph: calibrated in one pass, with layers left in floating point until the budget holds.

    The budget is judged on the calibration samples; compare the result on others with :func:`compare`.

    Args:
        graph: an optimized graph, a path, or a result that holds one; with a workspace a network. It is not changed.
        calib: samples to calibrate on, as the network meets them in use: an array of the only input, a mapping of
            arrays by input, an iterable of batches, the name or path of a data set, or ``"random"``.
        budget: bounds, such as ``{"int8": {"snr_db": 25}}`` or ``["int8.snr_db=25"]``; default: those of the commands.
        labels: class indices of the samples in ``calib``.
        samples: take so many samples of ``calib``.
        workspace: run the stages there.
        settings: by the names of flags, such as ``calib_method``, ``techniques``, ``search``, ``keep_fp32``,
            ``target_dla``.

    Raises:
        UsageError: no calibration data, or a graph that cannot be INT8.
    """
    with folder_of(workspace) as root:
        network: Any = graph if workspace is not None else stand_in(graph)
        names = [] if is_named(calib) else _inputs(graph, workspace, settings)
        calib = data_spec(calib, names, root / GIVEN, labels=labels, samples=samples)
        given = {**settings, "calib": calib, "budget": budget, "calib_samples": samples}
        given.setdefault("precision", ["int8"] if workspace is None else with_precision("int8", root))
        with opened(root, network, given, workspace) as context:
            if workspace is not None:
                run(["precision"], context)
            else:
                adopt(context, graph_of(graph), _report_of(graph))
                run_alone("precision", context)
            return _quantized(context, origin_of(graph))


def _inputs(graph: Any, workspace: Place, settings: dict[str, Any]) -> list[str]:
    """Names of the network's inputs; with a workspace those of its export."""
    if workspace is not None:
        graph = export(graph, workspace=workspace, **_of_export(settings))
    return [spec.name for spec in interface_of(graph_of(graph))[0]]


def _of_export(settings: dict[str, Any]) -> dict[str, Any]:
    from csa_deploy.options import EXPORT

    return {key: value for key, value in settings.items() if key in EXPORT}


def stand_in(graph: Graph) -> Source:
    """A source for a graph that was given: its name, and what is known of the network that it was made of."""
    origin = origin_of(graph)
    entry = origin.entry if origin else None
    return Source("onnx", f"{name_of(graph)}.onnx", name_of(graph), entry)


def _report_of(graph: Graph) -> ExportRecord | None:
    """The record of a graph's export, where it is one."""
    return graph.report if isinstance(graph, Exported) else None


def _quantized(context: Given, origin: Source | None) -> Quantized:
    record = context.workspace.read(PrecisionRecord)
    entry = record.int8
    assert entry is not None  # it was asked for
    return Quantized(
        context.name,
        tuple(layer.name for layer in entry.int8),
        entry.kept_floating,
        record.notes,
        record,
        model=loaded(context, entry.graph),
        source=origin,
    )


def build(
    graph: Graph | Network,
    *,
    backend: str = "auto",
    precision: str | None = None,
    workspace: Place = None,
    **settings: Any,
) -> Built:
    """Build a TensorRT engine of a graph, with its passport.

    Args:
        graph: a typed graph, a path, or a result that holds one; with a workspace a network.
        backend: ``auto``, ``tensorrt``, ``tensorrt-rtx`` or ``trtexec``.
        precision: with a workspace, which engine is made: fp32, fp16 or int8; else the graph's types say it.
        workspace: run the stages there.
        settings: by the names of flags, such as ``compute_capability``, ``restricted``, ``scope``, ``timing_cache``.

    Raises:
        EnvironmentLacksError: the builder is not installed.
        BuildFailedError: the builder refused the graph, or too little of it obtained its precision (``min_share``).
        OperationRejectedError: with ``restricted``, a scope denies the graph.
    """
    if workspace is not None:
        precision = precision or "fp32"
        with folder_of(workspace) as root:
            given = {**settings, "backend": backend, "precision": with_precision(precision, root)}
            with opened(root, graph, given, workspace) as context:
                run(["check", "build"], context)
                return _built(context, precision, origin_of(graph))
    model = graph_of(graph)
    stated = stated_types(model).precision
    if precision not in (None, stated):
        raise UsageError(
            f"the graph's types say {stated}, not {precision}",
            fix="type it first with csa_deploy.to_fp16 or csa_deploy.quantize, or leave out precision",
        )
    precision = stated
    given = {**settings, "backend": backend, "precision": [precision]}
    with folder_of(None) as root, opened(root, stand_in(graph), given) as context:
        adopt(context, model, _report_of(graph))
        given_one = context.workspace.read(OptimizeRecord)
        typed = TypedGraph(graph=given_one.graph, statistics=given_one.after)
        record = PrecisionRecord(summary="as given", precisions={precision: typed})
        commit("precision", context, StageOutput(record))
        if failure := run_alone("build", context):
            raise failure
        return _rebuilt_by_api(_built(context, precision, origin_of(graph)), backend, settings)


def _built(context: Given, precision: str, origin: Source | None) -> Built:
    entry = context.engines()[precision]
    path = context.path(entry.path)
    return Built(
        context.name,
        precision,
        entry.backend,
        read_passport(passport_of(path)),
        entry,
        engine=path.read_bytes(),
        parts={part.file: (parts_folder(path) / part.file).read_bytes() for part in entry.parts},
        model=loaded(context, context.graphs()[precision]),
        source=origin,
    )


def _rebuilt_by_api(built: Built, backend: str, settings: dict[str, Any]) -> Built:
    """The same with the call in its passport that makes it again: the command would type the graph anew."""
    given = "".join(f", {key}={value!r}" for key, value in sorted(settings.items()))
    code = f"import csa_deploy; csa_deploy.build('GRAPH.onnx', backend={backend!r}{given}).save('ENGINE')"
    return replace(built, passport=sealed(replace(built.passport, rebuild=("python", "-c", code))))


def as_exported(network: Network, **settings: Any) -> Exported:
    """A network as its export; an export, and a graph, as it is."""
    if isinstance(network, Exported):
        return network
    given = isinstance(network, (str, Path)) and Path(network).suffix == ".onnx"
    if not settings and (given or isinstance(network, (GraphResult, onnx.ModelProto))):
        return Exported(name_of(network), model=graph_of(network))
    return export(network, **settings)
