"""The verbs of the pipeline: each runs its stage and whatever that stage needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from csa_deploy.cli.console import Console
from csa_deploy.cli.options import flags
from csa_deploy.cli.session import run_verb

Network = Annotated[
    str | None,
    typer.Argument(
        metavar="NETWORK",
        help="Registry name, file.py:factory, package.module:factory or file.onnx; default convselfattn.",
        show_default=False,
    ),
]
NetworkOrConfig = Annotated[
    str | None,
    typer.Argument(
        metavar="NETWORK|CONFIG.yaml",
        help="A network, or a YAML file whose keys are the flags' names.",
        show_default=False,
    ),
]


@flags("run")
def run(console: Console, settings: dict[str, Any], network: NetworkOrConfig = None) -> None:
    """Run all stages, one after another.

    Stages that are done and whose inputs are unchanged are kept. A killed run goes on where it was.
    """
    from csa_deploy.stages import STAGES

    run_verb(list(STAGES), network, settings, console, inherit=False)


@flags("export")
def export(
    console: Console,
    settings: dict[str, Any],
    network: Network = None,
    sweep: Annotated[
        str | None,
        typer.Option(
            "--sweep", metavar="START:STOP:STEP", help="Instead, check which input sizes keep the tools in agreement."
        ),
    ] = None,
) -> None:
    """Export to ONNX and compare with PyTorch.

    The graph passes onnx.checker, loads in ONNX Runtime, and agrees with PyTorch on random and real inputs (exit 6
    when it does not).
    """
    if sweep is None:
        run_verb(["export"], network, settings, console)
        return
    from csa_deploy.cli.sweep import run_sweep

    run_sweep(sweep, network, settings, console)


@flags("optimize")
def optimize(
    console: Console,
    settings: dict[str, Any],
    network: Network = None,
    extract: Annotated[
        str | None, typer.Option("--extract", metavar="MODULE", help="Also save the subgraph of this PyTorch module.")
    ] = None,
) -> None:
    """Rewrite the graph exactly, with proof.

    Every rewrite is proved on random inputs before it is kept.
    """
    run_verb(["optimize"], network, settings, console)
    if extract is not None:
        from csa_deploy.cli.extract import run_extract

        run_extract(extract, network, settings, console)


@flags("build")
def build(
    console: Console,
    settings: dict[str, Any],
    network: Network = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print trtexec's command for each precision and build nothing.")
    ] = False,
) -> None:
    """Build engines, one per precision.

    Uses TensorRT where it and a GPU are, else TensorRT-RTX, which builds ahead of time without a GPU. With
    --restricted what is built is held against the safety scopes first (exit 4 when denied).
    """
    if dry_run:
        from csa_deploy.cli.dryrun import show_commands

        show_commands(network, settings, console)
        return
    run_verb(["check", "build"], network, settings, console)


@flags("profile")
def profile(
    console: Console,
    settings: dict[str, Any],
    network: Network = None,
    sweep_batch: Annotated[
        str | None, typer.Option("--sweep-batch", metavar="1,2,4", help="Instead, time the network at these batches.")
    ] = None,
    sweep_size: Annotated[
        str | None,
        typer.Option("--sweep-size", metavar="START:STOP:STEP", help="Instead, time it at these input sizes."),
    ] = None,
    output_format: str = "text",
) -> None:
    """Measure latency of what runs here.

    Says what was not measured, and why. The latency of a CPU is never shown as the target's. Exit 7 when a --limit is
    broken, or when it is slower than the --baseline by more than noise; with --loadgen also when deadlines are shown
    not to hold.
    """
    from csa_deploy.cli.profile_sweep import run_profile, run_profile_sweep

    if sweep_batch is None and sweep_size is None:
        run_profile(output_format, network, settings, console)
        return

    run_profile_sweep(sweep_batch, sweep_size, network, settings, console)


@flags("report")
def report(
    console: Console,
    settings: dict[str, Any],
    network: Network = None,
    output_format: str = "text",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write there instead of standard output.")
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open report.html in the browser.")] = False,
    tracker: Annotated[
        str | None, typer.Option("--track", metavar="NAME", help="Hand numbers and files to mlflow or wandb.")
    ] = None,
) -> None:
    """Render what the workspace holds.

    A table here, report.html and report.json in the workspace.
    """
    from csa_deploy.cli.report import run_report

    run_report(output_format, output, network, settings, console, open_page=open_page, tracker=tracker)
