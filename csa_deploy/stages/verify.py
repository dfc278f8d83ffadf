"""The verify stage: the reference against every graph and engine of the workspace, on the same tensors."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from csa_deploy import units
from csa_deploy.cluster.connection import require_cluster
from csa_deploy.data.dataset import require_dataset
from csa_deploy.engine.device import cuda_state
from csa_deploy.errors import UsageError
from csa_deploy.graph.load import load_model
from csa_deploy.metrics.table import ordered
from csa_deploy.network import Preprocessing
from csa_deploy.records.batch import BatchConsistency
from csa_deploy.records.precision import PrecisionRecord, Search
from csa_deploy.records.verify import (
    CandidateRecord,
    ComparedData,
    JudgedCandidate,
    OutputRecord,
    Runtime,
    VerifyRecord,
)
from csa_deploy.results import NotMeasured, plain, shallow
from csa_deploy.runners.base import sampling
from csa_deploy.runners.onnxruntime_runner import PROVIDERS, OnnxRuntimeRunner, require_provider
from csa_deploy.runners.stateful import StatefulRunner
from csa_deploy.tasks.decoding import load_decode
from csa_deploy.verify.arithmetic import arithmetic_notes, compare_arithmetic
from csa_deploy.verify.batch import batch_consistency
from csa_deploy.verify.candidates import Candidate, changed_graph, collect
from csa_deploy.verify.growth import error_growth, growth_notes
from csa_deploy.verify.judging import judge_results, wanted_samples
from csa_deploy.verify.localize.explain import explain, unopened
from csa_deploy.verify.reference import arbitrate, open_reference
from csa_deploy.verify.results import PARTIAL, SAMPLES, Results
from csa_deploy.verify.spread import compare_on_cluster
from csa_deploy.verify.stream import Stream
from csa_deploy.verify.task_views import _TASK, task_views
from csa_deploy.workspace import StageOutput, dump_json, sha256_of, write_atomic

if TYPE_CHECKING:
    from csa_deploy.context import Context
    from csa_deploy.data.base import Dataset
    from csa_deploy.runners.base import Runner

logger = logging.getLogger(__name__)
UNLIKE_DB = 3.0  # twice the noise on other images than those of the calibration is no chance


def key_parts(context: Context) -> dict[str, Any]:
    """What decides the comparison besides settings and versions."""
    return {
        **context.measured_by,
        "data": open_data(context, context.preprocessing).fingerprint(),
        "source": context.source.fingerprint(),
        "localize": context.config.localize,
        **({} if (wanted := context.config.int8_arithmetic) == "float" else {"int8_arithmetic": wanted}),
        "candidates": [sha256_of(Path(given)) for given in context.config.candidate],
    }


def stale(context: Context) -> bool:
    """Whether engines that did not run could do so now: there is a GPU, and it or what drives it was not there then.

    Where there is none, what a GPU gave stays.
    """
    workspace = context.workspace
    local = any(engine.backend != "trtexec" for engine in context.engines().values())
    return local and bool(cuda_state().devices) and workspace.read(VerifyRecord).runtime != _runtime()


def _runtime() -> Runtime:
    """What runs engines here: devices, and the packages that are installed."""
    packages = [name for name in ("tensorrt", "tensorrt_rtx") if find_spec(name)]
    return Runtime(tuple(device.name for device in cuda_state().devices), tuple(packages))


def preflight(context: Context) -> None:
    """Raise when there are no data to compare on, a named candidate is missing, or ONNX Runtime lacks the provider."""
    if context.data_spec is None:
        raise UsageError(
            f"{context.name}: verify needs data and the network has none of its own",
            fix="give --data with a folder of images, an .npz of inputs by name, or a named set (digits, photos)",
        )
    require_dataset(context.data_spec)
    if context.config.decode:
        load_decode(context.config.decode)
    for given in context.config.candidate:
        if not Path(given).is_file():
            raise UsageError(f"{given}: no such graph to compare", fix="give the path of an .onnx file")
    if context.config.int8_arithmetic != "float" and context.config.provider != "cpu":
        raise UsageError(
            f"--int8-arithmetic {context.config.int8_arithmetic} is computed by integer kernels of the CPU, not by the "
            f"{context.config.provider} provider",
            fix="leave out --provider, or --int8-arithmetic",
        )
    require_provider(PROVIDERS[context.config.provider])
    require_cluster(context.config.cluster)


def open_data(context: Context, preprocessing: Preprocessing | None) -> Dataset:
    """The data to compare on."""
    dataset = context.dataset(preprocessing)
    assert dataset is not None  # see preflight
    return dataset


def run(context: Context) -> StageOutput[VerifyRecord]:
    """Compare; see the package."""
    not_measured: list[NotMeasured] = []
    with contextlib.ExitStack() as stack:
        reference, preprocessing = open_reference(context)
        stack.enter_context(reference)
        candidates = collect(context, not_measured)
        for candidate in candidates:
            stack.enter_context(candidate.runner)
        return compare(context, reference, preprocessing, candidates, not_measured)


def compare(
    context: Context,
    reference: Runner,
    preprocessing: Preprocessing | None,
    candidates: list[Candidate],
    not_measured: list[NotMeasured],
) -> StageOutput[VerifyRecord]:
    """Compare candidates with the reference, all entered; what could not be compared is in ``not_measured``."""
    tasks = context.tasks()
    for candidate in candidates:
        candidate.tasks = tasks
    data = open_data(context, preprocessing)
    runners = on_own_states(context, [reference, *(c.runner for c in candidates)])
    for candidate, runner in zip(candidates, runners[1:], strict=True):
        candidate.runner = runner
    stream = Stream(
        lambda p: data if p == preprocessing else open_data(context, p),
        runners[0],
        preprocessing,
        candidates,
        sampling(reference).batch or context.batch,
    )
    meta = {
        "network": context.config.network,
        "data": data.name,
        "total": len(data),
        "seed": context.config.seed,
        "trained": _trained(context),
        "differs": {c.label: found for c in candidates if (found := differences(preprocessing, c.preprocessing))},
    }
    try:
        if context.config.cluster:
            compare_on_cluster(context, stream)
        else:
            stream.run(context.progress)
    except BaseException:
        _keep_partial(context, stream, meta)
        raise
    batch = {c.label: plain(_batches(c, context).to_json()) for c in candidates}
    for candidate in candidates:  # from here on single frames, on the states of the reference graph
        candidate.runner = getattr(candidate.runner, "inner", candidate.runner)
    data = context.with_states(data)
    growth = error_growth(stream)
    results = results_of(stream, {**meta, "tensors_sha256": stream.digest(), "batch": batch})
    judgement = judge_results(results, context.config.bounds, context.config.asked)
    names = preprocessing.classes if preprocessing else ()
    judged = [_described(c, stream, j, names) for c, j in zip(candidates, judgement.candidates, strict=True)]
    arbitrations, reason = _arbitrate(context, stream, candidates, data, reference)
    if reason:
        not_measured = [*not_measured, NotMeasured("FP64 reference", reason)]
    wanted = context.config.localize
    blamed = [c for c, j in zip(candidates, judged, strict=True) if wanted or (wanted is None and _unexplained(j))]
    broken = {j.label: [check.metric for check in j.checks if check.state == "fail"] for j in judged}
    explained, unexplained = explain(context, reference, blamed, data, broken)
    if context.config.localize:
        unexplained += unopened(context, not_measured)
    arithmetic = compare_arithmetic(context, reference, candidates, data)
    if not arithmetic and (asked := context.config.int8_arithmetic) != "float":
        reason = "no INT8 graph was compared in ONNX Runtime; all was computed as the graphs' types state"
        not_measured = [*not_measured, NotMeasured(f"INT8 arithmetic '{asked}'", reason)]
    notes = [*judgement.notes, *data.notes, *growth_notes(growth, stream), *unlike_calibration(judged, context)]
    record = VerifyRecord(
        summary=_summary(judged, len(data)),
        notes=(*notes, *arithmetic_notes(arithmetic)),
        not_measured=(*not_measured, *unexplained),
        verdict=judgement.verdict,
        partial=judgement.partial,
        reference=reference.describe(),
        accuracy=judgement.accuracy,
        data=ComparedData(data.name, len(data), data.labelled, data.fingerprint(), stream.digest()),
        candidates=tuple(judged),
        arbitration=tuple(arbitrations),
        localization=tuple(explained),
        runtime=_runtime(),
        growth=growth,
        arithmetic=tuple(arithmetic),
    )
    path = context.scratch / "samples.npz"
    path.write_bytes(results.to_bytes())
    artifacts = {SAMPLES: path}
    if context.task is not None:
        artifacts[_TASK] = context.scratch / "task.json"
        views = task_views(context.task, reference, candidates, data, preprocessing)
        artifacts[_TASK].write_text(dump_json(views.to_json()))
    context.path(PARTIAL).unlink(missing_ok=True)
    return StageOutput(record, artifacts=artifacts, failure=judgement.failure(strict=context.config.strict))


def _batches(candidate: Candidate, context: Context) -> BatchConsistency:
    changed, file = None, candidate.file
    if file is not None:
        changed = changed_graph(
            lambda: load_model(file, full_check=False),
            candidate.precision,
            context.comparing,
            name=candidate.label,
            engine=not isinstance(candidate.runner, OnnxRuntimeRunner),
        )
    return batch_consistency(candidate.runner, candidate.first, changed)


def on_own_states(context: Context, runners: Sequence[Runner]) -> list[Runner]:
    """Runners that keep the state of their network, each its own; as they are without state."""
    links = context.export.state
    if not links:
        return list(runners)
    initial = context.initial_state(links, context.export.inputs)
    return [StatefulRunner(runner, links, initial) for runner in runners]


def results_of(stream: Stream, meta: dict[str, Any]) -> Results:
    """What is stored of a comparison, finished or not."""
    labels = np.asarray(stream.labels) if stream.labels else None
    count = len(stream.ids)  # an interrupted step may have reached some of the candidates only
    for candidate in stream.candidates:
        for metrics in candidate.outputs.values():
            metrics.keep(count)
    return Results(tuple(stream.ids), labels, tuple(c.columns() for c in stream.candidates), meta)


def _keep_partial(context: Context, stream: Stream, meta: dict[str, Any]) -> None:
    if stream.ids:
        path, results = context.path(PARTIAL), results_of(stream, meta)
        write_atomic(path, results.to_bytes())
        logger.warning("%s are kept: csa-deploy judge %s", results.partial or "all results", path)


def _trained(context: Context) -> bool:
    entry = context.source.entry
    return bool(context.config.checkpoint or (entry and entry.pretrained))


def _described(candidate: Candidate, stream: Stream, judged: JudgedCandidate, names: Sequence[str]) -> CandidateRecord:
    """The candidate's part of the record: its verdict, what ran, and the classes of the worst samples by name."""
    outputs = []
    for output in judged.outputs:
        for shown in (c for w in output.worst for c in (*w.get("reference_classes", ()), *w.get("classes", ()))):
            shown["name"] = names[shown["class"]] if shown["class"] < len(names) else ""
        tensor = candidate.tensors.get(output.name)
        outputs.append(OutputRecord(**shallow(output), worst_channels=tuple(tensor.worst_channels()) if tensor else ()))
    return CandidateRecord(
        **{**shallow(judged), "outputs": tuple(outputs)},
        path=candidate.path,
        runner={"name": candidate.runner.name, **candidate.runner.describe()},
        tensors_sha256=stream.digest(candidate),
    )


def _unexplained(judged: JudgedCandidate) -> bool:
    """Whether a candidate fails for a reason that lies in its layers."""
    other = judged.preprocessing_differs or judged.reference_non_finite
    broken = judged.non_finite or any(check.state == "fail" for check in judged.checks)
    return bool(broken and not other)


def differences(wanted: Preprocessing | None, given: Preprocessing | None) -> dict[str, list[Any]]:
    """Settings of two preprocessings that differ: name -> [the reference's, the candidate's]."""
    if wanted is None or given is None:
        return {}
    first, second = asdict(wanted), asdict(given)
    return {name: [first[name], second[name]] for name in first if first[name] != second[name]}


def _arbitrate(context: Context, stream: Stream, candidates: list[Candidate], data: Dataset, reference: Runner) -> Any:
    """FP64 on the worst sample of each FP32 candidate that got the reference's tensors."""
    same = [c for c in candidates if c.precision == "fp32" and stream.given(c) == stream.preprocessing]
    worst = {m.worst(1)[0]["id"] for c in same for m in c.tensors.values()}
    shapes = sampling(reference).shapes
    feeds = {batch.ids[0]: batch.feed(shapes) for batch in data.only(sorted(worst)).batches(1)}
    graph = context.path(context.graphs()["exported"]) if context.source.kind == "onnx" else None
    return arbitrate(reference, same, feeds, graph)


def unlike_calibration(judged: Sequence[JudgedCandidate], context: Context) -> list[str]:
    """A note where INT8 is much worse on these data than it was on the images of the calibration."""
    record = context.workspace.find(PrecisionRecord)
    found = record.int8.search if record and record.int8 else None
    chosen = found.chosen if isinstance(found, Search) else None
    then = chosen.metrics.get("snr_db") if chosen else None
    now = next((c.metrics.get("snr_db") for c in judged if c.label == "int8"), None)
    if then is None or now is None or not then - float(now) > UNLIKE_DB:
        return []
    return [
        f"int8: {units.decibel(then)} on images of the calibration, {units.decibel(now)} on these data: calibrate on "
        "images like these"
    ]


def _summary(judged: Sequence[JudgedCandidate], samples: int) -> str:
    said = f"{samples} samples: " + ", ".join(f"{c.label} {c.verdict} ({_figure(c)})" for c in judged)
    wanted = wanted_samples(judged)
    return f"{said}; {wanted:,} samples would decide, give them with --data" if wanted else said


def _figure(result: JudgedCandidate) -> str:
    """What the verdict rests on; of a pass the worst output's accuracy, agreement or noise."""
    metrics = result.metrics
    if result.decided_by:
        return result.decided_by
    told = [metric for metric in ordered() if metric.said and metric.name in metrics]
    told = told[::-1] if told[0].of == "map" else told[:1]  # what the classes of a map are worth is not known
    return ", ".join(m.said.format(m.shown(metrics[m.name], -1 if m.unit == "share" else 0)) for m in told)
