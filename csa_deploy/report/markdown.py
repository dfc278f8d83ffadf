"""Summaries in Markdown, made for a comment on a pull request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from csa_deploy import units
from csa_deploy.report.labels import SIZE, label_of, reference_of, size_of, timed_on
from csa_deploy.report.not_measured import by_reason
from csa_deploy.report.views import accuracy_columns

ICON = {"pass": "✅", "fail": "❌", "incomplete": "⚠️"}
ARROW = {"slower": "🔺 slower", "faster": "🔽 faster", "no difference shown": "no difference shown"}


def summary(data: dict[str, Any]) -> str:
    """The report in one screen: verdict with its gates, a row per graph and engine, and what was not measured."""
    verdict = data["verdict"]
    lines = [f"### {ICON[verdict['state']]} {data['network']}: {verdict['state'].upper()}", ""]
    lines += [f"- **{c['state']}** {_plain(c['text'])}" for c in verdict["checks"]]
    lines += [f"- {_plain(reason)}" for reason in verdict["reasons"]]
    columns = accuracy_columns(data, reference_of(data["records"].get("verify")))
    headings = ("", SIZE, "MACs", *(heading for heading, _ in columns), "verdict", "median", "p99")
    lines += ["", *_table(headings, (_row(row, [metric for _, metric in columns]) for row in data["rows"]))]
    if data["not_measured"]:
        lines += ["", f"<details><summary>{len(data['not_measured'])} not measured</summary>", ""]
        lines += [f"- {_plain(e['brief'])}: {_plain(e['reason'])}" for e in by_reason(data["not_measured"])]
        lines += ["", "</details>"]
    where = (
        "latencies of graphs are those of ONNX Runtime on the CPU of the machine that ran this, and say nothing about "
        "INT8 on a target"
    )
    lines += ["", f"Work and time are per inference of batch {data['batch']}; {where}."]
    return "\n".join(lines)


def comparison(data: dict[str, Any]) -> str:
    """Two runs: the result of :func:`csa_deploy.profile.runs.compare_runs`, and under ``accuracy`` that of
    :func:`csa_deploy.verify.run_comparison.compare_results`, each as far as there is one.
    """
    lines = [f"### B `{data['b']}` against A `{data['a']}`"]
    lines += _latency(data) if "rows" in data else []
    lines += _limits(data)
    lines += _accuracy(data["accuracy"]) if "accuracy" in data else []
    return "\n".join(lines)


def _latency(data: dict[str, Any]) -> list[str]:
    rows = (
        (
            label_of(r["label"]),
            f"p{r['percentile']:g}",
            f"{r['a_ms']:.3f} ms",
            f"{r['b_ms']:.3f} ms",
            f"{units.slowdown(r['ratio'])} % ({units.span(r['low'], r['high'], units.slowdown)})",
            ARROW[r["outcome"]],
        )
        for r in data["rows"]
    )
    return ["", *_table(("", "percentile", "A", "B", "change, 99 % interval", "B is"), rows)]


def _accuracy(data: dict[str, Any]) -> list[str]:
    rows = (
        (
            label_of(r["label"]),
            *(r[key] for key in ("output", "metric")),
            *(units.metric(r[key], r["metric"]) for key in ("a", "b")),
            units.change(r["difference"], r["interval"], r["metric"]),
            units.probability(r["p_value"]),
            r["outcome"],
            " ".join([*(f"-{i}" for i in r["lost"]), *(f"+{i}" for i in r["gained"])]),
        )
        for r in data["rows"]
    )
    lines = [
        "",
        *_table(("", "output", "metric", "A", "B", "change, 95 % interval", "p", "B is", "lost, gained"), rows),
    ]
    return [*lines, *_limits(data)]


def _limits(data: dict[str, Any]) -> list[str]:
    """How two runs were compared, what was not alike, and what was not compared."""
    lines = ["", *([f"{data['method']}."] if "method" in data else [])]
    lines += [f"- not alike: {_plain(c)}" for c in data.get("caveats", [])]
    for entry in by_reason(data["not_compared"]):
        lines.append(f"- not compared: {_plain(', '.join(entry['what']))}: {_plain(entry['reason'])}")
    return lines


def _row(row: dict[str, Any], metrics: Sequence[str]) -> Sequence[str]:
    latency = row["latency_ms"] or {}
    state = row["verify"] or ("not measured" if row["not_measured"] else units.NONE)
    median = units.milliseconds(latency.get("50"))
    return (
        label_of(row["label"]),
        size_of(row),
        units.giga(row["macs"]),
        *(units.metric(row["metrics"].get(metric), metric) for metric in metrics),
        f"{state}: {row['decided_by']}" if row["decided_by"] else state,
        median if median == units.NONE else f"{median} {timed_on(row['label'])}",
        units.milliseconds(latency.get("99")),
    )


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(headings) + " |", "|" + "|".join(["---"] + ["---:"] * (len(headings) - 1)) + "|"]
    return lines + ["| " + " | ".join(_plain(cell) for cell in row) + " |" for row in rows]


def _plain(text: str) -> str:
    """Text that cannot break out of a table or become markup."""
    return str(text).replace("|", "\\|").replace("<", "&lt;").replace("`", "'").replace("\n", " ")
