"""``csa-deploy build --dry-run``: what the scopes say, what would be copied, and what trtexec would be told."""

from __future__ import annotations

import shlex
from typing import Any

from csa_deploy.cli.console import Console


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
