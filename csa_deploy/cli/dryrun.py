"""``csa-deploy build --dry-run``: what the scopes say, what would be copied, and what trtexec would be told."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csa_deploy.cli.console import Console

if TYPE_CHECKING:
    from csa_deploy.config import Config


def show_commands(network: str | None, settings: dict[str, Any], console: Console) -> None:
    """Make the graphs and print one command per precision; a target is reached where its file states no version.

    What the scopes say and what is copied are comments, so that the output is a shell script. A scope that denies a
    graph ends it as it would end the build.
    """
    from csa_deploy.builders import wording_builder
    from csa_deploy.cli.session import opened, resolve
    from csa_deploy.pipeline import run_stages
    from csa_deploy.stages.build import graph_for, plan_for, scopes_for
    from csa_deploy.trtexec.safe.secrets import masked_words

    config, root = resolve(network, settings, inherit=True)
    if config.split:
        _show_parts(config, root, console)
        return
    with opened(config, root) as context, wording_builder(config) as builder:
        with console.watching() as watcher:
            run_stages(["check", "precision"] if config.restricted else ["precision"], context, watcher)
        said, commands = list[str](), dict[str, list[str]]()
        for precision in config.precision:
            for scope in scopes_for(context, builder, precision):
                said.append(f"# {scope.scope}: {scope.verdict} ({scope.level}), {scope.graph}")
            job = builder.job(graph_for(context, builder, precision), plan_for(context, precision))
            commands[precision] = list(masked_words(job.argv))
            if steps := builder.steps(job):
                assert builder.machine is not None
                said += [line for step in steps for line in step.lines(builder.machine.transport.login())]
                continue
            there = f"{builder.machine.name}:{builder.machine.workdir}/{job.key[:24]}" if builder.machine else ""
            said += [f"# copied there: {path} to {there}/{name}" for name, path in job.inputs.items()]
            said += [shlex.join(commands[precision]), f"# brought back, as far as written: {', '.join(job.outputs)}"]
        console.answer.add({"commands": commands})
        for line in said:
            console.plain(line)


def _show_parts(config: Config, root: Path, console: Console) -> None:
    """The commands of a split network's parts, for the target's TensorRT or ``--tensorrt``; nothing is reached."""
    from csa_deploy.cli.session import opened
    from csa_deploy.pipeline import run_stages

    with opened(config, root) as context:
        with console.watching() as watcher:
            run_stages(["split"], context, watcher)
        split = context.split
    assert split is not None  # it was asked for
    console.answer.add({"commands": {build.part: build.command for build in split.builds}})
    for part in split.parts:
        console.plain(f"# {part.name}: {part.setting}, trtexec of TensorRT {split.tensorrt}")
        for placement in split.placed(part.name):
            console.plain(f"# {placement.scope}: {placement.verdict}, {placement.said}")
        if command := split.command_of(part.name):
            console.plain(shlex.join(["trtexec", *command]))
    for finding in split.findings:
        console.plain(f"# {finding.kind}: {finding.message}; {finding.fix}")
