"""``csa-deploy quantize``: reduced precisions that keep their accuracy, with what that rests on."""

from __future__ import annotations

from typing import Any

import typer

from csa_deploy.cli.console import Console
from csa_deploy.cli.options import flags
from csa_deploy.cli.session import run_verb
from csa_deploy.cli.stages import Network


@flags("quantize")
def quantize(console: Console, settings: dict[str, Any], network: Network = None) -> None:
    """Make FP16 and INT8 graphs and measure them.

    INT8 is calibrated on --calib in one pass and constant memory, and verified in ONNX Runtime on --data (exit 6 when
    a budget is broken).
    """
    run_verb(["precision", "verify"], network, settings, console)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("quantize")(quantize)
