"""The export stage: source to ONNX graph, checked, loaded and compared."""

from __future__ import annotations

import importlib.metadata
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from csa_deploy import __version__
from csa_deploy.errors import AccuracyGateError, CsaDeployError, EnvironmentLacksError, UsageError
from csa_deploy.export.compare import RANDOM_BATCHES, Difference, compare
from csa_deploy.export.exporter import export_module
from csa_deploy.export.imaging import preprocessing_of
from csa_deploy.export.metadata import write_metadata
from csa_deploy.export.opsets import calibrates, convert, exported_opset, meant_for, opset_of, wish_for
from csa_deploy.export.static import make_static, wanted_by
from csa_deploy.graph.guard import guarded_reading
from csa_deploy.graph.load import load_model, require_static, save_model
from csa_deploy.graph.stats import graph_statistics
from csa_deploy.network import Preprocessing
from csa_deploy.options import IMAGE_INPUT
from csa_deploy.runners.base import Sampling, TensorSpec, sampling_of
from csa_deploy.runners.feeds import random_feeds
from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner
from csa_deploy.runners.torch_runner import TorchRunner
from csa_deploy.workspace import StageOutput, sha256_of

if TYPE_CHECKING:
    from csa_deploy.pipeline import Context

REAL_SAMPLES = 8
STEPS = 5


def key_parts(context: Context) -> dict[str, Any]:
    """What decides the export besides settings and versions."""
    if context.checkpoint and not context.checkpoint.is_file():
        raise UsageError(f"{context.checkpoint}: no such checkpoint file", fix="check --checkpoint")
    return {
        "source": context.source.fingerprint(),
        "checkpoint": sha256_of(context.checkpoint) if context.checkpoint else None,
        "data": context.data_spec,
        "tensorrt": meant_for(context.config),
        # An ONNX file of an old opset is converted for INT8.
        "calibrates": calibrates(context.config) if context.source.kind == "onnx" else None,
    }


def preflight(context: Context) -> None:
    """Raise for settings that this kind of network does not have."""
    config, onnx_file = context.config, context.source.kind == "onnx"
    foreign = ("checkpoint", "checkpoint_key") if onnx_file else ("input_shape", *IMAGE_INPUT)
    given = next((key for key in foreign if getattr(config, key) not in (None, {})), None)
    if given is None:
        return
    fix = f"drop --{given.replace('_', '-')}, or name the network that the file was exported from"
    if not onnx_file:
        fix = "a PyTorch network says so itself, in example_inputs and preprocessing; see docs/models.md"
    raise UsageError(
        f"{context.source.spec}: --{given.replace('_', '-')} is not for {'an ONNX file' if onnx_file else 'a module'}",
        fix=fix,
    )


def run(context: Context) -> StageOutput:
    """Export (or take in) the network; see :mod:`csa_deploy.export`."""
    if context.source.kind == "onnx":
        return _take_in(context)
    config, progress = context.config, context.progress
    progress(0, STEPS)
    network = context.source.make_network(
        input_size=context.size,
        batch=config.batch,
        checkpoint=context.checkpoint,
        checkpoint_key=config.checkpoint_key,
    )
    progress(1, STEPS)
    specs = network.input_specs
    shapes = {s.name: tuple(int(e or 1) for e in s.shape) for s in specs}
    real, reason = _real_feeds(
        context, network.preprocessing, network.sampling
    )  # before the export: bad data cost no waiting
    exported = export_module(
        network.module,
        network.inputs,
        network.output_names,
        opset=exported_opset(config),
        exporter=config.exporter,
    )
    model, notes = exported.model, [*network.notes, *exported.notes]
    progress(2, STEPS)
    write_metadata(model, _provenance(context, exported.exporter), network.preprocessing)
    path = _check_and_save(context, model)
    progress(3, STEPS)

    with (
        TorchRunner(network.module, specs, network.output_names) as reference,
        OnnxRuntimeRunner(path, spin=False, name="exported graph") as candidate,
    ):
        dtypes = {s.name: s.dtype for s in specs}
        feeds = (random_feeds(shapes, dtypes, config.seed + i) for i in range(RANDOM_BATCHES))
        differences = compare("random", reference, candidate, feeds)
        progress(4, STEPS)
        differences += compare(context.data_spec or "", reference, candidate, real)
    progress(5, STEPS)
    notes += [f"not compared on real inputs: {reason}"] if reason else []
    return _output(context, model, path, network.preprocessing, differences, exporter=exported.exporter, notes=notes)


def _real_feeds(
    context: Context, preprocessing: Preprocessing | None, sampling: Sampling
) -> tuple[list[dict[str, np.ndarray]], str]:
    """Batches of a few samples of the network's data, however many are configured; else the reason why not."""
    batch = sampling.batch or 1
    if context.data_spec is None:
        return [], "no data set belongs to the network; name one with --data"
    try:
        dataset = context.dataset(preprocessing, limit=max(1, REAL_SAMPLES // batch) * batch)
        context.dataset(preprocessing)  # all that verify will read
    except EnvironmentLacksError as error:
        if context.config.data:
            raise
        return [], str(error)
    assert dataset is not None
    feeds = []
    for b in dataset.batches(batch):
        feed = b.feed(sampling.shapes)
        for place, sample in enumerate(b.ids):
            if not all(np.isfinite(array[place]).all() for array in feed.values()):
                return [], f"sample {sample} of {dataset.name} holds values that are not finite"
        feeds += [sampling.network(feed)] if len(b) == batch else []
    return feeds, "" if feeds else f"{dataset.name} holds fewer than {batch} samples"


def _take_in(context: Context) -> StageOutput:
    """An existing ONNX file: made static, converted where it must be, described; no PyTorch to compare with."""
    config, path = context.config, context.source.path
    assert path is not None
    guarded_reading(lambda: _try(path), path)
    model = load_model(path)
    notes = make_static(model, wanted_by(config))
    if wish := wish_for(opset_of(model), config):
        model, said = convert(model, wish, config.seed)
        notes.append(said)
    sampling = _sampling(model)
    if config.batch not in (None, 1) and not sampling.shared:
        raise UsageError(
            f"{path}: --batch {config.batch}, but not all inputs and outputs have it as their first axis: "
            + ", ".join(f"{v['name']} {v['shape']}" for inputs in (True, False) for v in _values(model, inputs=inputs)),
            fix="drop --batch: a sample is then all that one inference takes",
        )
    preprocessing, said = preprocessing_of(model, config)
    notes += [said] if said else []
    notes.append("not compared with PyTorch: the source is an ONNX file")
    if config.data:
        _real_feeds(context, preprocessing, sampling)
    write_metadata(model, _provenance(context, "none (the source is ONNX)"), preprocessing)
    target = _check_and_save(context, model)
    return _output(context, model, target, preprocessing, [], exporter="none", notes=notes)


def _try(path: Path) -> None:
    """What native code does with a foreign file, once; it runs apart, since damaged files can crash it."""
    load_model(path)
    with suppress(CsaDeployError):  # a refusal comes again, where it can be explained
        OnnxRuntimeRunner(path, name=path.name)


def _sampling(model: onnx.ModelProto) -> Sampling:
    inputs, outputs = (
        [TensorSpec(v["name"], tuple(v["shape"]), v["dtype"]) for v in _values(model, inputs=side)]
        for side in (True, False)
    )
    return sampling_of(inputs, outputs)


def _provenance(context: Context, exporter: str) -> dict[str, Any]:
    return {
        "version": __version__,
        "network": context.source.name,
        "source": f"{context.source.kind}:{Path(context.source.spec).name}",
        "source_sha256": context.source.fingerprint(),
        "exporter": exporter,
        "torch": importlib.metadata.version("torch"),
        "onnx": onnx.__version__,
    }


def _check_and_save(context: Context, model: onnx.ModelProto) -> Path:
    require_static(model)
    path = context.scratch / f"{context.name}.onnx"
    save_model(model, path)
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except onnx.checker.ValidationError as error:
        raise UsageError(
            f"{path.name}: not valid ONNX ({_first_line(error)})", fix="change the network there"
        ) from None
    except onnx.shape_inference.InferenceError as error:
        raise UsageError(
            f"{path.name}: shapes do not fit ({_first_line(error)})", fix="change the network there"
        ) from None
    return path


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _output(
    context: Context,
    model: onnx.ModelProto,
    path: Path,
    preprocessing: Preprocessing | None,
    differences: list[Difference],
    *,
    exporter: str,
    notes: list[str],
) -> StageOutput:
    tolerance = context.config.export_tolerance
    statistics = graph_statistics(model)
    worst = max(differences, key=lambda d: d.relative, default=None)
    agreement = f"max error {worst.max_abs_error:.1e} ({worst.relative:.1e} of the range)" if worst else "not compared"
    relative = f"onnx/{path.name}"
    record = {
        "summary": f"{statistics.nodes} nodes, {statistics.work}, {agreement}",
        "graph": relative,
        "exporter": exporter,
        "opset": opset_of(model),
        "batch": _sampling(model).batch or 1,
        "sample": "a row of the batch axis" if _sampling(model).shared else "one whole inference",
        "inputs": _values(model, inputs=True),
        "outputs": _values(model, inputs=False),
        "preprocessing": preprocessing.to_json() if preprocessing else None,
        "statistics": statistics.to_json(),
        "tolerance": tolerance,
        "differences": [d.to_json() for d in differences],
        "notes": notes,
    }
    failure = None
    if worst and not worst.relative <= tolerance:
        failure = AccuracyGateError(
            f"export: output '{worst.output}' differs from PyTorch by {worst.relative:.1e} of its range on "
            f"{worst.inputs} inputs, more than {tolerance:.1e}",
            fix="try --exporter torchscript or another --opset; if the difference is meant, raise --export-tolerance",
        )
    return StageOutput(record, artifacts={relative: path}, failure=failure)


def _values(model: onnx.ModelProto, *, inputs: bool) -> list[dict[str, Any]]:
    initializers = {t.name for t in model.graph.initializer}
    values = [v for v in model.graph.input if v.name not in initializers] if inputs else model.graph.output
    return [
        {
            "name": v.name,
            "shape": [d.dim_value for d in v.type.tensor_type.shape.dim],
            "dtype": onnx.helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type).name,
        }
        for v in values
    ]
