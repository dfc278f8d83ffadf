"""Latency of engines on their target, as trtexec measures it there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from csa_deploy.errors import EnvironmentLacksError
from csa_deploy.profile.device import DEVICE, GRAPH, LAYERS, MEMORY, lacking, nothing_of
from csa_deploy.profile.engine_layers import built_of, map_layers
from csa_deploy.profile.statistics import summarise
from csa_deploy.records.device import EngineLayer, EngineProfile, LayerAverage, TargetRun
from csa_deploy.records.profile import LatencySummary, TimedEntry
from csa_deploy.results import NotMeasured
from csa_deploy.runners.feeds import random_feeds
from csa_deploy.trtexec.command import WARMUP_MS, TimingRequest
from csa_deploy.trtexec.engines import engine_runner
from csa_deploy.trtexec.runner import TrtexecRunner
from csa_deploy.trtexec.settings import parse_options

if TYPE_CHECKING:
    from csa_deploy.context import Context

NOT_THERE = {
    GRAPH: "not asked of the target's trtexec",
    MEMORY: "trtexec's files do not state it",
    "power and energy": "the target's rails are not read over ssh",
}
NOT_OF_SAFE = "the safe runtime times no layers"
_LAYERS_METHOD = "trtexec's profile on the target, in a run of its own; average over the inferences"
_EVIDENCE = (
    "the target, timed by its own trtexec: copies to and from the device and the computation between them; two "
    "inferences are in flight, so the copies of one overlap the computation of the other"
)


@dataclass
class OnTarget:
    """What was measured on a target.

    Attributes:
        latency: label -> statistics, as for the other runners.
        measured: label -> clocks, conditions and notes.
        engines: label -> layers, without floors: the target's ceilings are not measured.
    """

    latency: dict[str, LatencySummary] = field(default_factory=dict)
    measured: dict[str, TargetRun] = field(default_factory=dict)
    engines: dict[str, EngineProfile] = field(default_factory=dict)
    contract: list[TimedEntry] = field(default_factory=list)
    not_measured: list[NotMeasured] = field(default_factory=list)


def measure_on_target(context: Context, graphs: Mapping[str, str]) -> OnTarget:
    """Time every engine that trtexec built, where it was built; ``graphs`` are those of the workspace by label."""
    found, config = OnTarget(), context.config
    for precision, engine in context.engines().items():
        if engine.backend != "trtexec":
            continue
        label = f"engine {precision}"
        try:
            runner = engine_runner(context.path(engine.path), engine, config.target, name=label, values=False)
        except EnvironmentLacksError as error:
            found.not_measured += nothing_of(label, error.message)
            continue
        assert isinstance(runner, TrtexecRunner)
        timing = TimingRequest(iterations=config.iterations, warmup_ms=WARMUP_MS)
        with runner:
            feeds = random_feeds(runner.input_specs, config.seed)
            result = runner.measure(feeds, timing)
            description = runner.describe()
        batch = context.batch
        found.latency[label] = summarise(result.samples_ms, batch=batch)
        found.latency[f"{label} {DEVICE}"] = summarise(result.compute_ms, batch=batch)
        if parse_options(engine.builder_option).inspectable:
            layers = _mapped(context, engine.path, graphs, result.layers)
            found.engines[label] = EngineProfile(layers=tuple(layers), layers_method=_LAYERS_METHOD)
        else:
            found.not_measured.append(lacking(label, LAYERS, NOT_OF_SAFE))
        found.measured[label] = result.run
        found.not_measured += [lacking(label, quantity, reason) for quantity, reason in NOT_THERE.items()]
        found.contract.append(
            TimedEntry(
                label=label,
                path=engine.path,
                runner=description,
                evidence=result.evidence or _EVIDENCE,
                **timing.to_json(),
            )
        )
    return found


def _mapped(
    context: Context, engine: str, graphs: Mapping[str, str], rows: Sequence[LayerAverage]
) -> list[EngineLayer]:
    """trtexec's layers with the nodes and modules that they stand for."""
    times: dict[str, float] = {}
    for row in rows:
        times[row.name] = times.get(row.name, 0.0) + row.average_ms
    file = context.path(f"{engine}.layers.json")
    inspection = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return map_layers(times, inspection, built_of(context, engine, graphs))
