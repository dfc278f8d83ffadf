"""The repair stage: the optimized graph, repaired for the scopes that count; the stages after it work on the result."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import onnx

from csa_deploy.errors import EnvironmentLacksError
from csa_deploy.graph.load import load_model, save_model
from csa_deploy.graph.repair import REPAIRS
from csa_deploy.graph.stats import graph_statistics
from csa_deploy.records.optimize import OptimizeRecord
from csa_deploy.records.repair import HalfCost, RepairRecord
from csa_deploy.repair.cost import half_cost
from csa_deploy.restricted.errata.asking import errata_asked
from csa_deploy.restricted.errata.repairing import repair_known
from csa_deploy.restricted.scopes import gates_of
from csa_deploy.runners.feeds import random_feeds
from csa_deploy.stages.check import key_parts as rules_and_validator
from csa_deploy.stages.check import preflight as preflight
from csa_deploy.workspace import StageOutput

if TYPE_CHECKING:
    from csa_deploy.context import Context
    from csa_deploy.graph.inputs import Arrays

_LOG = logging.getLogger(__name__)
_RANDOM, _REAL = 2, 4  # inputs that FP16 is compared on
COSTS = "costs"


def key_parts(context: Context) -> dict[str, Any]:
    """The scopes that are repaired for, their rules, and whether the validator can be asked."""
    return {"scopes": _scopes(context), "strict": context.config.strict, **rules_and_validator(context)}


def _scopes(context: Context) -> list[str]:
    return list(gates_of(context.config).scopes)


def comparison(context: Context) -> dict[str, Any]:
    """What the cost in FP16 is measured on."""
    config = context.config
    if "fp16" not in config.precision:
        return {}
    samples = context.data_fingerprint(_REAL * (context.sampling.batch or 1))
    return {"data": context.data_spec, "samples": samples, "seed": config.seed}


def run(context: Context) -> StageOutput[RepairRecord]:
    """Repair the optimized graph; see :func:`csa_deploy.restricted.errata.repairing.repair_known`."""
    config, optimized = context.config, context.workspace.read(OptimizeRecord)
    path = context.path(optimized.graph)
    asked = errata_asked(config)
    repaired = repair_known(path, _scopes(context), asked, strict=config.strict, progress=context.progress)
    record = RepairRecord(
        summary="",
        graph=optimized.graph,
        after=optimized.after,
        scopes=repaired.scopes,
        steps=repaired.steps,
        left=repaired.left,
        declined=repaired.declined,
        verdicts=repaired.verdicts,
    )
    artifacts = {}
    if repaired.model is not None:
        target = context.scratch / f"{context.name}.repaired.onnx"
        save_model(repaired.model, target)
        record = replace(record, graph=f"onnx/{target.name}", after=graph_statistics(repaired.model))
        artifacts[record.graph] = target
    return _with_costs(context, record, repaired.model, artifacts)


def compare_again(context: Context) -> StageOutput[RepairRecord]:
    """The cost in FP16 on other inputs."""
    record = context.workspace.read(RepairRecord)
    made = record.graph != context.workspace.read(OptimizeRecord).graph
    return _with_costs(context, record, load_model(context.path(record.graph)) if made else None, {})


def _with_costs(
    context: Context, record: RepairRecord, repaired: onnx.ModelProto | None, artifacts: dict[str, Any]
) -> StageOutput:
    costs: dict[str, HalfCost] = {}
    if repaired is not None and "fp16" in context.config.precision:
        before = load_model(context.path(context.workspace.read(OptimizeRecord).graph), full_check=False)
        costs["fp16"] = half_cost(before, repaired, kept_repairs(record), *_feeds(context))
    said = "; ".join([_summary(record), *(cost.words for cost in costs.values())])
    record = replace(record, costs=costs, summary=said)
    return StageOutput(record, artifacts=artifacts, remarks=(COSTS,))


def kept_repairs(record: RepairRecord) -> list[str]:
    """Names of the repairs that were kept."""
    return list(dict.fromkeys(step.rule for step in record.steps if step.kept and step.rule in REPAIRS))


def _feeds(context: Context) -> tuple[list[Arrays], str]:
    """Inputs to compare on, and what they are: samples of the data where there are any, else random ones."""
    sampling, batch = context.sampling, context.sampling.batch or 1
    if context.data_spec is not None:
        try:
            dataset = context.dataset(context.preprocessing, limit=_REAL * batch)
        except EnvironmentLacksError as error:
            _LOG.info("FP16 is compared on random inputs: %s", error.message)
        else:
            assert dataset is not None
            dataset = context.with_states(dataset)
            feeds = [sampling.network(b.feed(sampling.shapes)) for b in dataset.batches(batch) if len(b) == batch]
            if feeds:
                return feeds, f"{len(feeds) * batch} samples of {dataset.name}"
    feeds = [random_feeds(sampling.inputs, context.config.seed + number) for number in range(_RANDOM)]
    return feeds, "random inputs"


def _summary(record: RepairRecord) -> str:
    """``drive-os-6 denied -> allowed, drive-os-7 allowed: gemm_to_conv, hard_activation_to_relu``."""
    parts = []
    for scope in record.verdicts:
        changed = f" -> {scope.after}" if scope.after != scope.before else ""
        parts.append(f"{scope.scope} {scope.before}{changed}")
    return f"{', '.join(parts)}: {', '.join(kept_repairs(record)) or 'nothing to repair'}"
