"""The table of networks that were run: what `csa-deploy run --json` said, kept in zoo.json and written as docs/zoo.md.

`python -m tools.zoo RESULT.json ...` takes results into the file, each in place of that network's older one;
without results it writes the page anew.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from csa_deploy import units

PAGE = Path(__file__).resolve().parents[1] / "docs" / "zoo.md"
STORED = Path(__file__).with_suffix(".json")
METRICS = {
    "top1": "top-1",
    "mean_iou": "mean IoU",
    "map": "mAP",
    "top1_agreement": "agreement with the file, no labels",
    "snr_db": "signal to noise against the file, no labels",
}
"""What a network of each task is judged by; the first that a result has. The last two ask for no labels."""
PRECISIONS = ("fp32", "fp16", "int8")


LEFT_OUT = {
    "rapidocr detector": "it finds no text in these photographs, and an error against nearly nothing says nothing",
    "rapidocr recogniser": "FP16 keeps 44 dB, but `profile` ends: ONNX Runtime 1.32.0 fuses a LayerNormalization of "
    "two types in the FP16 graph, and then refuses it",
}
"""Networks of :mod:`tools.zoo_networks` without a row, and why."""
NO_GPU = "not measured: no GPU; with one: `csa-deploy run`"


_TEXT = """\
# Zoo

Networks that were run with `csa-deploy run`, and what it said. A network that was not run is not here.
The table is made from `tools/zoo.json` by `python -m tools.zoo`; a test holds it to that file.

## Accuracy

In brackets the 95 % interval. FP32, FP16 and INT8 are the optimized graphs, run by ONNX Runtime on a CPU.
Parameters and multiply-accumulates (MACs) are those of the exported graph, constants included.

| network | parameters | MACs | metric | FP32 | FP16 | INT8 | data | date | version |
|---|---:|---:|---|---:|---:|---:|---|---|---|
{accuracy}

A signal to noise ratio of 40 dB says that the outputs differ from the file's by 1 % of their size.
Networks with weights that packages carry see foolbox's 20 photographs, so their intervals are wide; views of
scikit-image's photographs calibrate them, and no range is searched for (`--no-search`).
`digits` has 1,000 samples and `scenes` 500. Where fewer stand here, `--samples` took so many; the interval is wider.

Not in the table, though they were run:

{left_out}

## Safety scopes

The verdict, and in brackets the [level of evidence](explanation/levels.md). `unknown` is not a yes.

| network | {names} |
|---|{rule}
{scopes}

## Latency

The median of one inference, and in brackets its 99 % interval where there is one; ONNX Runtime on a CPU.
It tells nothing about a GPU.
Load is the number of processes that wanted to run. Above the number of cores the machine was busy, and times are
too long: compare no two of them then.

| network | CPU, FP32 | CPU, FP16 | CPU, INT8 | GPU | processor | load |
|---|---:|---:|---:|---|---|---:|
{latency}

## Add a network

```sh
csa-deploy run csa_digits --fp16 --int8 --scope drive-os-6 --json > result.json
python -m tools.zoo result.json
python -m tools.zoo_networks   # those that packages carry, as `tools/zoo_networks.py` lists them
```
"""


@dataclass(frozen=True)
class Measured:
    """One graph of a network.

    Attributes:
        value: of the network's metric, a share of 1, or dB.
        interval: 95 % interval of it; None where the comparison gave none.
        cpu_ms: median latency.
        cpu_interval_ms: 99 % interval of it, an end None where it is open; None where too few samples give none.
    """

    value: float
    interval: tuple[float, float] | None
    cpu_ms: float
    cpu_interval_ms: tuple[float | None, float | None] | None


@dataclass(frozen=True)
class Entry:
    """One network of the table.

    Attributes:
        network: its name.
        parameters: of the exported graph, folded constants included.
        macs: multiply-accumulates of the exported graph.
        data: what was compared on.
        samples: so many of them.
        metric: a name of :data:`METRICS`.
        graphs: by precision.
        scopes: verdict and level of evidence by scope.
        gpu_ms: median latency of engines by precision; empty where no engine ran.
        cpu: the processor that was timed, with its number of cores.
        load: processes that wanted to run, on average over the last minute before the timing.
        date: of the timing, as ISO 8601 writes a day.
        version: of csa-deploy.
    """

    network: str
    parameters: int
    macs: int
    data: str
    samples: int
    metric: str
    graphs: dict[str, Measured]
    scopes: dict[str, tuple[str, str]]
    gpu_ms: dict[str, float]
    cpu: str
    load: float
    date: str
    version: str


def entry(result: dict[str, Any]) -> Entry:
    """What the table keeps of the JSON that ``csa-deploy run --json`` prints.

    Raises:
        ValueError: a precision was not run or compared with labels, so that the row would have a hole.
    """
    records, timing, rows = result["records"], result["measurements"]["profile"], result["rows"]
    by_label = {row["label"]: row for row in rows}
    missing = [p for p in PRECISIONS if not (by_label.get(p, {}).get("metrics") and by_label[p]["latency_ms"])]
    metric = next((name for name in METRICS if not missing and name in by_label["fp32"]["metrics"]), None)
    if metric is None:
        raise ValueError(f"{result['network']}: not measured: {', '.join(missing) or 'accuracy'}")
    graphs = {}
    for precision in PRECISIONS:
        row, latency = by_label[precision], timing["latency"][precision]
        graphs[precision] = Measured(
            float(row["metrics"][metric]),
            _numbers(row["intervals"].get(metric)),
            row["latency_ms"]["50"],
            _pair(latency["intervals_ms"]["50"]),
        )
    engines = {row["precision"]: row["latency_ms"] for row in rows if row["label"].startswith("engine ")}
    host, size, compared = timing["host"], records["export"]["statistics"], records["verify"]["data"]
    return Entry(
        network=result["network"],
        parameters=size["parameters"],
        macs=size["macs"],
        data=compared["name"],
        samples=compared["samples"],
        metric=metric,
        graphs=graphs,
        scopes={scope["scope"]: (scope["verdict"], scope["level"]) for scope in records["check"]["scopes"]},
        gpu_ms={precision: latency["50"] for precision, latency in engines.items() if latency},
        cpu=f"{host['cpu']}, {host['cores']} cores",
        load=host["load_average"][0],
        date=timing["started_at"][:10],
        version=result["csa_deploy"],
    )


def _pair(given: Any) -> Any:
    return None if given is None else (given[0], given[1])


def _numbers(given: Any) -> Any:
    """A pair of numbers, of which JSON holds an infinite one as a word."""
    return None if given is None else (float(given[0]), float(given[1]))


def read(path: Path = STORED) -> list[Entry]:
    """The stored entries, in the order of the table: by name."""
    return [_entry_of(stored) for stored in json.loads(path.read_text(encoding="utf-8"))]


def _entry_of(stored: dict[str, Any]) -> Entry:
    graphs = {
        precision: Measured(
            float(one["value"]), _numbers(one["interval"]), one["cpu_ms"], _pair(one["cpu_interval_ms"])
        )
        for precision, one in stored["graphs"].items()
    }
    scopes = {name: _pair(said) for name, said in stored["scopes"].items()}
    return Entry(**{**stored, "graphs": graphs, "scopes": scopes})


def stored(entries: list[Entry]) -> str:
    """The file of the entries; inverse of :func:`read`."""
    ordered = sorted(entries, key=lambda one: one.network)
    return json.dumps([asdict(one) for one in ordered], indent=1).replace(" Infinity", ' "inf"') + "\n"


def page(entries: list[Entry]) -> str:
    """The page."""
    accuracy = [
        f"| `{one.network}` | {units.thousands(one.parameters)} | {units.giga(one.macs)} | {METRICS[one.metric]} "
        f"| {' | '.join(_accuracy(one, precision) for precision in PRECISIONS)} "
        f"| {units.counted(one.samples, 'sample')} of `{one.data}` | {one.date} | {one.version} |"
        for one in entries
    ]
    names = list(dict.fromkeys(name for one in entries for name in one.scopes))
    scopes = [f"| `{one.network}` | {' | '.join(_scope(one, name) for name in names)} |" for one in entries]
    latency = [
        f"| `{one.network}` | {' | '.join(_latency(one.graphs[precision]) for precision in PRECISIONS)} "
        f"| {', '.join(f'{p} {units.milliseconds(ms)}' for p, ms in one.gpu_ms.items()) or NO_GPU} "
        f"| {one.cpu} | {one.load:.1f} |"
        for one in entries
    ]
    return _TEXT.format(
        accuracy="\n".join(accuracy),
        left_out="\n".join(f"- `{name}`: {why}." for name, why in LEFT_OUT.items()),
        names=" | ".join(f"`{name}`" for name in names),
        rule="---|" * len(names),
        scopes="\n".join(scopes),
        latency="\n".join(latency),
    )


def _accuracy(one: Entry, precision: str) -> str:
    graph, in_db = one.graphs[precision], one.metric == "snr_db"
    if in_db and math.isinf(graph.value):
        return "identical"
    said = units.decibel(graph.value) if in_db else units.percent(graph.value)
    ends = graph.interval and units.span(*graph.interval, lambda end: f"{end:.1f}" if in_db else f"{100 * end:.2f}")
    return f"{said} ({ends})" if ends else said


def _scope(one: Entry, name: str) -> str:
    verdict, level = one.scopes.get(name, ("not asked", ""))
    return f"{verdict} ({level})" if level else verdict


def _latency(one: Measured) -> str:
    said = units.milliseconds(one.cpu_ms)
    return f"{said} ({units.span(*one.cpu_interval_ms, units.milliseconds)})" if one.cpu_interval_ms else said


def add(files: list[Path], entries: list[Entry]) -> list[Entry]:
    """The entries with those of the files, each in place of its network's older one; ordered by name."""
    found = {one.network: one for one in entries}
    for file in files:
        one = entry(json.loads(file.read_text(encoding="utf-8")))
        found[one.network] = one
    return [found[name] for name in sorted(found)]


def take(files: list[Path]) -> None:
    """Take results into the file, and write the page."""
    entries = add(files, read() if STORED.exists() else [])
    STORED.write_text(stored(entries), encoding="utf-8")
    PAGE.write_text(page(entries), encoding="utf-8")


if __name__ == "__main__":
    take([Path(name) for name in sys.argv[1:]])
