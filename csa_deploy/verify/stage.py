"""The verify stage: the reference against every graph and engine of the workspace, on the same tensors."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from csa_deploy.errors import AccuracyGateError, EnvironmentLacksError, UsageError
from csa_deploy.graph.load import load_model
from csa_deploy.precision.rounding import keep_rounding
from csa_deploy.runners.base import Runner, run_padded
from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner
from csa_deploy.runners.torch_runner import TorchRunner
from csa_deploy.verify.gate import Check, judge
from csa_deploy.verify.metrics import OutputMetrics
from csa_deploy.workspace import StageOutput

if TYPE_CHECKING:
    from csa_deploy.data.base import Dataset
    from csa_deploy.pipeline import Context

SAMPLES = "verify/samples.npz"
ROUNDED = "every FP16 tensor rounded to FP16, sums inside an operator in FP32"


@dataclass
class Candidate:
    """A graph or an engine under comparison, and its metrics so far."""

    label: str
    precision: str
    path: str
    runner: Runner
    outputs: dict[str, OutputMetrics] = field(default_factory=dict)

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs for inputs as PyTorch takes them; inputs that are FP16 in this graph are rounded to it."""
        cast = {
            s.name: feeds[s.name].astype(s.dtype) if feeds[s.name].dtype.kind == "f" else feeds[s.name]
            for s in self.runner.input_specs
        }
        return run_padded(self.runner, cast)

    def update(self, want: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray], ids: Any, labels: Any) -> None:
        """Add a batch."""
        missing = set(want) - set(got)
        if missing:
            raise UsageError(
                f"{self.label}: outputs {sorted(got)}, the reference has {sorted(want)}", fix="export again"
            )
        for name, array in want.items():
            self.outputs.setdefault(name, OutputMetrics(name)).update(array, got[name], ids, labels)

    def checks(self, budget: Mapping[str, float]) -> list[Check]:
        """The budget held against every output."""
        return [
            check
            for name, metrics in self.outputs.items()
            for check in judge(name, metrics.values(), budget, classifier=bool(metrics.classes))
        ]

    def to_json(self, budget: Mapping[str, float]) -> dict[str, Any]:
        """The candidate's part of the record."""
        checks = self.checks(budget)
        non_finite = {n: m.non_finite[:5] for n, m in self.outputs.items() if m.non_finite}
        return {
            "label": self.label,
            "precision": self.precision,
            "path": self.path,
            "runner": {"name": self.runner.name, **self.runner.describe()},
            "outputs": [
                {"name": n, "classes": m.classes, "metrics": m.values(), "worst": m.worst()}
                for n, m in self.outputs.items()
            ],
            "checks": [c.to_json() for c in checks],
            "non_finite": non_finite,
            "verdict": verdict(checks, non_finite),
        }


def verdict(checks: list[Check], non_finite: Mapping[str, Any]) -> str:
    """``"fail"`` if any bound is broken or any output is not finite, ``"undecided"`` if nothing was measured."""
    if non_finite or any(c.passed is False for c in checks):
        return "fail"
    return "pass" if any(c.passed for c in checks) else "undecided"


def key_parts(context: Context) -> dict[str, Any]:
    """What decides the comparison besides settings and versions."""
    return {"data": open_data(context).fingerprint(), "source": context.source.fingerprint()}


def preflight(context: Context) -> None:
    """Raise UsageError when there are no data to compare on."""
    if context.data_spec is None:
        raise UsageError(
            f"{context.name}: verify needs data and the network has none of its own",
            fix="give --data with a folder of images, an .npz of inputs by name, or a named set (digits, photos)",
        )


def open_data(context: Context) -> Dataset:
    """The data to compare on."""
    dataset = context.dataset(context.preprocessing)
    assert dataset is not None  # see preflight
    return dataset


def run(context: Context) -> StageOutput:
    """Compare; see the package."""
    dataset = open_data(context)
    not_measured: list[dict[str, str]] = []
    with contextlib.ExitStack() as stack:
        reference = stack.enter_context(_reference(context))
        candidates = _candidates(context, not_measured)
        for candidate in candidates:
            stack.enter_context(candidate.runner)
        digest = _stream(context, dataset, reference, candidates)
        bounds = {c.label: context.config.bounds(c.precision) for c in candidates}
        results = [c.to_json(bounds[c.label]) for c in candidates]
        reference_json = reference.describe()
    record = {
        "summary": _summary(results, len(dataset)),
        "reference": reference_json,
        "data": {
            "name": dataset.name,
            "samples": len(dataset),
            "labelled": dataset.labelled,
            "sha256": dataset.fingerprint(),
            "tensors_sha256": digest,
        },
        "candidates": results,
        "not_measured": not_measured,
    }
    samples = context.scratch / "samples.npz"
    np.savez_compressed(samples, **_columns(candidates))  # type: ignore[arg-type]
    return StageOutput(record, artifacts={SAMPLES: samples}, failure=_failure(results))


def _reference(context: Context) -> Runner:
    if context.source.kind == "onnx":
        return OnnxRuntimeRunner(
            context.path(context.graphs()["exported"]), threads=context.config.threads, spin=False, name="source graph"
        )
    network = context.source.make_network(
        input_size=context.size,
        batch=context.config.batch,
        checkpoint=context.checkpoint,
        checkpoint_key=context.config.checkpoint_key,
    )
    return TorchRunner(network.module, network.input_specs, network.output_names, threads=context.config.threads)


def _candidates(context: Context, not_measured: list[dict[str, str]]) -> list[Candidate]:
    found, threads = [], context.config.threads
    for label, graph in context.graphs().items():
        if label == "exported" and context.source.kind == "onnx":
            continue  # it is the reference
        precision = "fp32" if label == "exported" else label
        runner = graph_runner(context.path(graph), precision, threads=threads, name=label)
        found.append(Candidate(label, precision, graph, runner))
    build = context.workspace.record("build")["engines"] if context.workspace.stage("build") else {}
    for precision, engine in build.items():
        from csa_deploy.runners.engine_runner import EngineRunner

        label = f"engine {precision}"
        try:
            runner_: Runner = EngineRunner(context.path(engine["path"]), backend=engine["backend"], name=label)
        except EnvironmentLacksError as error:
            not_measured.append({"what": label, "reason": error.message})
            continue
        found.append(Candidate(label, precision, engine["path"], runner_))
    return found


def graph_runner(path: Path, precision: str, *, threads: int | None, name: str) -> OnnxRuntimeRunner:
    """A graph of the workspace in ONNX Runtime, with the rounding that its types state."""
    if precision == "fp32":
        return OnnxRuntimeRunner(path, threads=threads, spin=False, name=name)
    rounded = keep_rounding(load_model(path, full_check=False))
    return OnnxRuntimeRunner(
        rounded.SerializeToString(), threads=threads, optimize=False, spin=False, name=f"{name}: {ROUNDED}"
    )


def _stream(context: Context, dataset: Dataset, reference: Runner, candidates: list[Candidate]) -> str:
    """Feed every sample to all; returns the SHA-256 of the tensors that went in."""
    shapes = {s.name: tuple(int(e or 1) for e in s.shape) for s in reference.input_specs}
    digest, done, total = hashlib.sha256(), 0, len(dataset)
    checked = False
    for batch in dataset.batches(context.config.batch):
        feeds = batch.feed(shapes)
        for name in sorted(feeds):
            digest.update(np.ascontiguousarray(feeds[name]).data)
        want = run_padded(reference, feeds)
        if not checked and batch.labels is not None:
            classes = [a.shape[1] for a in want.values() if a.ndim == 2]
            if classes:
                dataset.check_labels(classes[0])
            checked = True
        for candidate in candidates:
            candidate.update(want, candidate.run(feeds), batch.ids, batch.labels)
        done += len(batch)
        context.progress(done, total)
    return digest.hexdigest()


def _columns(candidates: list[Candidate]) -> dict[str, np.ndarray]:
    columns: dict[str, np.ndarray] = {"schema_version": np.asarray(1)}
    for candidate in candidates:
        for name, metrics in candidate.outputs.items():
            columns["id"] = np.asarray(metrics.ids)
            for metric, values in metrics.columns().items():
                columns[f"{candidate.label}/{name}/{metric}"] = values
    return columns


def _summary(results: list[dict[str, Any]], samples: int) -> str:
    parts = []
    for result in results:
        metrics = result["outputs"][0]["metrics"]
        shown = f"{metrics['snr_db']:.0f} dB"
        if "top1" in metrics:
            shown = f"top-1 {100 * metrics['top1']:.1f} %"
        elif "top1_agreement" in metrics:
            shown = f"top-1 agrees on {100 * metrics['top1_agreement']:.1f} %"
        parts.append(f"{result['label']} {result['verdict']} ({shown})")
    return f"{samples} samples: " + ", ".join(parts)


def _failure(results: list[dict[str, Any]]) -> AccuracyGateError | None:
    for result in results:
        for name, ids in result["non_finite"].items():
            return AccuracyGateError(
                f"verify: {result['label']}: output '{name}' is not finite on sample {ids[0]}",
                fix="keep the layers that overflow in FP32 with --keep-fp32, or look at that sample",
            )
        for check in result["checks"]:
            if check["passed"] is False:
                sign = "at least" if check["side"] == "min" else "at most"
                worst = result["outputs"][0]["worst"][0]["id"]
                return AccuracyGateError(
                    f"verify: {result['label']}: {check['metric']} of '{check['output']}' is {check['value']:.6g}, the "
                    f"budget is {sign} {check['bound']:g} (worst sample {worst})",
                    fix=f"see the report; another budget is --budget {result['precision']}.{check['metric']}=VALUE",
                )
    return None
