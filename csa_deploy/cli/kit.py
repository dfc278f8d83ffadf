"""``csa-deploy kit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from csa_deploy.cli.console import Console
from csa_deploy.cli.options import flags


@flags("kit")
def kit(
    console: Console,
    settings: dict[str, Any],
    network: Annotated[
        str | None, typer.Argument(metavar="[NETWORK]", help="Show the gates of its workspace as well.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")] = Path("kit"),
    results: Annotated[
        Path | None,
        typer.Option("--results", metavar="FILE", help="JUnit XML of this version's tests: pytest --junitxml=FILE."),
    ] = None,
    pdf: Annotated[bool, typer.Option("--pdf", help="Print the page to kit.pdf as well; needs chromium.")] = False,
) -> None:
    """Write the tool-confidence kit: what could go wrong unnoticed, and what shows that it does not.

    A folder for a safety review: kit.html to read and print, kit.json, trace.json of tests and what they show, and the
    same for LOBSTER. No certification is claimed.
    """
    from csa_deploy.confidence.kit import JudgedWorkspace, make_kit, write_kit

    deployment = None
    if network is not None or settings.get("workspace"):
        from csa_deploy.bundle.verdict import verdict_of
        from csa_deploy.cli.session import existing_workspace

        workspace = existing_workspace(network, settings)
        said = verdict_of(workspace)
        deployment = JudgedWorkspace(workspace.config["network"], said.state, said.reasons, said.gates)
    made = make_kit(results, deployment)
    written = write_kit(made, output, pdf=pdf)
    counts = made.results.count(list(made.trace.tests.values()))
    console.answer.add({"folder": str(output), "files": [path.name for path in written], "tests": counts})
    console.answer.add({"skipped_without_saying_so": made.unstated})
    console.plain(f"{output}: {', '.join(path.name for path in written)}")
    console.plain(f"{len(made.trace.tests)} tests: {', '.join(f'{n} {o}' for o, n in sorted(counts.items()))}")
    for name in made.unstated:
        console.notice(f"skipped, and the trace does not say what it needs: {name}")
