"""The profile stage: latency of every graph and engine that this machine can run, and the reason for the others."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csa_deploy import __version__, units
from csa_deploy.data.dataset import require_dataset
from csa_deploy.engine.device import cuda_state
from csa_deploy.installing import versions
from csa_deploy.profile.bench import OTHER_INPUTS, Bench, open_baseline
from csa_deploy.profile.cost import graph_cost
from csa_deploy.profile.device import TIMED, WARM_MS
from csa_deploy.profile.engine_layers import built_of
from csa_deploy.profile.gates import baseline_gates, failure, limit_gates, memory_of
from csa_deploy.profile.host import host
from csa_deploy.profile.latency import measure_all
from csa_deploy.profile.layers import METHOD, layer_times
from csa_deploy.profile.loadgen.run import (
    DrivenSubject,
    LoadgenFound,
    loadgen_contract,
    measure_with_loadgen,
    named,
    refuse,
    settings_of,
)
from csa_deploy.profile.loadgen.samples import samples_of
from csa_deploy.profile.on_target import measure_on_target
from csa_deploy.profile.roofline import measure_ceilings, roofline_of, with_floors
from csa_deploy.profile.stored import StoredRun, differences, load_run
from csa_deploy.profile.telemetry import Meter, Telemetry
from csa_deploy.records.device import Ceilings
from csa_deploy.records.profile import Contract, Gate, LatencySummary, NodeTimes, Profiled, ProfileRecord
from csa_deploy.results import NotMeasured
from csa_deploy.workspace import StageOutput, sha256_of

if TYPE_CHECKING:
    from csa_deploy.context import Context

ANEW_WHERE = "timed anew in the same rounds where its workspace still holds the file and it runs here"
NO_ENGINES = "engines"  # what is not measured where none was built
LAYER_ITERATIONS = 20


def preflight(context: Context) -> None:
    """Refuse a baseline or settings of the load generator that cannot be read before anything runs."""
    refuse(context.config)
    if context.config.loadgen and context.data_spec:
        require_dataset(context.data_spec)
    if context.config.baseline:
        load_run(Path(context.config.baseline))


def key_parts(context: Context) -> dict[str, Any]:
    """The baseline counts by its bytes, and a result holds for the machine that it was measured on."""
    machine: dict[str, Any] = {"cpu": host().cpu, "devices": [device.name for device in cuda_state().devices]}
    if context.config.loadgen:
        asked = [dict(settings.values) for settings in settings_of(context.config)]
        machine |= {"loadgen": asked, "samples": samples_of(context).words, **versions(["mlcommons-loadgen"])}
    if not context.config.baseline:
        return machine
    return {**machine, "baseline": sha256_of(Path(context.config.baseline) / "measurements" / "profile.json")}


def run(context: Context) -> StageOutput[ProfileRecord]:
    """Measure; the record states what was measured and the graphs' cost, the measurements file holds the numbers."""
    meter, config = Meter(Telemetry()), context.config
    stored = load_run(Path(config.baseline)) if config.baseline else None
    graphs = context.graphs()
    costs = {label: graph_cost(context.path(path)) for label, path in graphs.items()}
    with contextlib.ExitStack() as held:
        bench = _open(context, graphs, held)
        baseline = open_baseline(stored, bench, held) if stored else Bench(Path(), config, held)
        measure_all(
            [*bench.timed, *baseline.timed],
            iterations=config.iterations,
            warmup=config.warmup,
            seconds=config.seconds,
            around=lambda subject: meter.block(subject.name, lambda: len(subject.samples_ms)),
            progress=context.progress,
        )
        inspected = {engine.label: engine.inspect(iterations=LAYER_ITERATIONS) for engine in bench.engines}
        subjects = _subjects(bench, graphs)
    loadgen = _with_loadgen(context, subjects, bench.not_measured) if config.loadgen else LoadgenFound()
    there = measure_on_target(context, graphs)
    latency = bench.latency() | there.latency
    bench.contract += there.contract
    bench.not_measured += [item for engine in bench.engines for item in engine.not_measured] + there.not_measured
    ceilings = measure_ceilings()
    bench.not_measured += meter.not_measured() + _lacking(meter.telemetry, ceilings)
    gates = limit_gates(config.limit, latency, memory_of(costs, _engine_bytes(context), inspected))
    gates += _held_against(context, stored, baseline, latency) if stored else []
    record = ProfileRecord(
        summary=f"{len(bench.contract)} measured, {len(bench.not_measured)} not measured",
        contract=contract(context),
        measured=tuple(bench.contract),
        not_measured=(*bench.not_measured, *loadgen.not_measured),
        cost=costs,
        layers={"method": METHOD},
    )
    measured = Profiled(
        latency=latency,
        layers=_layers(context, graphs),
        engines=with_floors(inspected, ceilings) | there.engines,
        target=there.measured,
        roofline=roofline_of(costs, ceilings),
        energy_per_inference_j=meter.per_inference(),
        telemetry=meter.telemetry.readings(),
        gates=tuple(gates),
        loadgen=tuple(loadgen.runs),
        host=host(),
    )
    told = {"summary": _summary(latency, bench.not_measured), **measured.to_json()}
    failed = failure(gates) or loadgen.failure()
    return StageOutput(record, measured=told, unhashed=loadgen.files, failure=failed)


def contract(context: Context) -> Contract:
    """How everything is measured."""
    config = context.config
    return Contract(
        timed="host, end to end: arrays in host memory in and out; one inference after another, one stream",
        timed_on_device={f"engine ... {name}": what for name, what in TIMED.items()},
        clock="time.perf_counter_ns around each call; on the device CUDA events, read after each block",
        order="interleaved: up to ten rounds over all, every other one reversed; one untimed call per block",
        baseline=ANEW_WHERE if config.baseline else None,
        warmup=config.warmup,
        warmup_on_device=f"each of at least {WARM_MS:g} ms, for the clocks to rise; one before every block as well",
        iterations=config.iterations if config.seconds is None else None,
        seconds=config.seconds,
        batch=context.batch,
        threads=config.threads or "one per core",
        streams=1,
        spin_wait="ONNX Runtime: off, as several networks are timed in one process; CUDA: the driver's own choice",
        cuda_graph="only where the label ends in 'cuda graph'",
        clocks_and_power_mode="not set; what was seen stands under telemetry",
        telemetry="read around each block, outside the timed region",
        loadgen=loadgen_contract(config, samples_of(context)) if config.loadgen else None,
        inputs=f"standard normal, seed {config.seed}",
        percentiles="only where at least one sample lies above; no sample is dropped",
        interval="99 %, order statistics of as many independent samples as the correlated series is worth",
        csa_deploy=__version__,
    )


def _open(context: Context, graphs: dict[str, str], held: contextlib.ExitStack) -> Bench:
    bench = Bench(context.workspace.root, context.config, held)
    for label, graph in graphs.items():
        bench.graph(label, graph)
    if context.split:
        bench.chain()
    if "build" not in context.workspace.stages:
        bench.not_measured.append(NotMeasured(NO_ENGINES, "not built"))
        return bench
    for precision, engine in context.engines().items():
        if engine.backend != "trtexec":  # trtexec measures there, see csa_deploy.profile.on_target
            bench.engine(f"engine {precision}", engine.path, engine.backend, built_of(context, engine.path, graphs))
    return bench


def _subjects(bench: Bench, graphs: dict[str, str]) -> list[DrivenSubject]:
    """What the load generator is run on: what was timed here, but the plain export where there are other graphs."""
    entries = [entry for entry in bench.contract if entry.label != "exported" or len(graphs) == 1]
    return [DrivenSubject(e.label, e.path, e.runner["backend"], bench.built_of(e.label)) for e in entries]


def _with_loadgen(context: Context, subjects: list[DrivenSubject], lacking: list[NotMeasured]) -> LoadgenFound:
    """Its runs, and for every engine that does not run here a line with the reason."""
    config, reasons = context.config, {item.what: item.reason for item in lacking}
    found = measure_with_loadgen(
        context.workspace.root, context.scratch, config, subjects, samples_of(context), context.progress
    )
    for label in [f"engine {precision}" for precision in context.engines()]:
        if label not in {subject.label for subject in subjects}:
            why = reasons.get(label, "trtexec built it, and times it itself")
            found.not_measured += [NotMeasured(named(label, s.scenario), why) for s in settings_of(config)]
    return found


def _lacking(telemetry: Telemetry, ceilings: Ceilings | str) -> list[NotMeasured]:
    found = telemetry.not_measured()
    if isinstance(ceilings, str):
        found.append(NotMeasured("roofline ceilings and floor time", ceilings))
    return found


def _engine_bytes(context: Context) -> dict[str, int]:
    return {precision: context.path(e.path).stat().st_size for precision, e in context.engines().items()}


def _held_against(
    context: Context, stored: StoredRun, baseline: Bench, latency: dict[str, LatencySummary]
) -> list[Gate]:
    """Gates against what of the baseline was timed anew, and against stored samples where they were taken alike."""
    now = StoredRun(context.workspace.root, context.config.network, latency, host(), contract(context))
    reasons = dict.fromkeys(latency, "".join(differences(stored, now)[:1]))
    for item in baseline.not_measured:
        if item.reason == OTHER_INPUTS:
            reasons |= {label: OTHER_INPUTS for label in latency if label.startswith(item.what)}
    older = {label: stored.latency[label] for label in latency if label in stored.latency and not reasons[label]}
    return baseline_gates(baseline.latency(), older, latency, context.config.max_slowdown, reasons)


def _layers(context: Context, graphs: dict[str, str]) -> dict[str, NodeTimes]:
    return {
        label: layer_times(
            context.path(path),
            context.scratch,
            iterations=min(context.config.iterations, LAYER_ITERATIONS),
            threads=context.config.threads,
            seed=context.config.seed,
        )
        for label, path in graphs.items()
        if label != "exported" or len(graphs) == 1
    }


def _summary(measured: dict[str, LatencySummary], not_measured: list[NotMeasured]) -> str:
    shown = ", ".join(
        f"{label} {units.milliseconds(m.median_ms)}" + ("" if label.startswith("engine") else " (CPU)")
        for label, m in measured.items()
    )
    return f"median {shown}" + (f"; {len(not_measured)} not measured" if not_measured else "")
