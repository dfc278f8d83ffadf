"""What ``evaluate`` runs, with the preprocessing that belongs to it: a torch network, a graph, an engine, or parts."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from csa_deploy.errors import EnvironmentLacksError, UsageError
from csa_deploy.export.imaging import preprocessing_of
from csa_deploy.export.metadata import stated_postprocessing
from csa_deploy.export.settings import require_own_settings
from csa_deploy.export.static import leaves_open, make_static, wanted_by
from csa_deploy.graph.facts import stated_types
from csa_deploy.graph.load import load_model
from csa_deploy.network import Preprocessing, Task
from csa_deploy.records.build import BuildRecord
from csa_deploy.records.export import ExportRecord
from csa_deploy.records.precision import PrecisionRecord
from csa_deploy.records.split import SplitRecord
from csa_deploy.runners.base import Runner
from csa_deploy.runners.chained_runner import SPLIT_FILE
from csa_deploy.runners.torch_runner import torch_runner
from csa_deploy.source import load_source
from csa_deploy.trtexec.engines import engine_runner
from csa_deploy.verify.batch import Changed
from csa_deploy.verify.candidates import chain_runner, changed_graph, graph_runner
from csa_deploy.workspace import Workspace

if TYPE_CHECKING:
    from csa_deploy.boxes import Postprocessing
    from csa_deploy.config import Config

logger = logging.getLogger(__name__)
ENGINES = (".engine", ".plan", ".trt")
BUILT = (*ENGINES, ".json")
"""Suffixes of what a workspace holds and no module is."""


@dataclass(frozen=True)
class Subject:
    """What is evaluated.

    Attributes:
        runner: executes it; not entered.
        preprocessing: how its input is made.
        postprocessing: how its outputs become boxes, where it states that.
        dataset: the data set that belongs to it, if there is one.
        task: what it does, where that is known.
        changed: its graph, to be run in other batches; None of a module.
    """

    runner: Runner
    preprocessing: Preprocessing | None
    postprocessing: Postprocessing | None
    dataset: str | None = None
    task: Task | None = None
    changed: Changed | None = None


def open_subject(config: Config) -> Subject:
    """What the configuration's ``network`` names.

    Raises:
        UsageError: nothing there, or an engine that is in no workspace, so that its preprocessing is not known.
        EnvironmentLacksError: an engine, and no device for it.
    """
    path = Path(config.network)
    if path.suffix == ".onnx":
        require_own_settings("ONNX file", config.network, config)
        return _graph(path, config)
    if path.suffix in ENGINES:
        require_own_settings("engine", config.network, config)
        return _engine(path, config)
    if path.name == Path(SPLIT_FILE).name:
        require_own_settings("engine", config.network, config)
        return _split(path, config)
    source = load_source(config.network)
    require_own_settings("module", config.network, config)
    checkpoint = Path(config.checkpoint) if config.checkpoint else None
    network = source.make_network(
        input_size=config.size,
        batch=config.batch,
        checkpoint=checkpoint,
        checkpoint_key=config.checkpoint_key,
        sample=config.sample,
    )
    runner = torch_runner(network, config.threads)
    entry = source.entry
    own = (entry.dataset, entry.task) if entry else (None, None)
    return Subject(runner, network.preprocessing, network.postprocessing, *own)


def _graph(path: Path, config: Config) -> Subject:
    """An ONNX file, made static in memory where it leaves sizes open or sizes are given."""
    model = load_model(path, full_check=False)
    source: Path | bytes = path
    if leaves_open(model) or config.input_shape or config.size or config.batch:
        for note in make_static(model, wanted_by(config)):
            logger.warning("%s: %s", path.name, note)
        source = model.SerializeToString()
    precision = stated_types(model).precision
    runner = graph_runner(source, model, precision, config, name=path.name)
    changed = changed_graph(lambda: model, precision, config, name=path.name)
    preprocessing, said = preprocessing_of(model, config)
    if said:
        logger.warning("%s: %s", path.name, said)
    return Subject(runner, preprocessing, stated_postprocessing(model), changed=changed)


def _split(path: Path, config: Config) -> Subject:
    """The parts of a split network, by the record of the workspace that holds them."""
    workspace = Workspace(path.resolve().parent.parent)
    split = workspace.find(SplitRecord)
    if split is None:
        raise UsageError(
            f"{path}: no record of a split network in its workspace",
            fix="make it with `csa-deploy run NETWORK --split TENSOR`",
        )
    exported = workspace.read(ExportRecord)
    runner = chain_runner(split, workspace.root, config)
    return Subject(runner, exported.preprocessing, stated_postprocessing(workspace.root / exported.graph))


def _engine(path: Path, config: Config) -> Subject:
    """An engine of a workspace, whose records say who built it and how its input is made."""
    workspace = Workspace(path.resolve().parent.parent)
    record = workspace.find(BuildRecord)
    engines = record.engines if record else {}
    precision = next((p for p, e in engines.items() if e.engine == path.name), None)
    if precision is None:
        raise UsageError(
            f"{path}: not an engine of a workspace, so it is not known how its input is made",
            fix="evaluate the engine where `csa-deploy build` put it",
        )
    built = engines[precision]
    try:
        runner = engine_runner(path, built, config.target, name=path.name)
    except EnvironmentLacksError as error:
        raise EnvironmentLacksError(
            f"{path.name}: {error.message}", fix=f"{error.fix}, or evaluate its ONNX graph here"
        ) from error
    exported = workspace.read(ExportRecord)
    runner.sample = exported.sample
    graph = workspace.root / workspace.read(PrecisionRecord).precisions[precision].graph
    changed = changed_graph(lambda: load_model(graph, full_check=False), precision, config, name=path.name, engine=True)
    postprocessing = stated_postprocessing(workspace.root / exported.graph)
    return Subject(runner, exported.preprocessing, postprocessing, changed=changed)
