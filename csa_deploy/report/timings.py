"""What was timed, on a terminal: percentiles with the median's interval, what to doubt, limits, energy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from csa_deploy import units
from csa_deploy.report.labels import label_of, rank
from csa_deploy.report.verdict import against_baseline, word_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_PERCENTILES = ("90", "95", "99", "99.9")
_STYLE = {"pass": "green", "fail": "bold red"}


def timings(data: dict[str, Any], console: Console) -> None:
    """Print the table, then a line for each drift, limit and energy."""
    from rich.markup import escape

    contract, measured = data["records"]["profile"]["contract"], data["measurements"]["profile"]
    latency = measured["latency"]
    console.print(_table(data["network"], latency))
    amount = f"{contract['seconds']:g} s" if contract["seconds"] else units.counted(contract["iterations"], "inference")
    console.print(
        f"each {amount} after {contract['warmup']} to warm up, batch {contract['batch']}, in turns; interval of the "
        f"median 99 %; graphs in ONNX Runtime on this machine's CPU, {measured['host']['cpu']}",
        soft_wrap=True,
        markup=False,
    )
    for label, found in latency.items():
        if found["drift"]["flagged"]:
            console.print(
                f"[yellow]drift[/yellow] {escape(label_of(label))}: {100 * found['drift']['change']:+.1f} % from the "
                "first quarter to the last: the machine was not steady",
                soft_wrap=True,
            )
    for gate in measured["gates"]:
        console.print(
            f"[{_STYLE.get(word_of(gate), 'yellow')}]{word_of(gate)}[/] {escape(_gate(gate))}", soft_wrap=True
        )
    for label, rails in measured["energy_per_inference_j"].items():
        for rail, joule in rails.items():
            console.print(f"energy {label_of(label)}: {1e3 * joule:.3g} mJ per inference, {rail}", markup=False)


def _gate(gate: dict[str, Any]) -> str:
    """``fp32 graph p50 against baseline +10.9 % (99 % interval -1.0 to +20.0 %), allowed 2 %: both timed now``."""
    said = f"{label_of(gate['label'])} {gate['quantity']}"
    if "baseline" in gate["quantity"]:
        said += f" {against_baseline(gate)}"
    else:
        said += ("" if gate["value"] is None else f" is {gate['value']:g}") + f", limit {gate['bound']:g}"
    return said + (f": {gate['reason']}" if gate["reason"] else "")


def _table(network: str, latency: dict[str, Any]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    shown = Table(title=f"latency of {escape(network)}", title_justify="left")
    for heading in (
        "",
        "median",
        "interval",
        *(f"p{p}" for p in _PERCENTILES),
        "max",
        "jitter",
        "per second",
        "outliers",
    ):
        shown.add_column(heading, justify="right" if heading else "left")
    for label in sorted(latency, key=rank):
        found = latency[label]
        interval = [units.milliseconds(bound).removesuffix(" ms") for bound in found["intervals_ms"]["50"] or ()]
        shown.add_row(
            escape(label_of(label)),
            units.milliseconds(found["percentiles_ms"]["50"]),
            " - ".join(interval) or units.NONE,
            *(_percentile(found, p) for p in _PERCENTILES),
            units.milliseconds(found["max_ms"]),
            units.milliseconds(found["jitter_ms"]),
            f"{found['throughput']:,.0f}",
            str(found["outliers"]["count"] or ""),
        )
    return shown


def _percentile(found: dict[str, Any], percentile: str) -> str:
    value = found["percentiles_ms"][percentile]
    return f"needs {found['too_few'][percentile]}" if value is None else units.milliseconds(value)
