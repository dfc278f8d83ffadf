"""The profile stage: latency of every graph and engine that this machine can run, and the reason for the others."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csa_deploy.errors import EnvironmentLacksError
from csa_deploy.export.compare import random_feeds
from csa_deploy.profile.latency import measure
from csa_deploy.runners.base import Runner
from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner
from csa_deploy.workspace import StageOutput

if TYPE_CHECKING:
    from csa_deploy.pipeline import Context

NOT_THE_TARGET = "ONNX Runtime on this machine's CPU: not the target's latency"


def run(context: Context) -> StageOutput:
    """Measure; the record states what was measured, the measurements file holds the numbers."""
    config = context.config
    measured: dict[str, Any] = {}
    contract = []
    graphs = context.graphs()
    total = len(graphs) * config.iterations
    for done, (label, graph) in enumerate(graphs.items()):
        with OnnxRuntimeRunner(context.path(graph), threads=config.threads, name=label) as runner:
            base = done * config.iterations
            measured[label] = _time(context, runner, base, total)
            contract.append({"label": label, "path": graph, "runner": runner.describe(), "evidence": NOT_THE_TARGET})
    not_measured = _engines(context, measured, contract)
    # Numbers of this run belong to the measurements: the record is hashed into the manifest.
    record = {
        "summary": f"{len(contract)} measured, {len(not_measured)} not measured",
        "contract": {
            "timed": "host, end to end: arrays in host memory in and out; one inference after another",
            "clock": "time.perf_counter_ns around each call",
            "warmup": config.warmup,
            "iterations": config.iterations,
            "batch": config.batch,
            "inputs": f"standard normal, seed {config.seed}",
            "clocks, power mode, temperature": "not measured: not read in this version",
        },
        "measured": contract,
        "not_measured": not_measured,
    }
    return StageOutput(record, measured={"summary": _summary(measured, not_measured), "latency": measured, "host": host()})


def _time(context: Context, runner: Runner, base: int, total: int) -> dict[str, Any]:
    shapes = {s.name: tuple(int(e or 1) for e in s.shape) for s in runner.input_specs}
    feeds = random_feeds(shapes, {s.name: s.dtype for s in runner.input_specs}, context.config.seed)
    return measure(
        runner,
        feeds,
        iterations=context.config.iterations,
        warmup=context.config.warmup,
        progress=lambda done: context.progress(base + done, total),
    )


def _engines(context: Context, measured: dict[str, Any], contract: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Time the engines where a CUDA device is; returns what could not be, with the reason."""
    if not context.workspace.stage("build"):
        return [{"what": "engines", "reason": "not built; run `csa-deploy build`"}]
    from csa_deploy.runners.engine_runner import EngineRunner

    not_measured = []
    for precision, engine in context.workspace.record("build")["engines"].items():
        label = f"engine {precision}"
        try:
            runner = EngineRunner(context.path(engine["path"]), backend=engine["backend"], name=label)
        except EnvironmentLacksError as error:
            not_measured.append({"what": label, "reason": error.message})
            continue
        with runner:
            measured[label] = _time(context, runner, 0, context.config.iterations)
            contract.append(
                {
                    "label": label,
                    "path": engine["path"],
                    "runner": runner.describe(),
                    "evidence": "this machine's CUDA device, host to host with transfers",
                }
            )
    return not_measured


def host() -> dict[str, Any]:
    """What the numbers were measured on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0] if names else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_average": [round(v, 2) for v in os.getloadavg()],
    }


def _summary(measured: dict[str, Any], not_measured: list[dict[str, str]]) -> str:
    shown = ", ".join(f"{label} {m['percentiles_ms']['50']:.1f} ms" for label, m in measured.items())
    return f"median {shown} (CPU)" + (f"; {len(not_measured)} not measured" if not_measured else "")
