"""``python -m benchmarks [NAME ...]``: run the benchmarks, print a table, keep ``benchmarks/results/NAME.json``.

``docs/ratios.md`` is written anew out of all that is kept.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib import import_module, metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import page
from benchmarks.pairs import NotMeasured, Ratio
from csa_deploy.cli.main import calm_threads

NAMES = (
    "startup",
    "errata",
    "check_scaling",
    "graphs",
    "stages",
    "report",
    "calibration",
    "verify",
    "threads",
    "cluster",
)
RESULTS = Path(__file__).parent / "results"


def main(names: list[str]) -> None:
    """Run the named benchmarks, or all."""
    calm_threads()  # as the command line does
    table = Table(title="A against B, measured in turn; a ratio below 1 means that A needs less", title_justify="left")
    for heading in ("what", "A", "B", "median A", "median B", "A / B", "min to max", "pairs"):
        table.add_column(heading, justify="left" if heading in ("what", "A", "B") else "right", overflow="fold")
    RESULTS.mkdir(exist_ok=True)
    for name in names or NAMES:
        found = import_module(f"benchmarks.{name}").run()
        rows = [row for row in found if isinstance(row, Ratio)]
        missing = [row for row in found if isinstance(row, NotMeasured)]
        for r in rows:
            spread = f"{r.low:.3f} to {r.high:.3f}" if r.pairs > 1 else "-"
            table.add_row(
                r.what, r.a, r.b, f"{r.median_a:.4g}", f"{r.median_b:.4g}", f"{r.ratio:.3f}", spread, str(r.pairs)
            )
        for m in missing:
            table.add_row(m.what, f"not measured: {m.reason}")
        kept = {"schema_version": 1, "benchmark": name, "machine": machine(), "rows": [r.to_json() for r in rows]}
        kept |= {"not_measured": [m.to_json() for m in missing]}
        (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=2) + "\n")
        page.write(RESULTS, (*NAMES, *sorted({*names} - {*NAMES})))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
        "versions": {p: metadata.version(p) for p in ("torch", "onnxruntime", "onnx", "polygraphy")},
    }


if __name__ == "__main__":
    main(sys.argv[1:])
