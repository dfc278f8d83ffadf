"""What a judgement says in JUnit, Markdown and in a line: the worst output, every broken bound, and enough digits."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from csa_deploy import units
from csa_deploy.config import make_config
from csa_deploy.metrics.stream import OutputMetrics
from csa_deploy.metrics.table import worst_values
from csa_deploy.verify.judging import Judgement, judge_results
from csa_deploy.verify.reporters import as_junit, as_markdown
from csa_deploy.verify.results import CandidateColumns, OutputColumns, Results


def results(noise: dict[str, float], count: int = 40, quiet: bool = False) -> Results:
    """Two maps and boxes, each with its own noise; the first sample may be nearly black."""
    draw = np.random.default_rng(0)
    ids = [f"s{i}" for i in range(count)]
    outputs = []
    for name, spread in noise.items():
        want = draw.standard_normal((count, 4, 6, 6) if name.startswith("map") else (count, 9, 4))
        got = want + spread * draw.standard_normal(want.shape)
        if quiet:
            want[0] *= 1e-3
            got[0] = want[0] + 1e-3 * draw.standard_normal(want[0].shape)
        metrics = OutputMetrics(name)
        metrics.update(want, got, ids, None)
        outputs.append(OutputColumns(name, metrics.classes, metrics.columns))
    return Results(tuple(ids), None, (CandidateColumns("int8", "int8", tuple(outputs)),), {"total": count})


def judged(found: Results, *budget: str) -> Judgement:
    config = make_config({"budget": list(budget)})
    return judge_results(found, config.bounds, config.asked)


def test_the_worst_output_stands_beside_the_verdict() -> None:
    judgement = judged(results({"map8": 1e-3, "box8": 0.5, "box32": 0.7}))
    (candidate,) = judgement.candidates
    assert candidate.verdict == "fail" and candidate.decided_by.startswith("snr_db of box8")
    by_output = {o.name: o.metrics for o in candidate.outputs}
    assert candidate.metrics["snr_db"] == by_output["box32"]["snr_db"] == min(m["snr_db"] for m in by_output.values())
    assert candidate.metrics["max_abs_error"] == max(m["max_abs_error"] for m in by_output.values())
    assert candidate.metrics["mean_iou_agreement"] == by_output["map8"]["mean_iou_agreement"]
    error = judgement.failure(strict=False)
    assert error is not None and error.message.endswith("; 4 bounds are broken")


def test_the_worst_of_nothing_and_of_what_is_no_number() -> None:
    assert worst_values([]) == {}
    spoilt = worst_values([{"cosine": 0.5}, {"cosine": float("nan")}])
    assert np.isnan(spoilt["cosine"])
    heads = [{"top1": t, "reference_top1": r} for t, r in ((0.9, 0.95), (0.4, 0.5))]
    assert worst_values(heads) == {"top1": 0.4, "reference_top1": 0.5}


@pytest.mark.parametrize(
    ("value", "bound", "metric", "shown"),
    [
        (39.98, 40.0, "snr_db", "39.98 dB"),
        (39.9999, 40.0, "snr_db", "39.9999 dB"),
        (40.0, 40.0, "snr_db", "40.0 dB"),
        (41.26, 40.0, "snr_db", "41.3 dB"),
        (0.989999, 0.99, "top1_agreement", "98.9999 %"),
        (0.9999995, 0.9999996, "cosine", "0.9999995"),
        (1.00001e-4, 1e-4, "max_rel_error", "0.00010000"),
        (None, 1.0, "snr_db", "-"),
    ],
)
def test_a_value_beside_its_bound_has_the_digits_that_tell_them_apart(
    value: float | None, bound: float, metric: str, shown: str
) -> None:
    found = units.beside(value, bound, metric)
    assert found.startswith(shown) and (value in (None, bound) or found != units.metric(bound, metric))


@pytest.mark.parametrize(
    ("bound", "metric", "shown"),
    [
        (40.0, "snr_db", "40.0 dB"),
        (40.25, "snr_db", "40.25 dB"),
        (0.9999995, "cosine", "0.9999995"),
        (0.99, "top1_agreement", "99.00 %"),
        (0.99995, "top1_agreement", "99.995 %"),
        (0.0007, "top1_drop", "0.07 %"),
        (1e-4, "max_rel_error", "0.0001"),
        (123456.5, "max_abs_error", "123456.5"),
        (0.0, "kl_divergence", "0"),
    ],
)
def test_a_bound_is_not_rounded(bound: float, metric: str, shown: str) -> None:
    assert units.bound(bound, metric) == shown


def test_the_direction_of_an_output_that_is_nearly_zero_is_not_judged_and_said() -> None:
    judgement = judged(results({"map": 1e-3}, quiet=True))
    (note,) = [n for n in judgement.notes if "nearly zero" in n]
    assert "of sample s0 is nearly zero" in note and "held against 1 % of the usual energy" in note
    assert judgement.candidates[0].verdict != "fail" and judgement.candidates[0].metrics["cosine"] > 0.999
    assert not [n for n in judged(results({"map": 0.9})).notes if "nearly zero" in n]  # bad everywhere


@pytest.mark.parametrize(("size", "said"), [(1e-7, 1), (1e-3, 0)])
def test_an_output_of_the_size_of_rounding_is_explained_where_it_fails(size: float, said: int) -> None:
    """A detector's map where no sample holds an object: 9e-8 of error is 10 dB."""
    draw = np.random.default_rng(0)
    metrics, ids = OutputMetrics("map"), [f"s{number}" for number in range(30)]
    want = size * draw.random((30, 1, 4, 4)).astype("f4")
    metrics.update(want, want * (1 + 0.5 * draw.standard_normal(want.shape)).astype("f4"), ids, None)
    columns = (OutputColumns("map", metrics.classes, metrics.columns),)
    judgement = judged(Results(tuple(ids), None, (CandidateColumns("fp32", "fp32", columns),), {"total": 30}))
    assert judgement.candidates[0].verdict == "fail"
    assert len([n for n in judgement.notes if "its errors are rounding" in n]) == said


def test_maps_without_a_budget_say_so() -> None:
    def asks(*budget: str) -> bool:
        return any("no budget bounds the classes" in n for n in judged(results({"map": 1e-3}), *budget).notes)

    assert asks() and not asks("int8.mean_iou_agreement=0.5")
    assert not any("classes" in n for n in judged(results({"box": 1e-3})).notes)


def junit(judgement: Judgement, strict: bool = False) -> Any:
    return ElementTree.fromstring(as_junit(judgement, strict=strict))


def test_junit_has_a_case_per_bound() -> None:
    judgement = judged(results({"map": 1e-3, "box": 0.5}), "int8.mean_iou_agreement=0.9999")
    root = junit(judgement)
    checks = judgement.candidates[0].checks
    states = [c.state for c in checks]
    assert {"pass", "fail"} < set(states)
    assert int(root.get("tests")) == len(checks) and int(root.get("failures")) == states.count("fail")
    assert len(root.findall(".//failure")) == states.count("fail")
    failed = next(case for case in root.iter("testcase") if case.find("failure") is not None)
    assert "of box" in failed.get("name") and "measured" in failed.find("failure").get("message")


def test_what_is_undecided_is_skipped_or_fails_strictly() -> None:
    judgement = judged(results({"map": 1e-3}, count=30), "int8.pixel_agreement=0.9995")
    (undecided,) = [c for c in judgement.candidates[0].checks if c.state == "undecided"]
    for strict, outcome in ((False, "skipped"), (True, "failure")):
        (found,) = junit(judgement, strict).findall(f".//{outcome}")
        assert undecided.reason in found.get("message")


def test_markdown_cannot_be_broken_by_a_name() -> None:
    found = as_markdown(judged(results({"map|<b>": 1e-3})), "w")
    assert "map\\|&lt;b>" in found and found.startswith("### w: ")
    rows = [line for line in found.splitlines() if line.startswith("| int8")]
    assert all(line.replace("\\|", "").count("|") == 8 for line in rows) and rows


def test_the_command_in_every_form(digits: Any, csa: Any) -> None:
    said = {
        form: csa(digits.cwd, "judge", digits.root, "--format", form) for form in ("json", "junit", "markdown", "text")
    }
    assert {done.returncode for done in said.values()} == {0}
    checks = [c for candidate in json.loads(said["json"].stdout)["candidates"] for c in candidate["checks"]]
    assert int(ElementTree.fromstring(said["junit"].stdout).get("tests")) >= len(checks) > 0
    assert "| fp16 |" in said["markdown"].stdout and "budget" in said["text"].stdout
    assert csa(digits.cwd, "judge", digits.root, "--format", "yaml").returncode == 2
