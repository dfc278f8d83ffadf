"""``csa-deploy verify``: compare, and explain where asked."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from csa_deploy.cli.console import Console
from csa_deploy.cli.options import flags
from csa_deploy.cli.session import run_verb
from csa_deploy.cli.stages import Network

Candidates = Annotated[
    list[str] | None,
    typer.Argument(metavar="[GRAPH]...", help="ONNX graphs to compare beside the workspace's own.", show_default=False),
]


@flags("verify")
def verify(
    console: Console,
    settings: dict[str, Any],
    network: Network = None,
    candidates: Candidates = None,
    exporters: Annotated[
        bool, typer.Option("--exporters", help="Instead, compare exporters, opsets and the optimized graph.")
    ] = False,
) -> None:
    """Compare graphs and engines with PyTorch.

    On real data, and with accuracy where the data have labels. A bound is met when the unfavourable end of the
    metric's confidence interval meets it. Exit 6 when a budget is broken, and with --strict when it is undecided.
    """
    if exporters:
        from csa_deploy.cli.exporters import run_exporters

        run_exporters(network, settings, console)
        return
    given = [*settings.get("candidate", []), *(candidates or [])]
    run_verb(["verify"], network, {**settings, **({"candidate": given} if given else {})}, console)
