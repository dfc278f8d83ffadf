"""``csa-deploy verify --exporters``: the network exported in several ways, compared pair by pair."""

from __future__ import annotations

from typing import Any

from csa_deploy.cli.console import Console
from csa_deploy.tables import titled

_SAMPLES = 8  # where --samples is not given: differences of exporters show on a few


def run_exporters(network: str | None, settings: dict[str, Any], console: Console) -> None:
    """Compare, print the table, store it in the workspace; exit 6 when two graphs differ beyond the tolerance."""
    from rich.markup import escape

    from csa_deploy.cli.session import opened, resolve
    from csa_deploy.stages import Activity
    from csa_deploy.units import decibel, scientific
    from csa_deploy.verify.exporters import compare_exporters
    from csa_deploy.workspace import dump_json, write_atomic

    config, root = resolve(network, settings, inherit=True)
    stage, path = Activity("exporters", "exporters compared"), root / "exporters.json"
    with opened(config, root) as context, console.watching() as watcher:
        watcher.started(stage)
        found = compare_exporters(
            context, settings.get("samples", _SAMPLES), lambda done, total: watcher.progress(stage, done, total)
        )
        write_atomic(path, dump_json(found.to_json()))
    console.answer.add(found.to_json())
    title = escape(f"{context.name}: exporters on random and {found.real} real inputs")
    table = titled(title, ("graph", "against", "nodes", "max error", "error / range", "signal/noise", ""))
    for pair in found.pairs:
        numbers = scientific(pair.max_abs_error), scientific(pair.max_rel_error), decibel(pair.snr_db)
        nodes = " / ".join("-" if n is None else str(n) for n in pair.nodes)
        state = {True: "differs", False: "agrees", None: f"not compared: {pair.reason}"}
        verdict = state[pair.differs(config.export_tolerance)]
        table.add_row(*map(escape, (pair.first, pair.second, nodes, *numbers, verdict)))
    console.show(table, str(path))
    if failure := found.failure(config.export_tolerance):
        raise failure
