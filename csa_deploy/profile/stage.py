"""The profile stage: latency of every graph and engine that this machine can run, and the reason for the others."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csa_deploy import __version__
from csa_deploy.engine.device import cuda_state
from csa_deploy.errors import EnvironmentLacksError
from csa_deploy.profile.cost import GraphCost, graph_cost
from csa_deploy.profile.device import TIMED, OnDevice, nothing_of
from csa_deploy.profile.engine_layers import built_of
from csa_deploy.profile.gates import Gate, baseline_gates, failure, limit_gates
from csa_deploy.profile.host import host
from csa_deploy.profile.latency import Subject, Timed, measure_all
from csa_deploy.profile.layers import METHOD, layer_times
from csa_deploy.profile.roofline import Ceilings, floor_ms, measure_ceilings, with_floors
from csa_deploy.profile.stored import StoredRun, differences, load_run
from csa_deploy.profile.target import measure_on_target
from csa_deploy.profile.telemetry import Meter, Telemetry
from csa_deploy.runners.base import Runner
from csa_deploy.runners.engine_runner import EngineRunner
from csa_deploy.runners.engines import engine_runner
from csa_deploy.runners.feeds import random_feeds
from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner
from csa_deploy.workspace import StageOutput, sha256_of

if TYPE_CHECKING:
    from csa_deploy.pipeline import Context

NOT_THE_TARGET = "ONNX Runtime on this machine's CPU: not the target's latency"
ON_DEVICE = "this machine's CUDA device, host to host with transfers"
LAYER_ITERATIONS = 20
MIB = 2**20


def preflight(context: Context) -> None:
    """Refuse a baseline that cannot be read before anything runs."""
    if context.config.baseline:
        load_run(Path(context.config.baseline))


def key_parts(context: Context) -> dict[str, Any]:
    """The baseline counts by its bytes, and a result holds for the machine that it was measured on."""
    machine = {"cpu": host()["cpu"], "devices": [device.name for device in cuda_state().devices]}
    if not context.config.baseline:
        return machine
    return {**machine, "baseline": sha256_of(Path(context.config.baseline) / "measurements" / "profile.json")}


@dataclass
class _Bench:
    """What is timed, under the labels of the report, and what could not be."""

    subjects: dict[str, Subject] = field(default_factory=dict)
    engines: list[OnDevice] = field(default_factory=list)
    contract: list[dict[str, Any]] = field(default_factory=list)
    not_measured: list[dict[str, str]] = field(default_factory=list)

    def add(self, label: str, path: str, runner: Runner, evidence: str, seed: int) -> Subject:
        shapes = {s.name: tuple(int(e or 1) for e in s.shape) for s in runner.input_specs}
        feeds = random_feeds(shapes, {s.name: s.dtype for s in runner.input_specs}, seed)
        self.subjects[label] = Subject(runner, feeds)
        self.contract.append({"label": label, "path": path, "runner": runner.describe(), "evidence": evidence})
        return self.subjects[label]

    @property
    def timed(self) -> list[Timed]:
        """Everything that is timed in turns."""
        return [*self.subjects.values(), *(subject for engine in self.engines for subject in engine.subjects)]

    def latency(self) -> dict[str, Any]:
        """Label -> statistics, an engine's series side by side."""
        found = {label: subject.to_json() for label, subject in self.subjects.items()}
        for engine in self.engines:
            found |= engine.latency()
        return found


def run(context: Context) -> StageOutput:
    """Measure; the record states what was measured and the graphs' cost, the measurements file holds the numbers."""
    bench, meter = _Bench(), Meter(Telemetry())
    graphs = context.graphs()
    costs = {label: graph_cost(context.path(path)) for label, path in graphs.items()}
    with contextlib.ExitStack() as stack:
        _open(context, bench, graphs, stack)
        measure_all(
            bench.timed,
            iterations=context.config.iterations,
            warmup=context.config.warmup,
            seconds=context.config.seconds,
            around=lambda subject: meter.block(subject.name, lambda: len(subject.samples_ms)),
            progress=context.progress,
        )
        inspected = {engine.label: engine.inspect(iterations=LAYER_ITERATIONS) for engine in bench.engines}
    there = measure_on_target(context, graphs)
    latency = bench.latency() | there.latency
    bench.contract += there.contract
    bench.not_measured += [item for engine in bench.engines for item in engine.not_measured] + there.not_measured
    ceilings = measure_ceilings()
    bench.not_measured += meter.not_measured() + _lacking(meter.telemetry, ceilings)
    gates = _gates(context, latency, _memory(context, costs, inspected))
    record = {
        "summary": f"{len(bench.contract)} measured, {len(bench.not_measured)} not measured",
        "contract": contract(context),
        "measured": bench.contract,
        "not_measured": bench.not_measured,
        "cost": {label: cost.to_json() for label, cost in costs.items()},
        "layers": {"method": METHOD},
    }
    measured = {
        "summary": _summary(latency, bench.not_measured),
        "latency": latency,
        "layers": _layers(context, graphs),
        "engines": with_floors(inspected, ceilings) | there.engines,
        "target": there.measured,
        "roofline": _roofline(costs, ceilings),
        "energy_per_inference_j": meter.per_inference(),
        "telemetry": meter.telemetry.to_json(),
        "gates": [gate.to_json() for gate in gates],
        "host": host(),
    }
    return StageOutput(record, measured=measured, failure=failure(gates))


def contract(context: Context) -> dict[str, Any]:
    """How everything is measured."""
    config = context.config
    return {
        "timed": "host, end to end: arrays in host memory in and out; one inference after another, one stream",
        "timed_on_device": {f"engine ... {name}": what for name, what in TIMED.items()},
        "clock": "time.perf_counter_ns around each call; on the device CUDA events, read after each block",
        "order": "interleaved: up to ten rounds over all graphs, every other one reversed; one untimed call per block",
        "warmup": config.warmup,
        "iterations": config.iterations if config.seconds is None else None,
        "seconds": config.seconds,
        "batch": config.batch,
        "threads": config.threads or "one per core",
        "streams": 1,
        "spin_wait": "ONNX Runtime: off, as several networks are timed in one process; CUDA: the driver's own choice",
        "cuda_graph": "only where the label ends in 'cuda graph'",
        "clocks_and_power_mode": "not set; what was seen stands under telemetry",
        "telemetry": "read around each block, outside the timed region",
        "inputs": f"standard normal, seed {config.seed}",
        "percentiles": "only where at least one sample lies above; no sample is dropped",
        "interval": "99 %, moving-block bootstrap, blocks of a tenth of the series, 1000 resamples",
        "csa_deploy": __version__,
    }


def _open(context: Context, bench: _Bench, graphs: dict[str, str], stack: contextlib.ExitStack) -> None:
    config = context.config
    for label, graph in graphs.items():
        runner: Runner = OnnxRuntimeRunner(context.path(graph), threads=config.threads, spin=False, name=label)
        bench.add(label, graph, stack.enter_context(runner), NOT_THE_TARGET, config.seed)
    if not context.workspace.stage("build"):
        bench.not_measured.append({"what": "engines", "reason": "not built; run `csa-deploy build`"})
        return
    for precision, engine in context.workspace.record("build")["engines"].items():
        if engine["backend"] == "trtexec":
            continue  # trtexec measures there, see csa_deploy.profile.target
        label = f"engine {precision}"
        try:
            runner = stack.enter_context(engine_runner(context.path(engine["path"]), engine, None, name=label))
        except EnvironmentLacksError as error:
            bench.not_measured += nothing_of(label, error.message)
            continue
        assert isinstance(runner, EngineRunner)
        subject = bench.add(label, engine["path"], runner, ON_DEVICE, config.seed)
        bench.engines.append(OnDevice(label, runner, subject.feeds, built_of(context, engine["path"], graphs)))
        bench.engines[-1].open(stack)


def _lacking(telemetry: Telemetry, ceilings: Ceilings | str) -> list[dict[str, str]]:
    found = telemetry.not_measured()
    if isinstance(ceilings, str):
        found.append({"what": "roofline ceilings and floor time", "reason": ceilings})
    return found


def _memory(
    context: Context, costs: dict[str, GraphCost], inspected: dict[str, dict[str, Any]]
) -> dict[str, dict[str, float]]:
    """MiB by label and quantity, as far as they are known."""
    found: dict[str, dict[str, int | None]] = {
        label: {"weights_mib": cost.weight_bytes, "activations_mib": cost.activation_bytes}
        for label, cost in costs.items()
    }
    build = context.workspace.record("build")["engines"] if context.workspace.stage("build") else {}
    for precision, engine in build.items():
        label = f"engine {precision}"
        found[label] = {"engine_mib": context.path(engine["path"]).stat().st_size}
        memory = inspected.get(label, {}).get("memory")
        if memory:
            found[label]["weights_mib"] = memory["weights_bytes"]
            found[label]["activations_mib"] = memory["context_bytes"]
            found[label]["peak_mib"] = memory["peak_bytes"]
    return {
        label: {name: round(size / MIB, 3) for name, size in sizes.items() if size is not None}
        for label, sizes in found.items()
    }


def _gates(context: Context, latency: dict[str, Any], memory: dict[str, dict[str, float]]) -> list[Gate]:
    config = context.config
    gates = limit_gates(config.limit, latency, memory)
    if not config.baseline:
        return gates
    baseline = load_run(Path(config.baseline))
    # Compared as the workspace will hold them: keys and values as JSON gives them back.
    stated = json.loads(json.dumps(contract(context)))
    unlike = differences(baseline, StoredRun(context.workspace.root, config.network, latency, host(), stated))
    if unlike:
        return [*gates, Gate("all", "baseline", config.max_slowdown, None, None, None, "not measured", unlike[0])]
    return [*gates, *baseline_gates(baseline.latency, latency, config.max_slowdown)]


def _layers(context: Context, graphs: dict[str, str]) -> dict[str, Any]:
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


def _roofline(costs: dict[str, GraphCost], ceilings: Ceilings | str) -> dict[str, Any]:
    if isinstance(ceilings, str):
        return {"ceilings": None, "reason": ceilings}
    return {
        "ceilings": ceilings.to_json(),
        "floor_ms": {label: floor_ms(cost, ceilings) for label, cost in costs.items()},
    }


def _summary(measured: dict[str, Any], not_measured: list[dict[str, str]]) -> str:
    shown = ", ".join(
        f"{label} {m['percentiles_ms']['50']:.1f} ms" + ("" if label.startswith("engine") else " (CPU)")
        for label, m in measured.items()
    )
    return f"median {shown}" + (f"; {len(not_measured)} not measured" if not_measured else "")
