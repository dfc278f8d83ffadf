"""``csa-deploy new``: a small project to start from."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from csa_deploy.cli.console import Console
from csa_deploy.cli.options import flags


@flags("new", workspace=False)
def new(
    console: Console,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to make; nothing in it is overwritten.")],
) -> None:
    """Write a small project that deploys at once.

    Network, weights, data with its card, configuration, acceptance policy and CI file: each to be replaced by yours.
    """
    from csa_deploy.project.write import write_project

    written = write_project(folder)
    console.answer.add({"folder": str(folder), "files": [str(path) for path in written]})
    for path in written:
        console.plain(str(folder / path))
    console.plain(f"next: cd {shlex.quote(str(folder))} && csa-deploy run deployment.yaml")
