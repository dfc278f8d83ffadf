"""``docs/ratios.md`` out of the stored results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "ratios.md"
HEAD = """# Measured side by side

Made by `make bench` out of the results under `benchmarks/results`, those that we lose included. A and B are measured in
turn; *A / B* is the median of the pairs, so that a drift of the machine cancels, and below 1 means that A needs less.
Medians of A and B are in the unit that the line names, and of this machine. The load includes the measurement itself.
"""


def write(results: Path, names: Sequence[str]) -> None:
    """Write the page, in the order of the names."""
    stored = [json.loads(path.read_text()) for name in names if (path := results / f"{name}.json").is_file()]
    PAGE.write_text(HEAD + "".join(map(_part, stored)))


def _part(found: dict[str, Any]) -> str:
    machine = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    rows = [
        f"\n## {found['benchmark']}\n",
        f"{machine['date'][:10]}, {machine['cores']} cores, load {machine['load_average'][0]:.1f}, "
        f"Python {machine['python']}, {versions}\n",
        "| what | A | B | median A | median B | A / B | min to max | pairs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        spread = f"{row['low']:.3f} to {row['high']:.3f}" if row["pairs"] > 1 else "-"
        rows.append(
            f"| {row['what']} | {row['a']} | {row['b']} | {row['median_a']:.4g} | {row['median_b']:.4g} "
            f"| {row['ratio']:.3f} | {spread} | {row['pairs']} |"
        )
    rows += [f"| {row['what']} | not measured: {row['reason']} |||||||" for row in found["not_measured"]]
    return "\n".join(rows) + "\n"
