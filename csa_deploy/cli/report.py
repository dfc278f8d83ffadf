"""``csa-deploy report``: the workspace as text, JSON or a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from csa_deploy.cli.console import Console
from csa_deploy.errors import UsageError

FORMATS = ("text", "json", "html")


def run_report(form: str, output: Path | None, network: str | None, settings: dict[str, Any], console: Console) -> None:
    """Make report.html and report.json in the workspace, and show or write the asked form."""
    from csa_deploy.cli.session import existing_workspace, run_verb
    from csa_deploy.workspace import write_atomic

    if form not in FORMATS:
        raise UsageError(f"--format {form}: no such form", fix=f"use one of {', '.join(FORMATS)}")
    workspace = existing_workspace(network, settings)
    console.quiet = console.quiet or (form != "text" and output is None)
    run_verb(
        ["report"], workspace.manifest["config"]["network"], {**settings, "workspace": str(workspace.root)}, console
    )
    if form == "text":
        return
    content = (workspace.root / f"report.{form}").read_text(encoding="utf-8")
    if output is not None:
        write_atomic(output, content)
    else:
        import sys

        sys.stdout.write(content)
