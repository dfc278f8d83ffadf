"""``csa-deploy compare``: two runs; faster, slower or no difference shown; better, worse or no difference shown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from csa_deploy.cli.console import Console
from csa_deploy.cli.options import flags

STYLE = {"slower": "red", "faster": "green", "worse": "red", "better": "green", "undecided": "yellow"}


@flags("compare")
def compare(
    console: Console,
    settings: dict[str, Any],
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help="Workspace of the first run.")],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help="Workspace of the second run.")],
    measure: Annotated[
        bool, typer.Option("--measure", help="Time both runs' graphs anew on this machine, interleaved.")
    ] = False,
    form: str = "text",
) -> None:
    """Compare the latency and the accuracy of two runs.

    Latency: faster, slower or no difference shown, with a 99 % interval of the ratio. Accuracy: better, worse or no
    difference shown, sample by sample, with a 95 % interval of the change. The exit code is 0 whatever comes out:
    what must fail is a limit, a budget or a baseline of its own run.
    """
    from csa_deploy.report.markdown import comparison

    data = _compared(run_a, run_b, measure, settings)
    console.answer.add(data)
    if form == "markdown":
        console.write(comparison(data) + "\n")
    else:
        _show(data, console)


def _compared(run_a: Path, run_b: Path, measure: bool, settings: dict[str, Any]) -> dict[str, Any]:
    """Latency and accuracy, each as far as both runs hold it."""
    from csa_deploy.errors import UsageError
    from csa_deploy.verify.results import read_results, stored_results
    from csa_deploy.verify.run_comparison import compare_results

    for run in (run_a, run_b):
        if not (run / "manifest.json").is_file():
            raise UsageError(f"{run}: no workspace of a run", fix="give the folder that `csa-deploy run` worked in")
    data: dict[str, Any] = {"schema_version": 1, "a": str(run_a), "b": str(run_b), "not_compared": []}
    samples = [stored_results(run) for run in (run_a, run_b)]
    without = [str(run) for run, path in zip((run_a, run_b), samples, strict=True) if not path.is_file()]
    try:
        data |= _latency(run_a, run_b, measure, settings)
    except UsageError as error:
        if measure or without:
            said = f"; no stored comparison in {' and '.join(without)} either" if without else ""
            raise UsageError(error.message + said, fix=error.fix) from error
        data["not_compared"] = [{"what": "latency", "reason": error.message}]
    if without:
        reason = f"no stored comparison in {' and '.join(without)}"
        data["not_compared"].append({"what": "accuracy", "reason": reason})
    else:
        unknown = _known_metrics([run_a, run_b], settings)
        data["accuracy"] = compare_results(*map(read_results, samples))
        data["accuracy"]["not_compared"] += unknown
    return data


def _known_metrics(runs: list[Path], settings: dict[str, Any]) -> list[dict[str, str]]:
    """Make the task metrics of the runs known, or those that are named instead; those that are not to be found."""
    from csa_deploy.errors import UsageError
    from csa_deploy.metrics.plugins import load_metric
    from csa_deploy.workspace import Workspace

    stored = [spec for run in runs for spec in Workspace(run).manifest["config"].get("metric", [])]
    unknown = []
    for spec in dict.fromkeys(settings.get("metric") or stored):
        try:
            load_metric(spec)
        except UsageError as error:
            unknown.append({"what": f"metric {spec}", "reason": error.message})
    return unknown


def _latency(run_a: Path, run_b: Path, measure: bool, settings: dict[str, Any]) -> dict[str, Any]:
    from csa_deploy.profile.comparison import MINIMUM_EFFECT
    from csa_deploy.profile.runs import compare_interleaved, compare_runs
    from csa_deploy.profile.stored import load_run

    a, b = load_run(run_a), load_run(run_b)
    effect = settings.get("max_slowdown", MINIMUM_EFFECT)
    if not measure:
        return compare_runs(a, b, minimum_effect=effect)
    return compare_interleaved(
        a, b, iterations=settings.get("iterations", 100), threads=settings.get("threads"), minimum_effect=effect
    )


def _show(data: dict[str, Any], console: Console) -> None:
    from rich.markup import escape

    out = console.out
    out.print(f"A {escape(data['a'])}   B {escape(data['b'])}", soft_wrap=True)
    if "rows" in data:
        console.show(_latency_table(data))
        out.print(f"{data['method']}; changes below {_effect(data)} do not count", soft_wrap=True)
    _limits(data, console)
    if "accuracy" in data:
        console.show(_accuracy_table(data["accuracy"]))
        out.print(data["accuracy"]["method"], soft_wrap=True)
        _limits(data["accuracy"], console)


def _latency_table(data: dict[str, Any]) -> Any:
    from csa_deploy import units
    from csa_deploy.report.labels import label_of

    table = _table("latency", ("", "percentile", "A", "B", "B / A", "99 % interval", "B is"), 1)
    for row in data["rows"]:
        table.add_row(
            label_of(row["label"]),
            f"p{row['percentile']:g}",
            f"{row['a_ms']:.3f} ms",
            f"{row['b_ms']:.3f} ms",
            f"{row['ratio']:.3f}",
            units.span(row["low"], row["high"], "{:.3f}".format),
            _styled(row["outcome"]),
        )
    return table


def _accuracy_table(data: dict[str, Any]) -> Any:
    from rich.markup import escape

    from csa_deploy import units
    from csa_deploy.report.labels import label_of

    table = _table(
        "accuracy", ("", "output", "metric", "A", "B", "change (95 % interval)", "p", "B is", "lost, gained"), 3
    )
    for row in data["rows"]:
        moved = [f"{sign}{escape(i)}" for sign, key in (("-", "lost"), ("+", "gained")) for i in row[key]]
        table.add_row(
            escape(label_of(row["label"])),
            escape(row["output"]),
            row["metric"],
            *(units.metric(row[side], row["metric"]) for side in ("a", "b")),
            units.change(row["difference"], row["interval"], row["metric"]),
            units.probability(row["p_value"]),
            _styled(row["outcome"]),
            " ".join(moved),
        )
    return table


def _table(title: str, headings: tuple[str, ...], names: int) -> Any:
    """A table whose first columns are names and whose others are numbers, but for the outcome and what follows."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    words = (*headings[:names], *headings[headings.index("B is") :])
    for heading in headings:
        table.add_column(heading, justify="left" if heading in words else "right", overflow="fold")
    return table


def _styled(outcome: str) -> str:
    style = STYLE.get(outcome, "dim")
    return f"[{style}]{outcome}[/{style}]"


def _limits(data: dict[str, Any], console: Console) -> None:
    from rich.markup import escape

    from csa_deploy.report.not_measured import by_reason

    for caveat in data.get("caveats", []):
        console.out.print(f"[yellow]not alike[/yellow] {escape(caveat)}", soft_wrap=True)
    for entry in by_reason(data["not_compared"]):
        said = f"{escape(', '.join(entry['what']))}: {escape(entry['reason'])}"
        console.out.print(f"[yellow]not compared[/yellow] {said}", soft_wrap=True)


def _effect(data: dict[str, Any]) -> str:
    return f"{100 * data['rows'][0]['minimum_effect']:g} %" if data["rows"] else "the minimum effect"


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("compare")(compare)
