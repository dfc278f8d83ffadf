"""Two stored comparisons side by side: changes are found sample by sample, and what is not alike is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csa_deploy.metrics.stream import OutputMetrics
from csa_deploy.results import NotMeasured
from csa_deploy.verify.results import CandidateColumns, OutputColumns, Results
from csa_deploy.verify.run_comparison import Change, compare_results


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


def rows(a: Results, b: Results) -> dict[str, Change]:
    return {row.metric: row for row in compare_results(a, b).rows}


def test_the_same_run_differs_in_nothing() -> None:
    found = compare_results(results(), results())
    assert {row.outcome for row in found.rows} == {"no difference shown"}
    assert {row.difference for row in found.rows} == {0.0}
    assert found.caveats == found.not_compared == ()


@pytest.mark.shows("MEA-35")
def test_lost_samples_are_named_and_too_few_are_no_difference() -> None:
    few = rows(results(), results(wrong=range(7, 10)))["top1"]
    assert few.outcome == "no difference shown" and few.lost == ("s7", "s8", "s9") and few.gained == ()
    assert few.difference == pytest.approx(-3 / 400) and few.p_value == pytest.approx(0.25)
    many = rows(results(), results(wrong=range(12)))
    assert many["top1"].outcome == many["top1_agreement"].outcome == "worse"
    assert many["top1"].lost == ("s0", "s1", "s2", "s3", "s4"), "five are enough to look at"
    back = rows(results(wrong=range(12)), results())["top1"]
    assert back.outcome == "better" and back.gained == many["top1"].lost


@pytest.mark.shows("MEA-35", "ERR-29")
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
    assert change.outcome == "worse" and change.difference == pytest.approx(-10 * np.log10(1.1))
    assert rows(second, first)["snr_db"].outcome == "better"


@pytest.mark.shows("MEA-35", "ERR-29")
def test_more_noise_is_worse_in_every_way_and_less_divergence_is_better() -> None:
    found = rows(results(noise=1e-3), results(noise=1e-1))
    assert found["snr_db"].outcome == found["kl_divergence"].outcome == "worse"
    assert found["snr_db"].difference == pytest.approx(-40, abs=1)
    assert rows(results(noise=1e-1), results(noise=1e-3))["kl_divergence"].outcome == "better"


def test_changes_that_matter_to_nobody_are_no_difference() -> None:
    found = rows(results(noise=1e-3), results(noise=1.001e-3))
    assert abs(found["snr_db"].difference) > 0 and found["snr_db"].outcome == "no difference shown"


def test_identical_outputs_are_better_than_any_noise() -> None:
    assert rows(results(), results(noise=0.0))["snr_db"].outcome == "better"
    assert rows(results(noise=0.0), results())["snr_db"].outcome == "worse"
    assert rows(results(noise=0.0), results(noise=0.0))["snr_db"].outcome == "no difference shown"


def with_columns(of: Results, **columns: Any) -> Results:
    output = of.candidates[0].outputs[0]
    made = OutputColumns(output.name, output.classes, {**output.columns, **columns})
    return replace(of, candidates=(replace(of.candidates[0], outputs=(made,)),))


def test_all_the_noise_in_one_sample_decides_nothing() -> None:
    """Most resamples of such a set hold it once or not at all: there is no interval."""
    one = np.zeros(400)
    one[0] = 1e-6
    a, b = with_columns(results(), noise=one), with_columns(results(), noise=one / 4)
    for first, second in ((a, b), (b, a)):
        found = rows(first, second)["snr_db"]
        assert abs(found.difference) == pytest.approx(6.02, abs=0.01)
        assert found.interval is None and found.outcome == "undecided"


def test_outputs_that_are_not_finite_are_counted_and_named() -> None:
    def spoilt(count: int) -> Results:
        draw = np.random.default_rng(0)
        want = draw.standard_normal((400, 10)).astype("f4")
        got = want + 1e-3
        got[:count] = np.nan
        metrics = OutputMetrics("y")
        metrics.update(want, got, [f"s{i}" for i in range(400)], want.argmax(axis=1))
        candidate = CandidateColumns("int8", "int8", (OutputColumns("y", 10, metrics.columns),))
        return replace(results(), candidates=(candidate,))

    found = compare_results(spoilt(1), spoilt(30))
    assert found.caveats == (), "the reference is the same"
    by_metric = {row.metric: row for row in found.rows}
    assert by_metric["finite"].outcome == by_metric["top1"].outcome == "worse"
    assert by_metric["finite"].lost == ("s1", "s2", "s3", "s4", "s5")
    assert by_metric["snr_db"].outcome == "no difference shown" and by_metric["snr_db"].samples == 370
    assert "finite" not in rows(results(), results())


def test_without_energy_the_error_alone_tells() -> None:
    none, error = np.zeros(400), np.abs(np.random.default_rng(1).standard_normal(400))
    a, b = (with_columns(results(), signal=none, mean_abs_error=scale * error) for scale in (1, 10))
    assert rows(a, b)["mean_abs_error"].outcome == "worse"
    assert rows(b, a)["mean_abs_error"].outcome == "better"


def test_other_kinds_of_outputs_and_missing_metrics_are_not_compared() -> None:
    output = results().candidates[0].outputs[0]
    other = replace(results().candidates[0], outputs=(replace(output, classes=6),))
    said = compare_results(results(), replace(results(), candidates=(other,)))
    assert said.rows == ()
    assert said.not_compared == (NotMeasured("int8, output 'y'", "10 classes in A, 6 in B"),)
    columns = {n: v for n, v in output.columns.items() if n not in ("top1", "reference_top1")}
    bare = replace(results().candidates[0], outputs=(OutputColumns("y", 10, columns),))
    missing = compare_results(results(), replace(results(), candidates=(bare,), labels=None)).not_compared
    assert missing == (NotMeasured("int8, output 'y': top1", "only in A"),)


def test_few_samples_are_undecided() -> None:
    assert rows(results(count=2), results(noise=0.0, count=2))["snr_db"].outcome == "undecided"
    assert rows(results(count=9), results(noise=1e-1, count=9))["snr_db"].outcome == "undecided"


def test_only_common_samples_count_and_what_is_not_alike_is_said() -> None:
    a, b = results(data="d", tensors_sha256="1"), results(count=300, data="e", network="other")
    found = compare_results(a, b)
    assert {row.samples for row in found.rows} == {300}
    assert "another network: net and other" in found.caveats and "another data: d and e" in found.caveats
    assert "other samples: 400 and 300, of which 300 are in both" in found.caveats
    relabelled = replace(results(), labels=(results().labels + 1) % 10)  # type: ignore[operator]
    assert "other labels for 400 samples, first s0" in compare_results(a, relabelled).caveats
    other_tensors = compare_results(a, results(tensors_sha256="2")).caveats
    assert other_tensors == (
        "samples of the same names gave other input tensors: other images or another preprocessing",
    )
    assert compare_results(a, results(total=800)).caveats == ("B is partial: 400 of 800 samples",)


def test_another_reference_is_noticed() -> None:
    b = results()
    output = b.candidates[0].outputs[0]
    columns = {**output.columns, "signal": output.columns["signal"] * 1.1}
    b = replace(b, candidates=(replace(b.candidates[0], outputs=(OutputColumns("y", 10, columns),)),))
    said = compare_results(results(), b).caveats
    assert said == ("int8: the reference itself answers otherwise in B: other weights or preprocessing",)


def test_candidates_and_samples_that_one_run_lacks_are_not_compared() -> None:
    a, b = results(), results()
    b = replace(b, candidates=(replace(b.candidates[0], label="fp16"),))
    found = compare_results(a, b).not_compared
    assert found == (
        NotMeasured("int8, output 'y'", "only in A"),
        NotMeasured("fp16, output 'y'", "only in B"),
    )
    apart = replace(results(), ids=tuple(f"t{i}" for i in range(400)))
    said = compare_results(results(), apart)
    assert said.rows == ()
    assert said.not_compared == (NotMeasured("accuracy", "the two runs have no sample in common"),)


def test_the_command_compares_accuracy_where_both_runs_have_it(tmp_path: Path, csa: Any) -> None:
    for name, given in (("a", results()), ("b", results(wrong=range(12))), ("c", None)):
        (tmp_path / name / "verify").mkdir(parents=True)
        (tmp_path / name / "manifest.json").write_text(
            '{"schema_version": 1, "config": {"network": "n"}, "stages": {}}'
        )
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
    assert refused.returncode == 2 and "no stored comparison in c either" in refused.stderr
    elsewhere = csa(tmp_path, "compare", "a", "nowhere")
    assert elsewhere.returncode == 2 and "nowhere: no workspace of a run" in elsewhere.stderr
    (tmp_path / "c" / "verify" / "partial.npz").write_bytes(results(total=800).to_bytes())
    partial = csa(tmp_path, "compare", "a", "c")
    assert partial.returncode == 0 and "B is partial: 400 of 800 samples" in partial.stdout
    judged = csa(tmp_path, "judge", "c")
    assert judged.returncode == 0 and "c/verify/partial.npz: undecided" in judged.stdout


def test_the_command_on_a_real_run(digits: Any, csa: Any) -> None:
    data = json.loads(csa(digits.cwd, "compare", digits.root, digits.root, "--format", "json").stdout)
    assert data.get("rows") or data["not_compared"]
    assert {r["outcome"] for r in data["accuracy"]["rows"]} == {"no difference shown"}
