"""``csa-deploy optimize --extract MODULE``: the optimized subgraph of one PyTorch module, in a file of its own."""

from __future__ import annotations

from typing import Any

from csa_deploy.cli.console import Console
from csa_deploy.cli.session import existing_workspace


def run_extract(module: str, network: str | None, settings: dict[str, Any], console: Console) -> None:
    """Save ``onnx/<network>.<module>.onnx`` in the workspace and say where it is."""
    from csa_deploy.graph.extract import extract
    from csa_deploy.graph.load import load_model, save_model
    from csa_deploy.records.optimize import OptimizeRecord

    workspace = existing_workspace(network, settings)
    source = workspace.root / workspace.read(OptimizeRecord).graph
    target = source.with_name(f"{source.name.removesuffix('.optimized.onnx')}.{module}.onnx")
    save_model(extract(load_model(source, full_check=False), module), target)
    console.answer.add({"extracted": str(target)})
    console.show(str(target))
