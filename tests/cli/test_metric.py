"""A metric of the user and a new entry of the table, from the command line to every place that tells of metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csa_deploy.metrics.metric import Metric, Pair, Row, Sure
from csa_deploy.metrics.table import METRICS, register
from csa_deploy.metrics.task import TASKS
from csa_deploy.verify.results import read_results

PLUG_IN = """
import numpy as np


class Right:
    unit = "share"

    def update(self, outputs, target):
        return [float(outputs["y"].argmax() == target)]

    def reduce(self, rows):
        return float(rows.mean())


class Raises(Right):
    def update(self, outputs, target):
        raise KeyError("lanes")


class OtherShapes(Right):
    def update(self, outputs, target):
        return np.zeros(1 + target % 2)


class NotANumber(Right):
    def reduce(self, rows):
        return float("nan")


class Neither:
    pass
"""
SAMPLES = 40


@pytest.fixture()
def folder(lab: Path) -> Iterator[Path]:
    """Forty samples whose labels the network gets right, but for a few."""
    from csa_deploy.runners.onnxruntime_runner import OnnxRuntimeRunner

    images = np.random.default_rng(1).standard_normal((SAMPLES, 3, 16, 16)).astype("f4")
    with OnnxRuntimeRunner(lab / "tiny.onnx") as runner:
        labels = np.asarray([runner.run({"x": image[None]})["y"][0].argmax() for image in images])
    labels[:4] = (labels[:4] + 1) % 10
    np.savez(lab / "many.npz", x=images, labels=labels)
    (lab / "mine.py").write_text(PLUG_IN)
    before, tasks = dict(METRICS), dict(TASKS)
    yield lab
    for known, kept in ((METRICS, before), (TASKS, tasks)):
        known.clear()
        known.update(kept)  # type: ignore[arg-type]


def verify(typed: Any, folder: Path, *words: str, workspace: str = "w") -> Any:
    common = ("--data", "many.npz", "-w", workspace, "--precision", "fp32,fp16", "--threads", "1")
    return typed(folder, "verify", "tiny.onnx", *common, *words)


def checks(workspace: Path) -> dict[tuple[str, str], dict[str, Any]]:
    record = json.loads((workspace / "records/verify.json").read_text())
    return {(c["label"], f"{x['output']}.{x['metric']}"): x for c in record["candidates"] for x in c["checks"]}


def test_a_metric_of_a_file_is_measured_judged_and_told(folder: Path, typed: Any) -> None:
    mine = ("--metric", "mine.py:Right", "--budget", "fp16.Right_drop=0.1", "--budget", "fp16.Right=0.95")
    done = verify(typed, folder, *mine)
    assert done.code == 6 and "Right of 'all outputs' is 90.00 %, the budget is at least 95.00 %" in done.err
    held = checks(folder / "w")
    assert held["fp16", "all outputs.Right_drop"]["state"] == "pass"
    right = held["fp16", "all outputs.Right"]
    assert right["state"] == "fail" and right["value"] == 0.9
    assert ("fp32", "all outputs.Right") not in held
    # Judged again from the stored rows, with the budgets of the run and with others.
    again = typed(folder, "judge", "w", "--json")
    assert again.code == 6 and '"Right_drop"' in again.out
    assert typed(folder, "judge", "w", "--budget", "fp16.Right=0.5").code == 0
    report = typed(folder, "report", "tiny.onnx", "-w", "w")
    page = (folder / "w/report.html").read_text()
    assert report.code == 0 and "Right_drop" in page and '<th class="n">Right</th>' in page and "90.00 %" in page
    # Two runs side by side.
    assert verify(typed, folder, "--metric", "mine.py:Right", "--samples", str(SAMPLES), workspace="v").code == 0
    rows = json.loads(typed(folder, "compare", "w", "v", "--json").out)["accuracy"]["rows"]
    (row,) = (r for r in rows if r["metric"] == "Right" and r["label"] == "fp16")
    assert row["a"] == row["b"] == 0.9 and row["interval"] == [0.0, 0.0] and row["outcome"] == "no difference shown"
    stored = read_results(folder / "w/verify/samples.npz").candidates[0].outputs[-1]
    alone = typed(folder, "evaluate", "w/onnx/tiny.fp16.onnx", "--data", "many.npz", "--metric", "mine.py:Right")
    assert alone.code == 0 and "Right 90.00 %\n" in alone.out  # four that deviate give no interval
    assert stored.name == "all outputs" and stored.columns["Right"].shape == (SAMPLES,)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mine.py:Raises", "metric Raises: update() raised KeyError: 'lanes' on sample"),
        ("mine.py:OtherShapes", "metric OtherShapes: 2 numbers of sample"),
        ("mine.py:NotANumber", "metric NotANumber: reduce() gave nan on 40 rows"),
        ("mine.py:Neither", "metric Neither: has no update() and reduce()"),
        ("mine.py:Rihgt", "did you mean 'Right'?"),
        ("none.py:Right", "none.py: no such file"),
        ("Right", "metric Right: no such metric"),
    ],
)
def test_a_bad_metric_is_one_line_and_exit_2(folder: Path, typed: Any, name: str, said: str) -> None:
    done = verify(typed, folder, "--metric", name)
    last = done.err.strip().splitlines()[-1]
    assert done.code == 2 and said in last and "Traceback" not in done.err


def test_a_bound_of_one_output_counts_there_alone(folder: Path, typed: Any) -> None:
    (folder / "two").mkdir()
    words = ("verify", "nets.py:two", "-w", "two", "--data", "two.npz", "--precision", "fp32,fp16", "--threads", "1")
    draw = np.random.default_rng(2)
    arrays = {"camera": draw.standard_normal((30, 3, 8, 8)), "speed": draw.standard_normal((30, 4))}
    np.savez(folder / "two.npz", **{name: array.astype("f4") for name, array in arrays.items()})
    base = ("--budget", "fp16.snr_db=30", "--budget", "fp16.top1_agreement=0.01")
    assert typed(folder, *words, *base).code == 0
    done = typed(folder, *words, *base, "--budget", "fp16.brake.snr_db=200")
    assert done.code == 6 and "snr_db of 'brake'" in done.err and "at least 200.0 dB" in done.err
    held = checks(folder / "two")
    assert held["fp16", "brake.snr_db"]["state"] == "fail" and held["fp16", "brake.snr_db"]["asked"]
    assert held["fp16", "path.snr_db"]["bound"] == 30 and held["fp16", "path.snr_db"]["state"] == "pass"
    unknown = typed(folder, *words, *base, "--budget", "fp16.brakes.snr_db=20")
    assert unknown.code == 2 and "no output 'brakes', did you mean 'brake'?" in unknown.err.replace("\n", " ")


def test_an_entry_of_the_table_is_all_that_a_metric_needs(folder: Path, typed: Any) -> None:
    """Registered while the program runs: budget, verdict, judge, compare, report."""

    def middle(pair: Pair) -> Row:
        return {"middle": float(np.median(np.abs(pair.want - pair.got)))}

    register(
        Metric(
            name="median_abs_error",
            better="lower",
            of="tensor",
            per_sample=middle,
            columns=("middle",),
            reduce=lambda column: float(column.mean()),
            sure=lambda value, column: Sure((value, value), "told by the test"),
            change=lambda a, b: Sure((0.0, 0.0), "told by the test"),
            unit="dB",
            heading="middle error",
            default_bounds={"fp32": 1.0},
        )
    )
    done = verify(typed, folder, "--budget", "fp16.median_abs_error=1e-9")
    assert done.code == 6 and "median_abs_error of 'y' is 0.0" in done.err
    held = checks(folder / "w")
    assert held["fp16", "y.median_abs_error"]["state"] == "fail"
    assert (
        held["fp32", "y.median_abs_error"] | {"bound": 1.0, "state": "pass", "side": "max"}
        == held["fp32", "y.median_abs_error"]
    )
    assert typed(folder, "judge", "w", "--budget", "fp16.median_abs_error=1").code == 0
    assert typed(folder, "report", "tiny.onnx", "-w", "w").code == 0
    page = (folder / "w/report.html").read_text()
    assert "median_abs_error" in page and "middle error" in page
    rows = json.loads(typed(folder, "compare", "w", "w", "--json").out)["accuracy"]["rows"]
    assert {r["metric"] for r in rows} >= {"median_abs_error", "snr_db"}
