"""Functions of the API that measure: compare and profile; and the report of what was measured."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from csa_deploy.api.given import Data, Graph, Network, data_spec, graph_of, is_named, name_of
from csa_deploy.api.measured import Comparison, Latency, OutputComparison, Timing
from csa_deploy.api.reporting import page_of_results
from csa_deploy.api.results import Built, SplitNetwork
from csa_deploy.api.stages import as_exported, stand_in
from csa_deploy.api.staging import GIVEN, Given, Place, adopt, commit, folder_of, opened, run, run_alone
from csa_deploy.api.wording import in_python, python_errors
from csa_deploy.data.dataset import open_dataset
from csa_deploy.errors import CsaDeployError, EnvironmentLacksError, UsageError
from csa_deploy.export.metadata import read_preprocessing
from csa_deploy.graph.facts import stated_types
from csa_deploy.graph.interface import graph_sampling, interface_of
from csa_deploy.graph.load import save_model
from csa_deploy.naming import unused
from csa_deploy.profile.comparison import compare_samples
from csa_deploy.profile.loadgen.run import refuse_unused
from csa_deploy.records.profile import Profiled, ProfileRecord
from csa_deploy.records.verify import VerifyRecord
from csa_deploy.results import NotMeasured, Result
from csa_deploy.runners.base import filled
from csa_deploy.runners.chained_runner import CHAINED
from csa_deploy.source import Source, load_source, slug_of, slugs_of
from csa_deploy.stages.profile import NO_ENGINES
from csa_deploy.stages.verify import compare as compared
from csa_deploy.stages.verify import preflight
from csa_deploy.trtexec.engines import engine_runner
from csa_deploy.verify.candidates import Candidate, chain_runner, graph_candidate
from csa_deploy.verify.reference import open_reference
from csa_deploy.verify.results import SAMPLES, Results, read_results
from csa_deploy.workspace import Workspace, dump_json, write_atomic

Candidates = Iterable[Graph | SplitNetwork] | Mapping[str, Graph | SplitNetwork] | Graph | SplitNetwork
"""Graphs, engines and split networks, by label or in order; one alone needs no list."""


def compare(
    reference: Network | Graph,
    candidates: Candidates = (),
    *,
    data: Data = None,
    budget: Any = None,
    labels: Any = None,
    samples: int | None = None,
    workspace: Place = None,
    **settings: Any,
) -> Comparison:
    """Compare graphs and engines with a reference on the same samples, and hold them against an accuracy budget.

    Args:
        reference: a network, whose PyTorch module is the reference; or a graph, which is it itself.
        candidates: graphs and engines; with a workspace those beside the workspace's own.
        data: samples: an array of the only input, a mapping of arrays by input, an iterable of batches, or the name or
            path of a data set; default: the network's own data set. Not those that INT8 was calibrated on.
        budget: bounds, such as ``{"fp16": {"snr_db": 40}}`` or ``["fp16.snr_db=40"]``; default: those of the commands.
        labels: of the samples, where ``data`` are arrays: class indices, masks (n, H, W), or ``Boxes`` and ``Mask``.
        samples: use so many of the data.
        workspace: run the stages there.
        settings: by the names of flags, such as ``provider``, ``threads``, ``seed``, ``localize``.

    Returns:
        The comparison with its verdict; a broken budget raises nothing.

    Raises:
        UsageError: no data, or inputs and outputs that differ from the reference's.
    """
    given = {"localize": False, **settings, "budget": budget, "samples": samples}
    with folder_of(workspace) as root:
        if workspace is not None:
            return _compared_there(reference, candidates, data, labels, given, root, workspace)
        exported = as_exported(reference)
        source = exported.source if exported.source and exported.source.kind != "onnx" else stand_in(exported)
        names = [spec.name for spec in interface_of(exported.graph)[0]]
        given = {**exported.settings, **given} if source is exported.source else given
        given["data"] = data_spec(data, names, root / GIVEN, labels=labels, samples=samples)
        with opened(root, source, given) as context, context.workspace.scratch("verify") as scratch:
            preflight(context)
            adopt(context, exported.graph, exported.report)
            context.scratch = scratch
            output = _compare(context, _labelled(candidates))
            return _comparison(context, commit("verify", context, output))


def _compare(context: Given, candidates: dict[str, Graph]) -> Any:
    if not candidates:
        raise UsageError("nothing to compare with the reference", fix="give at least one graph or engine")
    not_measured: list[NotMeasured] = []
    with contextlib.ExitStack() as stack:
        reference, preprocessing = open_reference(context)
        stack.enter_context(reference)
        opened_ones = [
            candidate
            for label, slug in slugs_of(candidates).items()
            if (candidate := _candidate(context, label, slug, candidates[label], not_measured)) is not None
        ]
        for candidate in opened_ones:
            stack.enter_context(candidate.runner)
        return compared(context, reference, preprocessing, opened_ones, not_measured)


def _candidate(
    context: Given, label: str, slug: str, graph: Graph, not_measured: list[NotMeasured]
) -> Candidate | None:
    """What is compared; None for an engine that does not run here, which is noted."""
    path = context.path(GIVEN) / slug
    if isinstance(graph, SplitNetwork):
        chain = chain_runner(graph.report, graph.save(path), context.comparing)
        return Candidate(label, graph.report.precision, label, chain)
    if not isinstance(graph, Built):
        path = path.with_name(f"{path.name}.onnx")
        save_model(graph_of(graph), path)
        return graph_candidate(path, label, None, label, context.comparing)
    path = graph.save(path.with_name(f"{path.name}.engine"))
    try:
        runner = engine_runner(path, graph.report, context.config.target, name=label)
    except EnvironmentLacksError as error:
        not_measured.append(NotMeasured(label, error.message))
        return None
    return Candidate(label, graph.precision, label, runner)


def _compared_there(
    reference: Any, candidates: Any, data: Data, labels: Any, given: dict[str, Any], root: Path, workspace: Place
) -> Comparison:
    """In the caller's workspace: its own graphs and engines, and the candidates beside them."""
    files = []
    labelled = _labelled(candidates)
    for label, slug in slugs_of(labelled).items():
        files.append(root / GIVEN / f"{slug}.onnx")
        save_model(graph_of(labelled[label]), files[-1])
    if not is_named(data):
        names = [spec.name for spec in interface_of(as_exported(reference, workspace=workspace).graph)[0]]
        data = data_spec(data, names, root / GIVEN, labels=labels, samples=given["samples"])
    given |= {"data": data, "candidate": [str(file) for file in files] or None}
    with opened(root, reference, given, workspace) as context:
        return _comparison(context, run(["verify"], context))


def _labelled(candidates: Candidates) -> dict[str, Any]:
    """By label; without one the precision says what it is, with a number from the second on."""
    if isinstance(candidates, Mapping):
        return dict(candidates)
    if isinstance(candidates, (onnx.ModelProto, Result, str, Path)):
        candidates = [candidates]
    found: dict[str, Any] = {}
    for graph in candidates:
        found[unused(_label(graph), found, " ")] = graph
    return found


def _label(graph: Graph | SplitNetwork) -> str:
    if isinstance(graph, Built):
        return f"engine {graph.precision}"
    if isinstance(graph, SplitNetwork):
        return CHAINED
    return name_of(graph) if isinstance(graph, (str, Path)) else stated_types(graph_of(graph)).precision


def _comparison(context: Given, failure: CsaDeployError | None) -> Comparison:
    record = context.workspace.read(VerifyRecord)
    results = read_results(context.path(SAMPLES))
    outputs = tuple(
        OutputComparison(
            candidate.label,
            candidate.precision,
            candidate.verdict,
            output.name,
            output.metrics,
            tuple(sample["id"] for sample in output.worst),
        )
        for candidate in record.candidates
        for output in candidate.outputs
    )
    return Comparison(
        record.verdict,
        in_python(str(failure)) if failure else "",
        outputs,
        tuple(_sample_rows(results)),
        tuple(map(in_python, record.notes)),
        record.not_measured,
        record,
        stored=results.to_bytes(),
    )


def _sample_rows(results: Results) -> Iterator[dict[str, Any]]:
    for candidate in results.candidates:
        for output in candidate.outputs:
            columns = {name: column.tolist() for name, column in output.columns.items() if column.ndim == 1}
            for place, identity in enumerate(results.ids):
                # The one NaN of the module math: rows with it are equal to themselves.
                values = {n: math.nan if math.isnan(column[place]) else column[place] for n, column in columns.items()}
                yield {"candidate": candidate.label, "output": output.name, "id": identity, **values}


def profile(
    graphs: Candidates, *, data: Data = None, samples: int | None = None, workspace: Place = None, **settings: Any
) -> Timing:
    """Time graphs side by side, in turns, on this machine; each is held against the first.

    The latency of this machine's CPU says nothing about a target's. Engines are timed in a workspace only.

    Args:
        graphs: graphs, by label or in order; with a workspace the network, whose graphs and engines are timed.
        data: samples that MLPerf's load generator sends, as :func:`compare` takes them; default: the network's own
            data set, else random inputs.
        samples: use so many of the data.
        workspace: run the stages there.
        settings: by the names of flags, such as ``iterations``, ``seconds``, ``warmup``, ``threads``, or
            ``loadgen=True`` with ``scenario`` and ``loadgen_settings`` for MLPerf's load generator.

    Raises:
        UsageError: no graph, or one that does not load.
        EnvironmentLacksError: with ``loadgen``, the load generator is not installed.
        PerformanceGateError: a ``limit`` or a ``baseline`` is broken, or deadlines of a constant stream are.
    """
    asked = {key: value for key, value in (("data", data), ("samples", samples)) if value is not None}
    with folder_of(workspace) as root:
        if workspace is not None:
            if not is_named(data):
                names = [spec.name for spec in interface_of(as_exported(graphs, workspace=workspace).graph)[0]]
                asked["data"] = data_spec(data, names, root / GIVEN, samples=samples)
            with opened(root, graphs, settings | asked, workspace) as context:
                refuse_unused({**settings, **asked}, context.config)
                return _timing(context, run(["profile"], context))
        given = _labelled(graphs)
        engines = [label for label, graph in given.items() if isinstance(graph, Built)]
        timed = {label: graph_of(graph) for label, graph in given.items() if label not in engines}
        if not timed:
            raise UsageError("no graph to time", fix="give at least one graph; engines are timed in a workspace")
        first = next(iter(timed))
        if not is_named(data):
            names = [spec.name for spec in interface_of(timed[first])[0]]
            asked["data"] = data_spec(data, names, root / GIVEN, samples=samples)
        with opened(root, stand_in(given[first]), settings | asked) as context:
            refuse_unused({**settings, **asked}, context.config)
            adopt(context, timed[first])
            context.labelled = {label: f"onnx/timed-{slug}.onnx" for label, slug in slugs_of(timed).items()}
            for label, model in timed.items():
                save_model(model, context.path(context.labelled[label]))
            return _timing(context, run_alone("profile", context), engines)


def _timing(context: Given, failure: CsaDeployError | None, engines: list[str] | None = None) -> Timing:
    if failure is not None:
        raise failure
    record, measured = context.workspace.read(ProfileRecord), context.workspace.measured("profile")
    found: list[Latency] = []
    first: tuple[float, ...] = ()
    profiled = Profiled.from_json(measured)
    for label, latency in profiled.latency.items():
        percentiles = {name: value for name, value in latency.percentiles_ms.items() if value is not None}
        ratio = compare_samples(first, latency.samples_ms) if first else None
        found.append(
            Latency(
                label,
                percentiles,
                ratio.ratio if ratio else None,
                (ratio.low, ratio.high) if ratio else None,
                ratio.outcome if ratio else "",
                record.evidence.get(label, ""),
            )
        )
        first = first or latency.samples_ms
    if engines is not None:  # the graphs were given: that the stage found no engine of its own says nothing
        missing = [NotMeasured(label, "engines are timed in a workspace") for label in engines]
        others = [item for item in record.not_measured if item.what != NO_ENGINES]
        record = replace(record, not_measured=(*others, *missing))
    return Timing(tuple(found), record.not_measured, record, measured, profiled.loadgen)


def report(results: Result | Iterable[Result] | Workspace, path: str | Path) -> Path:
    """Write the report of results, or of a workspace, as one HTML file that needs nothing else; ``.json`` for data.

    Args:
        results: one of each kind at most; their order does not matter.
        path: of the file.

    Raises:
        UsageError: two results of a kind, or one that a report does not show.
    """
    path = Path(path)
    if isinstance(results, Workspace):
        network = results.config.get("network")
        if not network:
            raise UsageError(f"{results.root}: nothing was made here yet", fix="csa_deploy.export(..., workspace=...)")
        source = Source("onnx", network, slug_of(network))  # the report reads what is there, whatever made it
        with contextlib.suppress(UsageError):
            source = load_source(network)
        with opened(results.root, source, {}, results) as context:
            run(["report"], context)
            suffix = ".json" if path.suffix == ".json" else ".html"
            write_atomic(path, context.path(f"report{suffix}").read_bytes())
        return path
    with folder_of(None) as root:
        data, page = page_of_results([results] if isinstance(results, Result) else list(results), Workspace(root))
    write_atomic(path, dump_json(data.to_json()) if path.suffix == ".json" else page)
    return path


def feeds_of(
    model: onnx.ModelProto, data: Data, samples: int | None, seed: int
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Samples of data as inputs of a graph, each inference with a name; the last batch is filled by its last sample."""
    if data is None:
        return
    names = [spec.name for spec in interface_of(model)[0]]
    sampling = graph_sampling(model)
    with python_errors(), folder_of(None) as root:
        spec = data_spec(data, names, root, samples=samples)
        assert spec is not None
        size = sampling.batch or 1
        for batch in open_dataset(spec, read_preprocessing(model), limit=samples, seed=seed).batches(size):
            feed = sampling.typed(batch.feed(sampling.shapes))
            yield f"sample {batch.ids[0]}", sampling.network(filled(feed, size))
