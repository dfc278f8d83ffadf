"""Runs stages for the API: in a workspace that is removed afterwards, or in the one that the caller gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx

from csa_deploy.api.given import OBJECT, source_of
from csa_deploy.api.wording import python_errors
from csa_deploy.config import Config, inherited, make_config, normalise
from csa_deploy.context import Context
from csa_deploy.errors import CsaDeployError, UsageError
from csa_deploy.export.imaging import preprocessing_of
from csa_deploy.graph.load import load_model, require_static, save_model
from csa_deploy.graph.stats import graph_statistics
from csa_deploy.pipeline import run_stages
from csa_deploy.records.export import ExportRecord
from csa_deploy.records.optimize import OptimizeRecord
from csa_deploy.source import Source, slug_of
from csa_deploy.stages import STAGES
from csa_deploy.stages.export import output_of
from csa_deploy.workspace import StageOutput, Workspace

Place = Workspace | str | Path | None
"""A workspace, its folder, or None for one that is removed afterwards."""

GIVEN = "given"
"""Key of a stage that did not run: its result came from the caller."""


@dataclass
class Given(Context):
    """A context whose graphs the caller gave, under labels of their own.

    Attributes:
        labelled: label -> path inside the workspace; empty for the graphs of the stages.
    """

    labelled: dict[str, str] = field(default_factory=dict)

    def graphs(self) -> dict[str, str]:
        """See :meth:`Context.graphs`."""
        return self.labelled or super().graphs()


@contextmanager
def folder_of(workspace: Place) -> Iterator[Path]:
    """The folder to work in."""
    if workspace is not None:
        yield workspace.root if isinstance(workspace, Workspace) else Path(workspace)
        return
    with TemporaryDirectory(prefix="csa-deploy-") as scratch:
        yield Path(scratch)


@contextmanager
def opened(root: Path, network: Any, settings: Mapping[str, Any], workspace: Place = None) -> Iterator[Given]:
    """The context for a network, in a workspace that is locked meanwhile.

    In a workspace of the caller's the settings of earlier stages count where no other is given, as they do for the
    commands.

    Args:
        root: the workspace's folder.
        network: what is worked on, in any of its forms.
        settings: by the names of flags.
        workspace: as the caller gave it.

    Raises:
        UsageError: an unknown setting, a value that is not valid, no such network, or a workspace of another one.
    """
    given = normalise({key: value for key, value in settings.items() if value is not None}, "arguments")
    made = Workspace(root)
    with python_errors(), made.locked():
        source = network if isinstance(network, Source) else source_of(network, root / GIVEN)
        if workspace is not None:
            _require_same(made, source)
        stored = {} if workspace is None else inherited(made.config, source.spec)
        yield Given(make_config(stored, given, {"network": source.spec}), source, made)
    if isinstance(workspace, Workspace):
        workspace.reload()


def _require_same(workspace: Workspace, source: Source) -> None:
    """A workspace holds one network, however its path is written: another one's records would be replaced."""
    held = workspace.config.get("network") if workspace.stages else None
    if held and held != source.spec and slug_of(held.removesuffix(OBJECT)) != source.name:
        raise UsageError(
            f"{workspace.root}: holds {held}, not {source.spec}: its records would be replaced",
            fix="give each network a workspace of its own",
        )


def run(names: list[str], context: Context) -> CsaDeployError | None:
    """Run stages and what they need, as far as they are not current; returns the failure of a comparison.

    Raises:
        CsaDeployError: another failure.
    """
    return run_stages(names, context)


def run_alone(name: str, context: Context) -> CsaDeployError | None:
    """Run one stage on what :func:`adopt` put there."""
    functions = STAGES[name].functions()
    functions.preflight(context)
    with context.workspace.scratch(name) as scratch:
        context.scratch = scratch
        return commit(name, context, functions.run(context))


def commit(name: str, context: Context, output: StageOutput) -> CsaDeployError | None:
    """Put a stage's result into the workspace."""
    output.measured.setdefault("seconds", 0.0)
    output.measured.setdefault("started_at", "")
    context.workspace.commit(name, GIVEN, output)
    return output.failure


def adopt(context: Context, model: onnx.ModelProto, report: ExportRecord | None = None) -> None:
    """Make a graph what the later stages work on, exported and optimized, as it is.

    Args:
        context: of an empty workspace.
        model: the graph; of fixed shape.
        report: the record of its export, where there was one.
    """
    require_static(model)
    with context.workspace.scratch("export") as scratch:
        context.scratch = scratch
        path = scratch / f"{context.name}.onnx"
        save_model(model, path)
        relative = f"onnx/{path.name}"
        if report is None:
            preprocessing, _ = preprocessing_of(model, context.config)
            output = output_of(context, model, path, preprocessing, [], exporter="none", notes=["given as a graph"])
        else:
            output = StageOutput(replace(report, graph=relative), artifacts={relative: path})
        commit("export", context, output)
    statistics = graph_statistics(model)
    record = OptimizeRecord(summary="as given", graph=relative, before=statistics, after=statistics)
    commit("optimize", context, StageOutput(record))


def loaded(context: Context, relative: str) -> onnx.ModelProto:
    """A graph of the workspace, in memory."""
    return load_model(context.path(relative), full_check=False)


def with_precision(precision: str, root: Path) -> list[str]:
    """A precision, and those that the workspace works on already: they stay."""
    stored = Workspace(root).config.get("precision", [])
    return list(dict.fromkeys([*(stored or Config().precision), precision]))
