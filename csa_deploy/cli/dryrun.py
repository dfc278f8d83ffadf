"""``csa-deploy build --dry-run``: what trtexec would be told."""

from __future__ import annotations

import shlex
from typing import Any

from csa_deploy.cli.console import Console


def show_commands(network: str | None, settings: dict[str, Any], console: Console) -> None:
    """Make the graphs and print one command per precision; a target is reached where its file states no version."""
    from csa_deploy.cli.session import opened, resolve
    from csa_deploy.engine.builders import wording_builder
    from csa_deploy.engine.stage import graph_for, plan_for
    from csa_deploy.pipeline import run_stages

    config, root = resolve(network, settings, inherit=True)
    with opened(config, root) as context, wording_builder(config) as builder:
        with console.watching() as watcher:
            run_stages(["precision"], context, watcher)
        commands = {
            precision: builder.command(graph_for(context, builder, precision), plan_for(context, precision))
            for precision in config.precision
        }
        console.answer.add({"commands": commands})
        for command in commands.values():
            console.plain(shlex.join(command))
