"""Two stored runs side by side, as the command shows them."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csa_deploy.errors import UsageError
from csa_deploy.profile.runs import compare_runs
from csa_deploy.profile.statistics import summarise
from csa_deploy.profile.stored import load_run
from csa_deploy.records.profile import Contract, ProfileRecord
from csa_deploy.results import NotMeasured, jsonable


def store(root: Path, medians: dict[str, float], seed: int, n: int = 250, **host: Any) -> Path:
    draw = np.random.default_rng(seed)
    latency = {k: summarise(m * np.exp(0.03 * draw.standard_normal(n))) for k, m in medians.items()}
    numbers = {"warmup": 1, "iterations": n, "seconds": None, "streams": 1, "timed_on_device": {}}
    stated = {"timed": "host", "batch": 1, "threads": 1, "inputs": "seed 0", **numbers}
    contract = Contract(**(dict.fromkeys((f.name for f in fields(Contract) if f.name != "loadgen"), "") | stated))
    files = {
        "manifest.json": {"schema_version": 1, "config": {"network": "net"}, "stages": {}},
        "measurements/profile.json": {
            "latency": jsonable(latency),
            "host": {"cpu": "A", "cores": 2, "system": "L", **host},
        },
        "records/profile.json": ProfileRecord(summary="", contract=contract, measured=(), cost={}, layers={}).to_json(),
    }
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(json.dumps(data))
    return root


def outcomes(rows: Any) -> dict[tuple[str, float], str]:
    return {(row["label"], row["percentile"]): row["outcome"] for row in jsonable(rows)}


@pytest.mark.shows("MEA-35", "ERR-29")
def test_says_slower_faster_or_no_difference(tmp_path: Path) -> None:
    a = load_run(store(tmp_path / "a", {"exported": 10, "fp32": 10, "fp16": 10, "int8": 9}, 1))
    b = load_run(store(tmp_path / "b", {"exported": 10, "fp32": 10.5, "fp16": 9}, 2))
    result = compare_runs(a, b)
    got = outcomes(result.rows)
    assert got["exported", 50] == "no difference shown"
    assert got["fp32", 50] == "slower"
    assert got["fp16", 50] == "faster"
    assert result.caveats == ()
    assert NotMeasured("int8", "not measured in both runs") in result.not_compared
    assert not any(percentile == 99 for _, percentile in got)


def test_too_few_samples_are_not_compared(tmp_path: Path) -> None:
    a, b = store(tmp_path / "a", {"fp32": 1}, 1, 6), store(tmp_path / "b", {"fp32": 2}, 2)
    result = compare_runs(load_run(a), load_run(b))
    assert result.rows == ()
    reason = "A: an interval of p50 needs 8 timed inferences, there are 6"
    assert NotMeasured("fp32 p50", reason) in result.not_compared


def test_names_what_was_not_alike(tmp_path: Path) -> None:
    a, b = store(tmp_path / "a", {"fp32": 1}, 1), store(tmp_path / "b", {"fp32": 1}, 2, cpu="B")
    assert compare_runs(load_run(a), load_run(b)).caveats == ("another machine: cpu A and B",)


def test_a_directory_without_a_profile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no stored profile"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("records/profile.json", "{", "profile.json: cannot be read"),
        ("records/profile.json", '{"summary": ""}', "ProfileRecord: these data are not complete: no contract"),
        ("measurements/profile.json", '{"latency": {"fp32": {}}}', "Profiled: latency is damaged"),
        ("measurements/profile.json", None, "profile.json: cannot be read"),
        ("manifest.json", '{"schema_version": 1, "config": {}, "stages": {}}', "KeyError 'network'"),
    ],
)
def test_a_damaged_profile_is_not_called_an_absent_one(tmp_path: Path, file: str, text: str | None, said: str) -> None:
    root = store(tmp_path / "a", {"fp32": 1}, 1)
    (root / file).unlink() if text is None else (root / file).write_text(text)
    with pytest.raises(UsageError) as caught:
        load_run(root)
    assert caught.value.message.startswith(f"{root}: its stored profile is damaged: ") and said in caught.value.message


def test_the_command_in_three_forms(tmp_path: Path, csa: Any) -> None:
    store(tmp_path / "a", {"fp32": 10}, 1)
    store(tmp_path / "b", {"fp32": 11}, 2)
    assert "slower" in csa(tmp_path, "compare", "a", "b").stdout
    shown = json.loads(csa(tmp_path, "compare", "a", "b", "--format", "json").stdout)
    assert outcomes(shown["rows"])["fp32", 50] == "slower"
    markdown = csa(tmp_path, "compare", "a", "b", "--format", "markdown").stdout
    assert "| fp32 graph | p50 |" in markdown
    assert csa(tmp_path, "compare", "a", "missing").returncode == 2


def test_measures_both_anew(digits: Any, csa: Any) -> None:
    done = csa(digits.cwd, "compare", digits.root, digits.root, "--measure", "--iterations", 20, "--format", "json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert "interleaved" in result["method"]
    # On a busy machine neighbours may be so alike that 20 are too few.
    said = {row["label"] for row in result["rows"]} | {item["what"].split()[0] for item in result["not_compared"]}
    assert said >= {"exported", "fp32", "fp16"}
