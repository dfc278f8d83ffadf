"""``csa-deploy verify --exporters``: the network exported in several ways, compared pair by pair."""

from __future__ import annotations

from typing import Any

from csa_deploy.cli.console import Console
from csa_deploy.errors import AccuracyGateError, UsageError

_SAMPLES = 8  # where --samples is not given: differences of exporters show on a few


def run_exporters(network: str | None, settings: dict[str, Any], console: Console) -> None:
    """Compare, print the table, store it in the workspace; exit 6 when two graphs differ beyond the tolerance."""
    from rich.markup import escape
    from rich.table import Table

    from csa_deploy.cli.session import opened, resolve
    from csa_deploy.runners.base import filled
    from csa_deploy.runners.feeds import random_feeds
    from csa_deploy.stages import Activity
    from csa_deploy.units import decibel, scientific
    from csa_deploy.verify.exporters import cross_check
    from csa_deploy.workspace import dump_json, write_atomic

    config, root = resolve(network, settings, inherit=True)
    stage = Activity("exporters", "exporters compared")
    with opened(config, root) as context, console.watching() as watcher:
        if context.source.kind == "onnx":
            raise UsageError(f"{config.network}: an ONNX file is exported already", fix="name the PyTorch network")
        watcher.started(stage)
        made = context.source.make_network(
            input_size=context.size,
            batch=config.batch,
            checkpoint=context.checkpoint,
            checkpoint_key=config.checkpoint_key,
        )
        how = made.sampling
        data = context.dataset(made.preprocessing, limit=settings.get("samples", _SAMPLES))
        feeds = [random_feeds(how.inputs, config.seed)]
        size = how.batch or 1
        parts = data.batches(size) if data else ()
        feeds += [how.network(filled(part.feed(how.shapes), size)) for part in parts]
        pairs = cross_check(made, feeds, config.threads, lambda done, total: watcher.progress(stage, done, total))
        path = root / "exporters.json"
        result = {"schema_version": 1, "pairs": [p.to_json() for p in pairs]}
        write_atomic(path, dump_json(result))
    console.answer.add(result)
    table = Table(title=escape(f"{context.name}: exporters on random and {len(feeds) - 1} real inputs"))
    for heading in ("graph", "against", "nodes", "max error", "error / range", "signal/noise", ""):
        table.add_column(heading, overflow="fold")
    for pair in pairs:
        numbers = scientific(pair.max_abs_error), scientific(pair.max_rel_error), decibel(pair.snr_db)
        nodes = " / ".join("-" if n is None else str(n) for n in pair.nodes)
        state = {True: "differs", False: "agrees", None: f"not compared: {pair.reason}"}
        verdict = state[pair.differs(config.export_tolerance)]
        table.add_row(*map(escape, (pair.first, pair.second, nodes, *numbers, verdict)))
    console.show(table, str(path))
    bad = [p for p in pairs if p.differs(config.export_tolerance)]
    if bad:
        raise AccuracyGateError(
            f"exporters: {bad[0].first} differs from {bad[0].second} by {bad[0].max_rel_error:.1e} of the range, "
            f"allowed is {config.export_tolerance:g}",
            fix="see the table; export with the exporter and opset that agree with PyTorch",
        )
