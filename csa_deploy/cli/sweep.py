"""``csa-deploy export --sweep``: a row per input size, as they are found."""

from __future__ import annotations

from typing import Any

from csa_deploy.cli.console import Console
from csa_deploy.errors import AccuracyGateError
from csa_deploy.tables import titled


def run_sweep(text: str, network: str | None, settings: dict[str, Any], console: Console) -> None:
    """Sweep, print the table, store it in the workspace; exit 6 when a size that PyTorch runs disagrees."""

    from csa_deploy.cli.session import opened, resolve
    from csa_deploy.export.sweep import OK, SweepRow, parse_sweep, sweep
    from csa_deploy.stages import Activity
    from csa_deploy.workspace import dump_json, write_atomic

    sizes = parse_sweep(text)
    config, root = resolve(network, settings, inherit=True)
    rows: list[SweepRow] = []
    stage = Activity("sweep", "input sizes")
    with opened(config, root) as context:
        with console.watching() as watcher:
            watcher.started(stage)
            for row in sweep(context.source, config, sizes):
                rows.append(row)
                watcher.progress(stage, len(rows), len(sizes))
        path = root / "sweep.json"
        result = {"schema_version": 1, "rows": [r.to_json() for r in rows]}
        write_atomic(path, dump_json(result))
    console.answer.add(result)
    headings = ("size", "PyTorch", "shape inference", "ONNX Runtime", "error / range")
    table = titled(f"{context.name}: input sizes", headings)
    for row in rows:
        error = "-" if row.relative_error is None else f"{row.relative_error:.1e}"
        table.add_row(str(row.size), row.pytorch, row.shape_inference, row.onnxruntime, error)
    bad = [r for r in rows if r.pytorch == OK and not r.agrees]
    refused = [r for r in rows if r.pytorch != OK]
    console.show(
        table, f"{len(rows) - len(bad) - len(refused)} agree, {len(bad)} disagree, {len(refused)} refused; {path}"
    )
    if bad:
        raise AccuracyGateError(
            f"sweep: {len(bad)} of {len(rows)} sizes disagree, the first at {bad[0].size} px", fix="see the table"
        )
