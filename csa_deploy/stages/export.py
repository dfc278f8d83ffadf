"""The export stage: source to ONNX graph, checked, loaded and compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx

from csa_deploy import __version__
from csa_deploy.errors import AccuracyGateError, CsaDeployError, EnvironmentLacksError, UsageError
from csa_deploy.export.compare import RANDOM_BATCHES, compare
from csa_deploy.export.exporter import export_module
from csa_deploy.export.imaging import preprocessing_of
from csa_deploy.export.metadata import POSTPROCESSING, PREFIX, stated_postprocessing, write_metadata
from csa_deploy.export.opsets import calibrates, convert, exported_opset, meant_for, wish_for
from csa_deploy.export.settings import require_own_settings
from csa_deploy.export.static import make_static, running, wanted_by
from csa_deploy.graph.facts import opset_of
from csa_deploy.graph.guard import guarded_reading
from csa_deploy.graph.interface import graph_sampling, interface_of
from csa_deploy.graph.load import load_model, require_static, save_model
from csa_deploy.graph.stats import graph_statistics
from csa_deploy.installing import versions
from csa_deploy.network import Preprocessing, Sample
from csa_deploy.records.export import Difference, ExportRecord
from csa_deploy.runners.base import Runner, found_sample
from csa_deploy.runners.feeds import random_feeds
from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner
from csa_deploy.runners.stateful import StatesAdded, require_one_at_a_time
from csa_deploy.runners.torch_runner import torch_runner
from csa_deploy.spec import SAMPLE_ENTRY, Sampling, TensorSpec, sampling_of
from csa_deploy.state import STATE_ENTRY, StateLink, links_of, stated_links
from csa_deploy.workspace import StageOutput, sha256_of

if TYPE_CHECKING:
    from csa_deploy.boxes import Postprocessing
    from csa_deploy.config import Config
    from csa_deploy.context import Context
    from csa_deploy.data.base import Dataset
    from csa_deploy.instance import Network

REAL_SAMPLES = 8
NOT_COMPARED = "not compared on real inputs"
_STEPS = 5
_MIXED = (
    "a row of the inputs changes other rows of the outputs: a sample is all that one inference takes; where rows are "
    "samples, say --sample batched"
)


def preflight(context: Context) -> None:
    """Refuse a factory or a checkpoint that is not there, and settings that this kind of network does not have."""
    _require_fitting_settings(context)
    _require_checkpoint(context)
    if (file := context.config.state_init) and not Path(file).is_file():
        raise UsageError(f"--state-init {file}: no such file", fix="give an .npz of arrays under the inputs' names")
    context.source.require_factory()


def _require_checkpoint(context: Context) -> None:
    if context.checkpoint and not context.checkpoint.is_file():
        raise UsageError(f"{context.checkpoint}: no such checkpoint file", fix="check --checkpoint")


def key_parts(context: Context) -> dict[str, Any]:
    """What decides the export besides settings and versions."""
    config = context.config
    _require_checkpoint(context)
    return {
        "source": context.source.fingerprint(),
        "checkpoint": sha256_of(context.checkpoint) if context.checkpoint else None,
        "opset": exported_opset(config),
        # An ONNX file is converted where it is of an opset that INT8 or TensorRT does not take.
        "taken_in_for": [config.opset, config.opset is None and meant_for(config), calibrates(config)]
        if context.source.kind == "onnx"
        else None,
    }


def comparison(context: Context) -> dict[str, Any]:
    """What the exported graph is compared on, and held to."""
    config = context.config
    samples = context.data_fingerprint(REAL_SAMPLES) if context.source.kind != "onnx" else None
    init = sha256_of(Path(config.state_init)) if config.state_init else None
    return {
        "state_init": init,
        "data": context.data_spec,
        "samples": samples,
        "seed": config.seed,
        "tolerance": config.export_tolerance,
    }


def _require_fitting_settings(context: Context) -> None:
    """Raise for settings that this kind of network does not have."""
    kind: Literal["module", "ONNX file"] = "ONNX file" if context.source.kind == "onnx" else "module"
    require_own_settings(kind, context.source.spec, context.config)
    newest = onnx.defs.onnx_opset_version()
    if (context.config.opset or 0) > newest:
        raise UsageError(
            f"--opset {context.config.opset}: ONNX {onnx.__version__} knows opsets up to {newest}",
            fix="drop --opset: TensorRT decides it",
        )


def run(context: Context) -> StageOutput[ExportRecord]:
    """Export (or take in) the network; see :mod:`csa_deploy.export`."""
    if context.source.kind == "onnx":
        return _take_in(context)
    config, progress = context.config, context.progress
    progress(0, _STEPS)
    network = _network(context)
    progress(1, _STEPS)
    links = links_of(config.state, network.input_specs, network.outputs)
    # Before the export: bad data cost no waiting.
    with torch_runner(network) as runner:
        require_one_at_a_time(links, runner)
        states = partial(_with_states, context, runner, links)
        real, reason = _real_feeds(context, network.preprocessing, network.sampling, states)
    exported = export_module(
        network.module,
        network.inputs,
        network.output_names,
        opset=exported_opset(config),
        exporter=config.exporter,
    )
    model, notes = exported.model, [*network.notes, *exported.notes]
    progress(2, _STEPS)
    entries = _provenance(context, exported.exporter, network.postprocessing, network.sampling.kind, links)
    write_metadata(model, entries, network.preprocessing)
    path = _check_and_save(context, model)
    progress(3, _STEPS)
    differences = _differences(context, network, path, real)
    progress(5, _STEPS)
    notes += [f"{NOT_COMPARED}: {reason}"] if reason else []
    return output_of(context, model, path, network.preprocessing, differences, exporter=exported.exporter, notes=notes)


def compare_again(context: Context) -> StageOutput[ExportRecord]:
    """Compare the graph that is there with PyTorch on other data, or by another tolerance."""
    record = context.export
    real, reason = _real_feeds(context, context.preprocessing, context.sampling, context.with_states)
    notes, differences = [note for note in record.notes if not note.startswith(NOT_COMPARED)], []
    if context.source.kind != "onnx":
        differences = _differences(context, _network(context), context.path(record.graph), real)
        notes += [f"{NOT_COMPARED}: {reason}"] if reason else []
    return _judged(replace(record, notes=tuple(notes)), differences, context.config.export_tolerance)


def _network(context: Context) -> Network:
    config = context.config
    network = context.make_network()
    with torch_runner(network) as runner:
        sample = found_sample(runner, config.sample, config.batch)
    if sample == "whole" and network.sampling.kind == "batched":
        network = replace(network, sample=sample, notes=(*network.notes, _MIXED))
    return network


def _differences(context: Context, network: Network, path: Path, real: list[dict[str, np.ndarray]]) -> list[Difference]:
    """Of PyTorch and the graph, on random inputs and on real ones."""
    specs = network.input_specs
    with (
        torch_runner(network) as reference,
        OnnxRuntimeRunner(path, spin=False, name="exported graph") as candidate,
    ):
        feeds = (random_feeds(specs, context.config.seed + i) for i in range(RANDOM_BATCHES))
        batch = network.sampling.batch
        differences = compare("random", reference, candidate, feeds, batch=batch)
        context.progress(4, _STEPS)
        return differences + compare(context.data_spec or "", reference, candidate, real, batch=batch)


def _with_states(context: Context, runner: Runner, links: Sequence[StateLink], data: Dataset) -> Dataset:
    """Frames with the states that a network has before them."""
    return StatesAdded(data, runner, links, context.initial_state(links, runner.input_specs)) if links else data


def _real_feeds(
    context: Context,
    preprocessing: Preprocessing | None,
    sampling: Sampling,
    states: Callable[[Dataset], Dataset],
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
    for b in states(dataset).batches(batch):
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
    model = load_model(path, full_check=False)  # its outputs may be declared wrongly; checked below
    notes = make_static(model, wanted_by(config))
    if wish := wish_for(opset_of(model), config):
        model, said = convert(model, wish, config.seed)
        notes.append(said)
    sampling = _sampling(model, config, notes)
    if config.batch not in (None, 1) and sampling.kind == "whole":
        raise UsageError(
            f"{path}: --batch {config.batch}, but not all inputs and outputs have it as their first axis: "
            + ", ".join(f"{s.name} {list(s.shape)}" for specs in interface_of(model) for s in specs),
            fix="drop --batch: a sample is then all that one inference takes",
        )
    preprocessing, said = preprocessing_of(model, config)
    notes += [said] if said else []
    notes.append("not compared with PyTorch: the source is an ONNX file")
    links = links_of(config.state, *interface_of(model))
    if config.data or links:
        with running(model) as runner:
            runner.sample = sampling.kind
            require_one_at_a_time(links, runner)
            if config.data:
                _real_feeds(context, preprocessing, sampling, partial(_with_states, context, runner, links))
    entries = _provenance(context, "none (the source is ONNX)", stated_postprocessing(model), sampling.kind, links)
    write_metadata(model, entries, preprocessing)
    target = _check_and_save(context, model)
    return output_of(context, model, target, preprocessing, [], exporter="none", notes=notes)


def _sampling(model: onnx.ModelProto, config: Config, notes: list[str]) -> Sampling:
    """How samples go through a file that is static now; what is to be said about it goes into the notes."""
    by_shape = sampling_of(*interface_of(model), config.sample)
    if by_shape.kind == "batched" and (by_shape.batch or 1) > 1 and config.sample is None and config.batch is None:
        with running(model) as runner:
            if found_sample(runner, None, None) == "whole":
                notes.append(_MIXED)
                return sampling_of(*interface_of(model), "whole")
    if by_shape.kind == "whole":
        notes.append(f"a sample is {by_shape.words}")
    return by_shape


def _try(path: Path) -> None:
    """What native code does with a foreign file, once; it runs apart, since damaged files can crash it."""
    onnx.shape_inference.infer_shapes(load_model(path, full_check=False), data_prop=True)
    with suppress(CsaDeployError):  # a refusal comes again, where it can be explained
        OnnxRuntimeRunner(path, name=path.name)


def _provenance(
    context: Context,
    exporter: str,
    postprocessing: Postprocessing | None,
    sample: Sample,
    links: Sequence[StateLink],
) -> dict[str, Any]:
    return {
        SAMPLE_ENTRY.removeprefix(PREFIX): sample,
        **({STATE_ENTRY.removeprefix(PREFIX): [asdict(link) for link in links]} if links else {}),
        **({POSTPROCESSING: postprocessing.to_json()} if postprocessing else {}),
        "version": __version__,
        "network": context.source.name,
        "source": f"{context.source.kind}:{Path(context.source.spec).name}",
        "source_sha256": context.source.fingerprint(),
        "exporter": exporter,
        **(versions(["torch"]) if context.source.kind != "onnx" else {}),
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


def output_of(
    context: Context,
    model: onnx.ModelProto,
    path: Path,
    preprocessing: Preprocessing | None,
    differences: list[Difference],
    *,
    exporter: str,
    notes: list[str],
) -> StageOutput:
    """The record of a graph that was exported or taken in, and whether it agrees with what it was made of."""
    inputs, outputs = interface_of(model)
    sampling = graph_sampling(model)
    relative = f"onnx/{path.name}"
    record = ExportRecord(
        summary="",
        graph=relative,
        exporter=exporter,
        opset=opset_of(model),
        batch=sampling.batch or 1,
        sample=sampling.kind,
        inputs=_values(inputs),
        outputs=_values(outputs),
        preprocessing=preprocessing,
        statistics=graph_statistics(model),
        notes=tuple(notes),
        tolerance=context.config.export_tolerance,
        differences=(),
        state=stated_links({entry.key: entry.value for entry in model.metadata_props}),
    )
    return _judged(record, differences, context.config.export_tolerance, {relative: path})


def _judged(
    record: ExportRecord, differences: list[Difference], tolerance: float, artifacts: dict[str, Path] | None = None
) -> StageOutput:
    """The record with what the comparison gave."""
    worst = max(differences, key=lambda d: d.relative, default=None)
    agreement = f"max error {worst.max_abs_error:.1e} ({worst.relative:.1e} of the range)" if worst else "not compared"
    record = replace(
        record,
        summary=f"{record.statistics.nodes} nodes, {record.statistics.work}, {agreement}",
        tolerance=tolerance,
        differences=tuple(differences),
    )
    failure = None
    if worst and not worst.relative <= tolerance:
        failure = AccuracyGateError(
            f"export: output '{worst.output}' differs from PyTorch by {worst.relative:.1e} of its range on "
            f"{worst.inputs} inputs, more than {tolerance:.1e}",
            fix="try --exporter torchscript or another --opset; if the difference is meant, raise --export-tolerance",
        )
    return StageOutput(
        record, artifacts=artifacts or {}, failure=failure, remarks=("differences", "tolerance", "notes")
    )


def _values(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(spec.name, tuple(extent or 0 for extent in spec.shape), spec.dtype) for spec in specs)
