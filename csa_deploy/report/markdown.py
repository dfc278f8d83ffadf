"""Summaries in Markdown, made for a comment on a pull request."""

from __future__ import annotations

from collections.abc import Sequence

from csa_deploy import units
from csa_deploy.profile.runs import LatencyChange, RunComparison
from csa_deploy.records.report import ReportData, Row
from csa_deploy.report.labels import SIZE, label_of, size_of, timed_on
from csa_deploy.report.not_measured import by_reason
from csa_deploy.report.views import accuracy_columns
from csa_deploy.tables import markdown_table, plain
from csa_deploy.verify.run_comparison import AccuracyComparison

ICON = {"pass": "✅", "fail": "❌", "incomplete": "⚠️"}
ARROW = {"slower": "🔺 slower", "faster": "🔽 faster", "no difference shown": "no difference shown"}


def summary(data: ReportData) -> str:
    """The report in one screen: verdict with its gates, a row per graph and engine, and what was not measured."""
    verdict = data.verdict
    lines = [f"### {ICON[verdict.state]} {data.network}: {verdict.state.upper()}", ""]
    lines += [f"- **{check.state}** {plain(check.text)}" for check in verdict.checks]
    lines += [f"- {plain(reason)}" for reason in verdict.reasons]
    columns = accuracy_columns(data)
    headings = ("", SIZE, "MACs", *(heading for heading, _ in columns), "verdict", "median", "p99")
    lines += ["", *markdown_table(headings, (_row(row, [metric for _, metric in columns]) for row in data.rows))]
    if data.not_measured:
        lines += ["", f"<details><summary>{len(data.not_measured)} not measured</summary>", ""]
        for entry in by_reason(data.not_measured):  # the command is code already
            lines.append(f"- {plain(entry.brief)}: {'; '.join(filter(None, (plain(entry.reason), entry.fix)))}")
        lines += ["", "</details>"]
    where = (
        "latencies of graphs are those of ONNX Runtime on the CPU of the machine that ran this, and say nothing about "
        "INT8 on a target"
    )
    lines += ["", f"Work and time are per inference of batch {data.batch}; {where}."]
    return "\n".join(lines)


def comparison(found: RunComparison) -> str:
    """Two runs, each part as far as there is one."""
    lines = [f"### B `{found.b}` against A `{found.a}`"]
    lines += _latency(found.rows) if found.rows is not None else []
    lines += _limits(found)
    lines += _accuracy(found.accuracy) if found.accuracy else []
    return "\n".join(lines)


def _latency(rows: Sequence[LatencyChange]) -> list[str]:
    shown = (
        (
            label_of(row.label),
            f"p{row.percentile:g}",
            f"{row.a_ms:.3f} ms",
            f"{row.b_ms:.3f} ms",
            f"{units.slowdown(row.ratio)} % ({units.span(row.low, row.high, units.slowdown)})",
            ARROW[row.outcome],
        )
        for row in rows
    )
    return ["", *markdown_table(("", "percentile", "A", "B", "change, 99 % interval", "B is"), shown)]


def _accuracy(found: AccuracyComparison) -> list[str]:
    rows = (
        (
            label_of(row.label),
            row.output,
            row.metric,
            *(units.metric(value, row.metric) for value in (row.a, row.b)),
            units.change(row.difference, row.interval, row.metric),
            units.probability(row.p_value),
            row.outcome,
            " ".join([*(f"-{i}" for i in row.lost), *(f"+{i}" for i in row.gained)]),
        )
        for row in found.rows
    )
    headings = ("", "output", "metric", "A", "B", "change, 95 % interval", "p", "B is", "lost, gained")
    return ["", *markdown_table(headings, rows), *_limits(found)]


def _limits(found: RunComparison | AccuracyComparison) -> list[str]:
    """How two runs were compared, what was not alike, and what was not compared."""
    lines = ["", *([f"{found.method}."] if found.method else [])]
    lines += [f"- not alike: {plain(caveat)}" for caveat in found.caveats or ()]
    for entry in by_reason(found.not_compared):
        lines.append(f"- not compared: {plain(', '.join(entry.what))}: {plain(entry.reason)}")
    return lines


def _row(row: Row, metrics: Sequence[str]) -> Sequence[str]:
    latency = row.latency_ms or {}
    state = row.verify or ("not measured" if row.not_measured else units.NONE)
    median = units.milliseconds(latency.get("50"))
    return (
        label_of(row.label),
        size_of(row),
        units.giga(row.macs),
        *(units.metric(row.metrics.get(metric), metric) for metric in metrics),
        f"{state}: {row.decided_by}" if row.decided_by else state,
        median if median == units.NONE else f"{median} {timed_on(row.label)}",
        units.milliseconds(latency.get("99")),
    )
