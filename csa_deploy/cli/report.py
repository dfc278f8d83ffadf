"""``csa-deploy report``: the workspace as text, JSON or a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from csa_deploy.cli.console import Console


def run_report(
    output_format: str,
    output: Path | None,
    network: str | None,
    settings: dict[str, Any],
    console: Console,
    *,
    open_page: bool = False,
    tracker: str | None = None,
) -> None:
    """Make report.html and report.json in the workspace, show or write the asked form, and what else is asked."""
    from csa_deploy.cli.session import existing_workspace, run_verb
    from csa_deploy.workspace import write_atomic

    workspace = existing_workspace(network, settings)
    console.quiet = console.quiet or (output_format != "text" and output is None)
    run_verb(["report"], workspace.config["network"], {**settings, "workspace": str(workspace.root)}, console)
    if tracker is not None:
        from csa_deploy.report.tracking import track

        found = track(workspace.root, tracker)
        console.notice(f"{tracker}: {len(found.metrics)} numbers and {len(found.files)} files of {found.name}")
    if open_page:
        _open(workspace.root / "report.html")
    if output_format == "text":
        return
    content = _content(workspace.root, output_format)
    if output is not None:
        console.answer.elsewhere()
        write_atomic(output, content)
    elif console.answer.as_json:
        import json

        console.answer.data = json.loads(content)
    else:
        console.write(content)


def _content(root: Path, output_format: str) -> str:
    if output_format != "markdown":
        return (root / f"report.{output_format}").read_text(encoding="utf-8")
    import json

    from csa_deploy.records.report import ReportData
    from csa_deploy.report.markdown import summary

    data = json.loads((root / "report.json").read_text(encoding="utf-8"))
    return summary(ReportData.from_json(data)) + "\n"


def _open(page: Path) -> None:
    """Raises EnvironmentLacksError when this machine has no browser."""
    import webbrowser

    from csa_deploy.errors import EnvironmentLacksError

    if not webbrowser.open(page.resolve().as_uri()):
        raise EnvironmentLacksError(f"no browser here to open {page}", fix="copy that file to a machine that has one")
