"""``csa-deploy prove``: whether two ONNX graphs compute the same."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from csa_deploy.cli.console import Console
from csa_deploy.cli.options import flags


@flags("prove", workspace=False)
def prove(
    console: Console,
    settings: dict[str, Any],
    first: Annotated[Path, typer.Argument(metavar="A", help="The original .onnx file.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="What is to compute the same.")],
) -> None:
    """Prove that two graphs compute the same.

    For graphs that a slimmer, a simplifier or another exporter wrote. Both run on generated inputs, and on --data. Exit
    0 when they are equal, 6 when they differ (how far, on which input, from which node on), 3 when it is not proved
    (why).
    """
    from rich.markup import escape

    from csa_deploy.api.graphs import prove as compare
    from csa_deploy.config import make_config
    from csa_deploy.errors import AccuracyGateError, NotProvedError

    config = make_config(settings)
    found = compare(first, second, config.data, samples=config.samples, seed=config.seed)
    console.answer.add(found.to_json())
    out = console.out
    if found.verdict == "equal":
        out.print(escape(str(found)), soft_wrap=True)
    if found.inputs:
        out.print(f"generated inputs: {escape(', '.join(found.inputs))}", soft_wrap=True)
    for note in found.notes:
        out.print(f"[yellow]note[/yellow] {escape(note)}", soft_wrap=True)
    if found.verdict == "different":
        raise AccuracyGateError(str(found), fix="see that node; `csa-deploy diff A B` lists what changed")
    if found.verdict == "not proved":
        raise NotProvedError(str(found), fix="give --data with inputs as in use, on which the outputs vary")
