"""``csa-deploy profile``, and with ``--sweep-batch`` and ``--sweep-size``: how cost grows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from csa_deploy.cli.console import Console
from csa_deploy.tables import titled

if TYPE_CHECKING:
    from csa_deploy.records.sweep import SweepPoint

_FILE = "profile_sweep.json"


def run_profile(output_format: str, network: str | None, settings: dict[str, Any], console: Console) -> None:
    """Measure, and show the result in the asked form, also where a gate fails."""
    from csa_deploy.cli.session import resolve, run_verb
    from csa_deploy.errors import PerformanceGateError
    from csa_deploy.profile.loadgen.run import refuse_samples
    from csa_deploy.records.profile import Profiled
    from csa_deploy.report.profile_junit import profile_as_junit
    from csa_deploy.workspace import Workspace

    console.quiet = console.quiet or output_format == "junit"
    refuse_samples(settings, resolve(network, settings, inherit=True)[0])
    failure = None
    try:
        run_verb(["profile"], network, settings, console)
    except PerformanceGateError as error:
        failure = error
    if output_format == "junit":
        _, root = resolve(network, settings, inherit=False)
        console.write(profile_as_junit(Profiled.from_json(Workspace(root).measured("profile"))))
    if failure is not None:
        raise failure


def run_profile_sweep(
    batches: str | None, sides: str | None, network: str | None, settings: dict[str, Any], console: Console
) -> None:
    """Sweep, print the table, and store it in the workspace, where the report finds it."""

    from csa_deploy.cli.session import opened, resolve
    from csa_deploy.profile.loadgen.run import refuse_samples
    from csa_deploy.profile.sweep import parse_points, sweep
    from csa_deploy.stages import Activity
    from csa_deploy.workspace import dump_json, write_atomic

    wanted = {
        "batches": parse_points("--sweep-batch", batches) if batches else [],
        "sides": parse_points("--sweep-size", sides) if sides else [],
    }
    config, root = resolve(network, settings, inherit=True)
    refuse_samples(settings, config)
    stage = Activity("sweep", "batch and size")
    with opened(config, root) as context:
        with console.watching() as watcher:
            watcher.started(stage)
            data = sweep(
                context.source, config, **wanted, progress=lambda done, total: watcher.progress(stage, done, total)
            )
        write_atomic(root / _FILE, dump_json(data.to_json()))
        console.answer.add(data.to_json())
        context.workspace.forget(["report"])  # what it shows has changed
    headings = ("batch", "side", "MACs", "median", "99 % interval", "per sample")
    table = titled(f"{context.name} on this machine's CPU", headings, right=headings)
    for row in data.rows:
        table.add_row(*_cells(row))
    console.show(table, data.method, str(root / _FILE))


def _cells(row: SweepPoint) -> list[str]:
    from csa_deploy import units

    shown = [str(row.batch), str(row.side), units.giga(row.macs)]
    if row.median_ms is None:
        return [*shown, f"not measured: {row.reason}", units.NONE, units.NONE]
    return [
        *shown,
        units.milliseconds(row.median_ms),
        f"{row.interval_ms[0]:.2f} to {row.interval_ms[1]:.2f}" if row.interval_ms else units.NONE,
        units.milliseconds(row.median_ms / row.batch),
    ]
