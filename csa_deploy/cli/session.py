"""What every verb that works in a workspace does: merge the settings, lock, run stages, show their end."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from csa_deploy.cli.console import Console
    from csa_deploy.config import Config
    from csa_deploy.context import Context
    from csa_deploy.workspace import Workspace

logger = logging.getLogger(__name__)
DEFAULT_ROOT = Path("deploy")


def resolve(network: str | None, settings: dict[str, Any], *, inherit: bool) -> tuple[Config, Path]:
    """Merge defaults, the workspace's stored settings (if ``inherit``), a YAML file and flags; later ones win.

    Where a workspace is named and no network, it is that of the workspace: another one would replace all that is there.

    Returns:
        The configuration and the workspace directory.
    """
    from csa_deploy.config import DEFAULT_NETWORK, make_config, normalise, read_yaml

    file: dict[str, Any] = {}
    if network and Path(network).suffix in (".yaml", ".yml"):
        file, network = read_yaml(Path(network)), None
    given = normalise(settings, "command line")
    where = given.get("workspace") or file.get("workspace")
    name = network or file.get("network") or (where and _network_in(Path(where))) or DEFAULT_NETWORK
    root = Path(where or default_root(name))
    stored = stored_settings(root, name) if inherit else {}
    return make_config(stored, file, given, {"network": name}), root


def _network_in(root: Path) -> str | None:
    from csa_deploy.workspace import Workspace

    return Workspace(root).config.get("network")


def default_root(network: str) -> Path:
    """``./deploy/<network>``."""
    from csa_deploy.source import load_source

    return DEFAULT_ROOT / load_source(network).name


def stored_settings(root: Path, network: str) -> dict[str, Any]:
    """Settings that an earlier verb stored in the workspace, without those that are at their default."""
    from csa_deploy.config import inherited
    from csa_deploy.workspace import Workspace

    return inherited(Workspace(root).config, network)


def remembered(root: Path, config: Config, given: Mapping[str, Any], names: Sequence[str]) -> str:
    """Settings of earlier verbs that decide the named stages now, as flags: ``--restricted --scope drive-os-7``."""
    from csa_deploy.config import normalise
    from csa_deploy.options import OPTIONS, flag_words
    from csa_deploy.stages import with_needs

    read = {key for stage in with_needs(names, config) for key in (*stage.settings, *stage.also)}
    stored = stored_settings(root, config.network)
    said = normalise(given, "command line")
    return " ".join(
        word
        for key, value in ((key, stored[key]) for key in OPTIONS if key in stored)
        if key in read and key not in said
        for word in flag_words(key, value if key != "budget" else _asked(value))
    )


def _asked(budget: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """The bounds that are not the default ones; the stored budget holds all that apply."""
    from csa_deploy.metrics.table import default_budget

    return {p: {m: b for m, b in bounds.items() if default_budget(p).get(m) != b} for p, bounds in budget.items()}


def existing_workspace(network: str | None, settings: dict[str, Any]) -> Workspace:
    """The workspace of a network, for verbs that only read it.

    Raises:
        UsageError: nothing was made there yet.
    """
    from csa_deploy.errors import UsageError
    from csa_deploy.workspace import Workspace

    _, root = resolve(network, settings, inherit=False)
    workspace = Workspace(root)
    if not workspace.stages:
        raise UsageError(f"{root}: nothing was made here yet", fix="run `csa-deploy run` or `csa-deploy export` first")
    return workspace


@contextmanager
def opened(config: Config, root: Path) -> Iterator[Context]:
    """Open and lock the workspace of a configuration."""
    from csa_deploy.context import Context
    from csa_deploy.source import load_source
    from csa_deploy.workspace import Workspace

    source = load_source(config.network)
    workspace = Workspace(root)
    with workspace.locked():
        yield Context(config, source, workspace)


def run_verb(
    names: Sequence[str], network: str | None, settings: dict[str, Any], console: Console, *, inherit: bool = True
) -> None:
    """Run stages for a verb and show their end; raises the failure that decides the exit code."""
    from csa_deploy.pipeline import run_stages
    from csa_deploy.report.console import show
    from csa_deploy.report.journal import Journal
    from csa_deploy.stages import with_needs

    config, root = resolve(network, settings, inherit=inherit)
    if inherit and (kept := remembered(root, config, settings, names)):
        console.notice(f"remembered: {kept}")
    with opened(config, root) as context:
        if {"precision", "verify"} & {*names} and (said := context.source.untrained(config.checkpoint)):
            logger.warning("%s: %s; what graphs agree on says little about a trained network", config.network, said)
        with console.watching() as watcher:
            journal = Journal(watcher, root, [stage.name for stage in with_needs(names, config)])
            try:
                failure = run_stages(names, context, journal)
            finally:
                _answer(context.workspace, names, console)
        show(context.workspace, names, console.out)
        console.verdict(context.workspace)
    if failure is not None:
        raise failure


def _answer(workspace: Workspace, names: Sequence[str], console: Console) -> None:
    """The result for machines: all that the workspace knows by now of the stages that were asked for."""
    if console.answer.as_json:
        from csa_deploy.report.data import collect

        console.answer.add(collect(workspace).only(names))
