"""Two stored comparisons side by side: changes are found sample by sample, and what is not alike is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csa_deploy.verify.across import compare_results
from csa_deploy.verify.metrics import OutputMetrics
from csa_deploy.verify.results import CandidateColumns, OutputColumns, Results


def results(noise: float = 1e-3, wrong: range = range(0), count: int = 400, seed: int = 0, **meta: Any) -> Results:
    """A classifier of ten classes with labels; the candidate gets the samples in ``wrong`` wrong."""
    draw = np.random.default_rng(0)
    want = draw.standard_normal((count, 10)).astype("f4")
    got = want + noise * np.random.default_rng(seed + 1).standard_normal((count, 10)).astype("f4")
    got[list(wrong)] = -got[list(wrong)]
    ids = [f"s{i}" for i in range(count)]
    metrics, truth = OutputMetrics("y"), want.argmax(axis=1)
    metrics.update(want, got, ids, truth)
    columns = CandidateColumns("int8", "int8", (OutputColumns("y", metrics.classes, metrics.columns),))
    return Results(tuple(ids), truth, (columns,), {"network": "net", "data": "d", "total": count, **meta})


def rows(a: Results, b: Results) -> dict[str, dict[str, Any]]:
    return {row["metric"]: row for row in compare_results(a, b)["rows"]}


def test_the_same_run_differs_in_nothing() -> None:
    found = compare_results(results(), results())
    assert {row["outcome"] for row in found["rows"]} == {"no difference"}
    assert {row["difference"] for row in found["rows"]} == {0.0}
    assert found["caveats"] == found["not_compared"] == []


def test_lost_samples_are_named_and_too_few_are_no_difference() -> None:
    few = rows(results(), results(wrong=range(7, 10)))["top1"]
    assert few["outcome"] == "no difference" and few["lost"] == ("s7", "s8", "s9") and few["gained"] == ()
    assert few["difference"] == pytest.approx(-3 / 400) and few["p_value"] == pytest.approx(0.25)
    many = rows(results(), results(wrong=range(12)))
    assert many["top1"]["outcome"] == many["top1_agreement"]["outcome"] == "worse"
    assert many["top1"]["lost"] == ("s0", "s1", "s2", "s3", "s4"), "five are enough to look at"
    back = rows(results(wrong=range(12)), results())["top1"]
    assert back["outcome"] == "better" and back["gained"] == many["top1"]["lost"]


def test_pairing_finds_what_two_intervals_would_hide() -> None:
    """The error of a sample varies by far more than it changes: unpaired intervals overlap."""
    a = results(noise=1e-3)
    spread = 10 ** np.random.default_rng(5).uniform(-3, 0, 400)

    def scaled(by: float) -> Results:
        output = a.candidates[0].outputs[0]
        columns = {**output.columns, "noise": output.columns["noise"] * spread * by}
        candidate = replace(a.candidates[0], outputs=(OutputColumns("y", output.classes, columns),))
        return replace(a, candidates=(candidate,))

    first, second = scaled(1.0), scaled(1.1)
    estimates = [r.candidates[0].outputs[0].estimates["snr_db"].interval for r in (first, second)]
    assert estimates[0][0] < estimates[1][1], "the two intervals overlap"  # type: ignore[index]
    change = rows(first, second)["snr_db"]
    assert change["outcome"] == "worse" and change["difference"] == pytest.approx(-10 * np.log10(1.1))
    assert rows(second, first)["snr_db"]["outcome"] == "better"


def test_more_noise_is_worse_in_every_way_and_less_divergence_is_better() -> None:
    found = rows(results(noise=1e-3), results(noise=1e-1))
    assert found["snr_db"]["outcome"] == found["kl_divergence"]["outcome"] == "worse"
    assert found["snr_db"]["difference"] == pytest.approx(-40, abs=1)
    assert rows(results(noise=1e-1), results(noise=1e-3))["kl_divergence"]["outcome"] == "better"


def test_changes_that_matter_to_nobody_are_no_difference() -> None:
    found = rows(results(noise=1e-3), results(noise=1.001e-3))
    assert abs(found["snr_db"]["difference"]) > 0 and found["snr_db"]["outcome"] == "no difference"


def test_identical_outputs_are_better_than_any_noise() -> None:
    assert rows(results(), results(noise=0.0))["snr_db"]["outcome"] == "better"
    assert rows(results(noise=0.0), results())["snr_db"]["outcome"] == "worse"
    assert rows(results(noise=0.0), results(noise=0.0))["snr_db"]["outcome"] == "no difference"


def test_few_samples_are_undecided() -> None:
    assert rows(results(count=9), results(noise=1e-1, count=9))["snr_db"]["outcome"] == "undecided"


def test_only_common_samples_count_and_what_is_not_alike_is_said() -> None:
    a, b = results(data="d", tensors_sha256="1"), results(count=300, data="e", network="other")
    found = compare_results(a, b)
    assert {row["samples"] for row in found["rows"]} == {300}
    assert "another network: net and other" in found["caveats"] and "another data: d and e" in found["caveats"]
    assert "other samples: 400 and 300, of which 300 are in both" in found["caveats"]
    relabelled = replace(results(), labels=(results().labels + 1) % 10)  # type: ignore[operator]
    assert "other labels for 400 samples, first s0" in compare_results(a, relabelled)["caveats"]
    other_tensors = compare_results(a, results(tensors_sha256="2"))["caveats"]
    assert other_tensors == [
        "samples of the same names gave other input tensors: other images or another preprocessing"
    ]
    assert compare_results(a, results(total=800))["caveats"] == ["B is partial: 400 of 800 samples"]


def test_another_reference_is_noticed() -> None:
    b = results()
    output = b.candidates[0].outputs[0]
    columns = {**output.columns, "signal": output.columns["signal"] * 1.1}
    b = replace(b, candidates=(replace(b.candidates[0], outputs=(OutputColumns("y", 10, columns),)),))
    said = compare_results(results(), b)["caveats"]
    assert said == ["int8: the reference itself answers otherwise in B: other weights or preprocessing"]


def test_candidates_and_samples_that_one_run_lacks_are_not_compared() -> None:
    a, b = results(), results()
    b = replace(b, candidates=(replace(b.candidates[0], label="fp16"),))
    found = compare_results(a, b)["not_compared"]
    assert [entry["what"] for entry in found] == ["int8", "fp16"]
    apart = replace(results(), ids=tuple(f"t{i}" for i in range(400)))
    said = compare_results(results(), apart)
    assert said["rows"] == [] and said["not_compared"] == [
        {"what": "accuracy", "reason": "the two runs have no sample in common"}
    ]


def test_the_command_compares_accuracy_where_both_runs_have_it(tmp_path: Path, csa: Any) -> None:
    for name, given in (("a", results()), ("b", results(wrong=range(12))), ("c", None)):
        (tmp_path / name / "verify").mkdir(parents=True)
        if given is not None:
            (tmp_path / name / "verify" / "samples.npz").write_bytes(given.to_bytes())
    shown = csa(tmp_path, "compare", "a", "b")
    assert shown.returncode == 0, shown.stderr
    assert "worse" in shown.stdout and "-3.00 points" in shown.stdout and "no stored profile" in shown.stdout
    data = json.loads(csa(tmp_path, "compare", "a", "b", "--format", "json").stdout)
    assert {r["metric"]: r["outcome"] for r in data["accuracy"]["rows"]}["top1"] == "worse"
    markdown = csa(tmp_path, "compare", "a", "b", "--format", "markdown").stdout
    assert "| int8 graph | y | top1 | 99.75 % | 96.75 % |" in markdown
    refused = csa(tmp_path, "compare", "a", "c")
    assert refused.returncode == 2 and "no stored profile" in refused.stderr


def test_the_command_on_a_real_run(digits: Any, csa: Any) -> None:
    data = json.loads(csa(digits.cwd, "compare", digits.root, digits.root, "--format", "json").stdout)
    assert data["rows"] or data["not_compared"]
    assert {r["outcome"] for r in data["accuracy"]["rows"]} == {"no difference"}
